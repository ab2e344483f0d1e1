"""The authority on disk: tokens are good once, keys stay where they are, renewals and revocations hold."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from cloud_hub import certificates
from cloud_hub.authority import (
    AGENT_DAYS,
    DAY_S,
    AgentUnknown,
    Authority,
    AuthorityUnusable,
    NameWrong,
    RenewalRefused,
    RequestWrong,
    TokenRefused,
    renewal_bytes,
    secret_of,
)
from edge_agent.enrolment import EnrolmentRefused, certificate_request, life_of, token_parts

BEGAN_S = 1_800_000_000.0


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def authority(tmp_path: Path, time: Time) -> Authority:
    return Authority(tmp_path / "authority", time)


def enrolled(authority: Authority, agent: str, key: SigningKey) -> bytes:
    made = authority.enrol(secret_of(authority.invite(agent).token), certificate_request(key))
    return made.certificate.encode()


def signed(certificate: bytes, key: SigningKey) -> bytes:
    der = certificates.read_certificate(certificate).public_bytes(serialization.Encoding.DER)
    return key.sign(renewal_bytes(der)).signature


def serials_revoked(authority: Authority) -> list[int]:
    listed = x509.load_pem_x509_crl((authority.folder / "ca.crl").read_bytes())
    return [entry.serial_number for entry in listed]


# Tokens.


def test_a_token_makes_one_machine_its_agent(authority: Authority) -> None:
    key = SigningKey.generate()
    certificate = certificates.read_certificate(enrolled(authority, "van-1", key))
    assert certificates.common_name(certificate) == "van-1"
    assert certificate.public_key().public_bytes_raw() == bytes(key.verify_key)  # type: ignore[union-attr]


def test_the_device_reads_the_token_the_hub_made(authority: Authority) -> None:
    token = authority.invite("van-1").token
    assert token_parts(token) == (secret_of(token), bytes.fromhex(authority.fingerprint))


def test_a_token_is_good_once(authority: Authority) -> None:
    secret = secret_of(authority.invite("van-1").token)
    authority.enrol(secret, certificate_request(SigningKey.generate()))
    with pytest.raises(TokenRefused, match="was used"):
        authority.enrol(secret, certificate_request(SigningKey.generate()))


def test_of_many_machines_at_once_one_gets_in(authority: Authority) -> None:
    secret = secret_of(authority.invite("van-1").token)
    begin = threading.Barrier(8)

    def rush(_: int) -> bool:
        request = certificate_request(SigningKey.generate())
        begin.wait()
        try:
            Authority(authority.folder, lambda: BEGAN_S).enrol(secret, request)
        except TokenRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(rush, range(8))) == 1


def test_a_lost_answer_is_given_again_to_the_same_key(authority: Authority) -> None:
    secret, request = secret_of(authority.invite("van-1").token), certificate_request(SigningKey.generate())
    assert authority.enrol(secret, request) == authority.enrol(secret, request)
    assert len([one for one in authority.standings() if one.kind == "agent"]) == 1


def test_a_token_ends(authority: Authority, time: Time) -> None:
    secret = secret_of(authority.invite("van-1", life_s=60).token)
    time.now_s += 61
    with pytest.raises(TokenRefused, match="unknown or over"):
        authority.enrol(secret, certificate_request(SigningKey.generate()))


def test_a_new_token_takes_the_place_of_the_old_one(authority: Authority) -> None:
    first = secret_of(authority.invite("van-1").token)
    authority.invite("van-1")
    with pytest.raises(TokenRefused):
        authority.enrol(first, certificate_request(SigningKey.generate()))


def test_a_token_of_another_agent_is_not_used_up(authority: Authority) -> None:
    secret, request = secret_of(authority.invite("van-1").token), certificate_request(SigningKey.generate())
    with pytest.raises(TokenRefused, match="'van-1'"):
        authority.enrol(secret, request, "van-2")
    assert authority.enrol(secret, request, "van-1").agent == "van-1"


@pytest.mark.parametrize("name", ["hub", "", "a/b", "#", "+", "van 1", "-van", "v" * 65, "van\n", "%u"])
def test_a_name_that_is_a_pattern_or_the_hubs_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(NameWrong):
        authority.invite(name)


@given(st.text(max_size=120))
def test_any_other_text_is_no_token_on_either_side(text: str) -> None:
    with pytest.raises(TokenRefused):
        secret_of(text)
    with pytest.raises(EnrolmentRefused):
        token_parts(text)


def test_nothing_in_the_register_opens_the_door(authority: Authority) -> None:
    invitation = authority.invite("van-1")
    kept = (authority.folder / "register.sqlite").read_bytes()
    assert secret_of(invitation.token) not in kept
    assert invitation.token.encode() not in kept


# Requests.


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_request_are_refused_by_name(request_bytes: bytes) -> None:
    with pytest.raises(RequestWrong):
        certificates.key_of_request(request_bytes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_request_with_one_byte_changed_is_refused(place: int, by: int) -> None:
    request = bytearray(certificate_request(SigningKey(b"k" * 32)))
    request[place % len(request)] ^= by
    with pytest.raises(RequestWrong):
        certificates.key_of_request(bytes(request))


def test_another_kind_of_key_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with pytest.raises(RequestWrong, match="expected Ed25519"):
        certificates.key_of_request(request.public_bytes(serialization.Encoding.DER))


# Renewal.


def test_a_certificate_is_renewed_by_its_own_keys_signature(authority: Authority, time: Time) -> None:
    key = SigningKey.generate()
    old = enrolled(authority, "van-1", key)
    time.now_s += 70 * DAY_S
    new = authority.renew(old, signed(old, key))
    assert new.agent == "van-1"
    assert life_of(new.certificate.encode())[1] == time.now_s + AGENT_DAYS * DAY_S


def test_nobody_renews_with_another_key(authority: Authority) -> None:
    old = enrolled(authority, "van-1", SigningKey.generate())
    with pytest.raises(RenewalRefused, match="own key"):
        authority.renew(old, signed(old, SigningKey.generate()))


def test_a_certificate_that_ended_lately_is_renewed_and_the_record_says_so(authority: Authority, time: Time) -> None:
    key = SigningKey.generate()
    old = enrolled(authority, "van-1", key)
    time.now_s += (AGENT_DAYS + 12) * DAY_S
    authority.renew(old, signed(old, key))
    assert authority.standings()[-1].how == "renewed 12.0 days after its end"


def test_a_certificate_that_ended_long_ago_is_not_renewed(authority: Authority, time: Time) -> None:
    key = SigningKey.generate()
    old = enrolled(authority, "van-1", key)
    time.now_s += (AGENT_DAYS + 31) * DAY_S
    with pytest.raises(RenewalRefused, match="31 days ago"):
        authority.renew(old, signed(old, key))


def test_a_renewal_asked_for_twice_makes_one_certificate(authority: Authority, time: Time) -> None:
    key = SigningKey.generate()
    old = enrolled(authority, "van-1", key)
    time.now_s += 70 * DAY_S
    assert authority.renew(old, signed(old, key)) == authority.renew(old, signed(old, key))


def test_a_revoked_certificate_is_not_renewed(authority: Authority) -> None:
    key = SigningKey.generate()
    old = enrolled(authority, "van-1", key)
    authority.revoke("van-1", "stolen")
    with pytest.raises(RenewalRefused, match="revoked"):
        authority.renew(old, signed(old, key))


def test_another_authoritys_certificate_is_not_renewed(authority: Authority, tmp_path: Path) -> None:
    key = SigningKey.generate()
    old = enrolled(Authority(tmp_path / "foreign"), "van-1", key)
    with pytest.raises(RenewalRefused, match="no agent's"):
        authority.renew(old, signed(old, key))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=80))
def test_garbage_is_not_renewed(certificate: bytes, signature: bytes) -> None:
    with pytest.raises(RenewalRefused):
        _AUTHORITY.renew(certificate, signature)


@pytest.fixture(scope="module", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> None:
    global _AUTHORITY  # noqa: PLW0603 - hypothesis and fixtures of a test's own do not mix.
    _AUTHORITY = Authority(tmp_path_factory.mktemp("authority"))


_AUTHORITY: Authority


# Revocation.


def test_revoking_an_agent_lists_all_its_certificates_and_ends_its_tokens(authority: Authority, time: Time) -> None:
    key = SigningKey.generate()
    old = enrolled(authority, "van-1", key)
    time.now_s += 70 * DAY_S
    new = authority.renew(old, signed(old, key)).certificate.encode()
    token = authority.invite("van-1").token
    assert authority.revoke("van-1", "stolen") == 2
    assert sorted(serials_revoked(authority)) == sorted(
        certificates.read_certificate(each).serial_number for each in (old, new)
    )
    with pytest.raises(TokenRefused):
        authority.enrol(secret_of(token), certificate_request(SigningKey.generate()))
    assert authority.revoked_agents() == {"van-1"}


def test_a_machine_enrolled_anew_is_believed_and_its_forerunner_is_not(authority: Authority) -> None:
    old = enrolled(authority, "van-1", SigningKey.generate())
    authority.revoke("van-1", "stolen")
    enrolled(authority, "van-1", SigningKey.generate())
    assert authority.revoked_agents() == frozenset()
    assert serials_revoked(authority) == [certificates.read_certificate(old).serial_number]


def test_nobody_unknown_is_revoked(authority: Authority) -> None:
    with pytest.raises(AgentUnknown):
        authority.revoke("van-9", "who")


def test_the_list_is_valid_as_long_as_its_authority(authority: Authority) -> None:
    listed = x509.load_pem_x509_crl((authority.folder / "ca.crl").read_bytes())
    ca = certificates.read_certificate((authority.folder / "ca.crt").read_bytes())
    assert listed.next_update_utc == ca.not_valid_after_utc
    assert listed.is_signature_valid(ca.public_key())  # type: ignore[arg-type]  # P-256, as made.


# The folder.


def test_an_authority_is_the_same_when_it_is_opened_again(authority: Authority) -> None:
    assert Authority(authority.folder).fingerprint == authority.fingerprint


def test_opened_by_many_at_once_one_authority_is_founded(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: Authority(tmp_path / "new").fingerprint, range(8)))
    assert len(found) == 1


def test_keys_and_register_are_for_their_owner_alone(authority: Authority) -> None:
    authority.server("broker", ["localhost"])
    authority.process()
    private = [*authority.folder.glob("*.key"), authority.folder / "register.sqlite"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700


def test_a_folder_that_holds_something_else_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "ca.key").write_text("not a key")
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises(AuthorityUnusable, match="cannot be read"):
        Authority(tmp_path)


def test_a_servers_certificate_is_kept_until_a_third_of_its_life_is_left(authority: Authority, time: Time) -> None:
    first = authority.server("broker", ["broker.example", "10.0.0.5"])[0].read_bytes()
    time.now_s += 200 * DAY_S
    assert authority.server("broker", ["broker.example", "10.0.0.5"])[0].read_bytes() == first
    time.now_s += 70 * DAY_S
    assert authority.renew_own() == [authority.folder / "broker.crt"]


def test_a_server_under_another_name_gets_another_certificate(authority: Authority) -> None:
    authority.server("broker", ["broker.example"])
    path, _ = authority.server("broker", ["mqtt.example", "::1"])
    assert certificates.alternative_names(certificates.read_certificate(path.read_bytes())) == ["mqtt.example", "::1"]


def test_what_an_agent_holds_can_sign_nobody(authority: Authority) -> None:
    certificate = certificates.read_certificate(enrolled(authority, "van-1", SigningKey.generate()))
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)


def test_no_authority_is_founded_wherever_somebody_happens_to_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AuthorityUnusable, match="give key_file, or folder in"):
        Authority(Path("authority"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_whom_the_folder_does(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    authority = Authority(tmp_path / "authority")
    authority.server("http", ["hub.example"])
    owners = {(one.stat().st_uid, one.stat().st_gid) for one in (authority.folder, *authority.folder.iterdir())}
    assert owners == {(4711, 4712)}
