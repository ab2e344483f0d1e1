"""Write and read X.509: what an authority, a server, an agent and a revocation list look like here.

Authorities and servers have P-256 keys, which browsers take; agents have Ed25519 keys, which the library they sign with
anyway can make. What a certificate is good for stands in it: an agent's proves no server, a server's no agent
(RFC 5280, 4.2.1.12), and neither may sign others.
"""

import datetime
import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.files import write_whole

AUTHORITY_DAYS = 20 * 365
SERVER_DAYS = 397
"""The longest that browsers take (CA/Browser Forum, Baseline Requirements 6.3.2)."""

BACKDATED = datetime.timedelta(hours=24)
"""A van's clock may be behind when it judges our certificates."""


class CertificateWrong(ValueError):
    """The text or bytes are no certificate, or not one of ours."""


class RequestWrong(ValueError):
    """The bytes are no certificate request with an Ed25519 key that signed it."""


class Issuer(NamedTuple):
    """An authority: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Kept(NamedTuple):
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


def found_authority(name: str, now: datetime.datetime) -> Kept:
    """A new authority that signs for itself and may sign for parties, not for other authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _began(subject, subject, key.public_key(), now, datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_others=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Kept(pem(certificate), _key_pem(key))


def issuer_of(certificate: bytes, key: bytes) -> Issuer:
    """An authority read back. Raises CertificateWrong."""
    try:
        read = serialization.load_pem_private_key(key, None)
        assert isinstance(read, ec.EllipticCurvePrivateKey), "an authority's key is P-256"
        return Issuer(x509.load_pem_x509_certificate(certificate), read)
    except (ValueError, TypeError, AssertionError, UnsupportedAlgorithm) as wrong:
        raise CertificateWrong(f"the authority cannot be read: {wrong}") from None


def server(issuer: Issuer, names: Sequence[str], now: datetime.datetime) -> Kept:
    """A server's certificate for these names and addresses, with a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _party(issuer, names[0], key.public_key(), now, SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return Kept(pem(builder.sign(issuer.key, hashes.SHA256())), _key_pem(key))


def process(issuer: Issuer, name: str, now: datetime.datetime) -> Kept:
    """A certificate by which one of the hub's processes signs in, with a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _party(issuer, name, key.public_key(), now, SERVER_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH)
    return Kept(pem(builder.sign(issuer.key, hashes.SHA256())), _key_pem(key))


def agent(
    issuer: Issuer, name: str, public: ed25519.Ed25519PublicKey, now: datetime.datetime, days: float
) -> x509.Certificate:
    """A certificate by which an agent signs in with a key only its machine has."""
    builder = _party(issuer, name, public, now, days, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(issuer.key, hashes.SHA256())


def revocations(issuer: Issuer, revoked: Iterable[tuple[int, datetime.datetime]], now: datetime.datetime) -> bytes:
    """The list of serial numbers no longer believed, as PEM.

    It is valid as long as its authority: OpenSSL refuses everybody once a list is out of date, and a broker must not
    lock out a fleet because nobody was revoked for long.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(issuer.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for serial, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def key_of_request(request: bytes) -> ed25519.Ed25519PublicKey:
    """The public key of a certificate request (DER, PKCS #10) that its own key signed. Raises RequestWrong."""
    try:
        read = x509.load_der_x509_csr(request)
        key = read.public_key()
        is_signed = read.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as wrong:
        raise RequestWrong(f"the certificate request cannot be read: {wrong}; expected PKCS #10 in DER") from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise RequestWrong(f"the request has a key of type {type(key).__name__}, expected Ed25519")
    if not is_signed:
        raise RequestWrong("the request is not signed by its own key")
    return key


def read_certificate(text: bytes) -> x509.Certificate:
    """One certificate in PEM. Raises CertificateWrong."""
    try:
        return x509.load_pem_x509_certificate(text)
    except (ValueError, TypeError, x509.InvalidVersion) as wrong:
        raise CertificateWrong(f"no certificate in PEM form: {str(wrong)[:100]}") from None


def is_by(certificate: x509.Certificate, issuer: Issuer) -> bool:
    """Whether this authority signed it; dates are not looked at."""
    try:
        certificate.verify_directly_issued_by(issuer.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def common_name(certificate: x509.Certificate) -> str:
    """Whose it is."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def alternative_names(certificate: x509.Certificate) -> list[str]:
    """The names and addresses a server's certificate is good for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate, 32 bytes."""
    return certificate.fingerprint(hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    """As PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_private(path: Path, content: bytes) -> None:
    """Write a file only its owner may read, whole or not at all."""
    write_file(path, content, 0o600)


def write_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, and give it to the owner of its folder."""
    write_whole(path, content, mode, give_to_owner)


def give_to_owner(path: Path) -> None:
    """As root, give a file or folder that was made to the owner of the folder it lies in: a command an administrator
    types must not leave keys behind that the hub may not read.
    """
    if os.geteuid() == 0:
        owner = path.absolute().parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _party(
    issuer: Issuer,
    name: str,
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    now: datetime.datetime,
    days: float,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    life = datetime.timedelta(days=days)
    return (
        _began(_name(name), issuer.certificate.subject, public, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )


def _began(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Waywarden"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
