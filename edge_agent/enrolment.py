"""Become an agent, and stay one: a key that never leaves this machine, and a certificate for it from the hub.

The token from `waywarden enrol` carries the fingerprint of the hub's authority. The authority's certificate is asked
for first, over a connection nobody vouches for, and believed only when it has that fingerprint; the secret is then said
only to a server which that authority, or one the machine's system believes, vouches for.
"""

import base64
import hashlib
import http.client
import ipaddress
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from asn1crypto import csr, keys, pem, x509  # type: ignore[import-untyped]  # It ships no types.
from nacl.signing import SigningKey

from shared.files import write_whole
from shared.logs import log
from shared.tls import Tls

TOKEN_BEGINS = "ww1"
SECRET_BYTES = 20
FINGERPRINT_BYTES = 32
RENEWAL = b"waywarden renewal\0"
PATIENCE_S = 30.0
MOST_ANSWER_BYTES = 100_000
LOOK_S = 3600.0
"""How often a running agent looks at its certificate's end."""

TRY_AGAIN_S = 600.0
PKCS8_ED25519 = bytes.fromhex("302e020100300506032b657004220420")
"""What precedes the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, section 7)."""


class EnrolmentRefused(ValueError):
    """The token, the hub or its answer is not what it should be."""


class HubOutOfReach(OSError):
    """The hub does not answer."""


class Answered(NamedTuple):
    """What the hub tells a machine it has made an agent."""

    agent: str
    region: str
    broker: str
    hub_public_key: str
    certificate: str
    ca: str


class Files(NamedTuple):
    """Where an agent's key and certificates lie: beside its settings, under their name."""

    key: Path
    certificate: Path
    ca: Path

    @classmethod
    def beside(cls, settings: Path) -> "Files":
        """For a settings file such as van-1.toml: van-1.key, van-1.crt and van-1-ca.crt."""
        stem = settings.resolve().with_suffix("")
        return cls(
            stem.with_name(f"{stem.name}.key"),
            stem.with_name(f"{stem.name}.crt"),
            stem.with_name(f"{stem.name}-ca.crt"),
        )


def enrol(hub: str, token: str, settings: Path) -> Answered:
    """Make a key, have the hub vouch for it, write key and certificates, and complete the settings file.

    May be repeated with the same token when it was interrupted: the same key asks again. Raises EnrolmentRefused,
    HubOutOfReach, OSError when a file cannot be written.
    """
    secret, known_by = token_parts(token)
    named = _named_agent(settings)
    files = Files.beside(settings)
    waiting = files.key.with_name(f"{files.key.name}.new")
    key = _key_of(waiting) if waiting.exists() else _new_key(waiting)
    ca = _authority(hub, known_by)
    asked = {
        "secret": base64.b64encode(secret).decode(),
        "request": base64.b64encode(certificate_request(key)).decode(),
        "agent": named,
    }
    answered = _answered(_ask(hub, "POST", "/api/enrol", asked, _believing(ca)))
    if not _is_for(answered.certificate, key) or answered.ca.strip() != ca.strip():
        raise EnrolmentRefused("the hub answered with a certificate that is not for this machine's key; ask for help")
    write_whole(files.ca, ca.encode(), 0o644)
    write_whole(files.certificate, answered.certificate.encode(), 0o644)
    waiting.replace(files.key)
    _complete(settings, hub, answered, files)
    return answered


def token_parts(token: str) -> tuple[bytes, bytes]:
    """A token's secret, and the SHA-256 of the authority's certificate. Raises EnrolmentRefused."""
    text = token.strip().removeprefix(TOKEN_BEGINS)
    try:
        read = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        read = b""
    if len(read) != SECRET_BYTES + FINGERPRINT_BYTES or not token.strip().startswith(TOKEN_BEGINS):
        raise EnrolmentRefused(f"the token is not whole, expected {TOKEN_BEGINS}… as `waywarden enrol` printed it")
    return read[:SECRET_BYTES], read[SECRET_BYTES:]


def certificate_request(key: SigningKey) -> bytes:
    """A request for a certificate (PKCS #10, DER), signed by its own key. The hub knows the name from the token."""
    public = keys.PublicKeyInfo({"algorithm": {"algorithm": "ed25519"}, "public_key": bytes(key.verify_key)})
    asked = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": x509.Name.build({"common_name": "agent"}),
            "subject_pk_info": public,
            "attributes": csr.CRIAttributes([]),
        }
    )
    signature = key.sign(asked.dump()).signature
    request = csr.CertificationRequest(
        {
            "certification_request_info": asked,
            "signature_algorithm": {"algorithm": "ed25519"},
            "signature": signature,
        }
    )
    return bytes(request.dump())


def renew(hub: str, tls: Tls) -> bool:
    """Ask for a new certificate for our key, over the old one's signature; whether the answer brought another one.

    Raises EnrolmentRefused, HubOutOfReach.
    """
    certificate = Path(tls.certificate)
    old = certificate.read_bytes()
    key = _key_of(Path(tls.key))
    signature = key.sign(RENEWAL + hashlib.sha256(_der(old)).digest()).signature
    asked = {"certificate": old.decode(), "signature": base64.b64encode(signature).decode()}
    context = _believing(Path(tls.ca).read_text(), is_time_known=tls.is_time_known())
    new = str(_ask(hub, "POST", "/api/renew", asked, context).get("certificate", ""))
    if not _is_for(new, key):
        raise EnrolmentRefused("the hub answered with a certificate that is not for this machine's key")
    if new.encode() == old:
        return False
    write_whole(certificate, new.encode(), 0o644)
    return True


def life_of(certificate: bytes) -> tuple[float, float]:
    """When a certificate (PEM) begins and ends, in seconds since 1970. Raises EnrolmentRefused when it is none."""
    validity = _read(certificate)["tbs_certificate"]["validity"]
    begins, ends = (validity[name].native.timestamp() for name in ("not_before", "not_after"))
    return float(begins), float(ends)


class Renewal:
    """Looks after the certificate of a running agent, in a thread of its own."""

    def __init__(
        self,
        hub: str,
        tls: Tls,
        renewed: Callable[[], None],
        now_s: Callable[[], float | None] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`renewed` is called when a new certificate lies in its place; `now_s` is None while nobody knows the time."""
        self._hub = hub
        self._tls = tls
        self._renewed = renewed
        self._now_s = now_s
        self._draw = draw
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever, name="renewal", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; a request under way is not waited for."""
        self._stop.set()

    def is_due(self) -> bool:
        """Whether a third of the certificate's life or less is left. Never on a clock that is not known."""
        now_s = self._now_s()
        if now_s is None:
            return False
        begins_s, ends_s = life_of(Path(self._tls.certificate).read_bytes())
        return now_s > ends_s - (ends_s - begins_s) / 3

    def look(self) -> float:
        """Renew when it is due; in how many seconds to look again."""
        try:
            if not self.is_due():
                return LOOK_S * (0.5 + self._draw())
            if renew(self._hub, self._tls):
                log("certificate_renewed", ends_s=round(life_of(Path(self._tls.certificate).read_bytes())[1]))
                self._renewed()
                return LOOK_S
        except (EnrolmentRefused, OSError) as wrong:
            log("certificate_not_renewed", because=str(wrong)[:200], then="tried again")
        return TRY_AGAIN_S * (0.5 + self._draw())

    def _look_for_ever(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            pause_s = self.look()


def _authority(hub: str, known_by: bytes) -> str:
    """The authority's certificate, believed for its fingerprint alone."""
    unproven = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproven.check_hostname = False
    unproven.verify_mode = ssl.CERT_NONE
    ca = str(_ask(hub, "GET", "/api/authority", None, unproven).get("ca", ""))
    if hashlib.sha256(_der(ca.encode())).digest() != known_by:
        raise EnrolmentRefused(
            f"{hub} shows another authority than the token was made by: somebody may stand in between, or the token is "
            "of another hub. Nothing was told to it"
        )
    return ca


def _believing(ca: str, is_time_known: bool = True) -> ssl.SSLContext:
    """For a server this authority vouches for, or one the system believes; dates only on a known clock."""
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=ca)
    context.hostname_checks_common_name = False
    if not is_time_known:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | 0x200000)  # X509_V_FLAG_NO_CHECK_TIME
    return context


def _ask(hub: str, method: str, path: str, body: Any, context: ssl.SSLContext) -> dict[str, Any]:
    parts = urlsplit(hub)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EnrolmentRefused(f"hub is '{hub}', expected https://HOST or https://HOST:PORT")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise EnrolmentRefused(f"hub is '{hub}': only this machine is spoken to without TLS, expected https://")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=PATIENCE_S, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", "Accept": "application/json"})
        answer = connection.getresponse()
        read = answer.read(MOST_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as wrong:
        raise EnrolmentRefused(f"{hub} proves itself by nobody we believe: {wrong.verify_message}") from None
    except (OSError, http.client.HTTPException) as away:
        raise HubOutOfReach(f"{hub} does not answer: {away or type(away).__name__}") from None
    finally:
        connection.close()
    try:
        said = json.loads(read)
    except ValueError:
        said = None
    if answer.status >= 500 or answer.status == 429:
        raise HubOutOfReach(f"{hub} answered {answer.status}: {_detail(said)}")
    if answer.status >= 300:
        raise EnrolmentRefused(f"{hub} refuses ({answer.status}): {_detail(said)}")
    if not isinstance(said, dict):
        raise EnrolmentRefused(f"{hub} answered with something else than JSON; is it a Waywarden hub?")
    return said


def _detail(said: Any) -> str:
    return str(said.get("detail", "no reason given"))[:300] if isinstance(said, dict) else "no reason given"


def _answered(said: dict[str, Any]) -> Answered:
    found = Answered(*(str(said.get(name, "")) for name in Answered._fields))
    missing = [name for name, text in zip(Answered._fields, found, strict=True) if not text]
    if missing:
        raise EnrolmentRefused(f"the hub's answer lacks {', '.join(missing)}; is it of the same release?")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _new_key(path: Path) -> SigningKey:
    key = SigningKey.generate()
    text = pem.armor("PRIVATE KEY", PKCS8_ED25519 + key.encode())
    write_whole(path, text, 0o600)
    return key


def _key_of(path: Path) -> SigningKey:
    try:
        name, _, der = pem.unarmor(path.read_bytes())
    except ValueError:
        name, der = "", b""
    if name != "PRIVATE KEY" or not der.startswith(PKCS8_ED25519) or len(der) != len(PKCS8_ED25519) + 32:
        raise EnrolmentRefused(f"{path} holds no Ed25519 key in PEM form; remove it and enrol anew")
    return SigningKey(der[-32:])


def _is_for(certificate: str, key: SigningKey) -> bool:
    public = _read(certificate.encode()).public_key["public_key"].native
    return bytes(public) == bytes(key.verify_key)


def _read(certificate: bytes) -> Any:
    try:
        read = x509.Certificate.load(_der(certificate))
        read.native  # noqa: B018 - asn1crypto reads what it is asked for; all of it is to be readable.
    except (ValueError, TypeError, KeyError) as wrong:
        raise EnrolmentRefused(f"what should be a certificate cannot be read: {str(wrong)[:100]}") from None
    return read


def _der(text: bytes) -> bytes:
    try:
        name, _, der = pem.unarmor(text)
    except ValueError:
        name, der = "", b""
    if name != "CERTIFICATE":
        raise EnrolmentRefused("what should be a certificate is none in PEM form; is this a Waywarden hub?")
    return bytes(der)


def _named_agent(settings: Path) -> str:
    """The agent a settings file names already; "" when it names none or is not there."""
    if not settings.exists():
        return ""
    found = re.search(r'^agent\s*=\s*"([^"]*)"', settings.read_text(), re.MULTILINE)
    return found[1] if found else ""


def _complete(settings: Path, hub: str, answered: Answered, files: Files) -> None:
    """Set what the hub said in the settings file; every other line stays as it is."""
    text = settings.read_text() if settings.exists() else ""
    told = {
        "agent": answered.agent,
        "region": answered.region,
        "broker": answered.broker,
        "hub": hub,
        "hub_public_key": answered.hub_public_key,
        "tls_ca": str(files.ca),
        "tls_certificate": str(files.certificate),
        "tls_key": str(files.key),
    }
    if not re.search(r"^store\s*=", text, re.MULTILINE):
        told["store"] = str(settings.resolve().with_suffix(".db"))
    added = []
    for name, value in told.items():
        line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
        text, count = re.subn(rf"^{name}\s*=.*$", lambda _, line=line: line, text, count=1, flags=re.MULTILINE)  # type: ignore[misc]
        if not count:
            added.append(line)
    table = re.search(r"^\[", text, re.MULTILINE)
    at = table.start() if table else len(text)
    before = text[:at] if not text[:at] or text[:at].endswith("\n") else f"{text[:at]}\n"
    new = before + "".join(f"{line}\n" for line in added) + text[at:]
    write_whole(settings.resolve(), new.encode(), 0o640)
