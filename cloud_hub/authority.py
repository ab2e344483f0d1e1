"""Vouch for who is who: one-time tokens, certificates, renewals and revocations, kept in one folder.

Two authorities live in it, so that nothing an agent holds opens the listener of the hub's own processes: `ca` signs for
agents and servers, `hub-ca` for the hub's processes. A register (SQLite) remembers every token, by its hash, and every
certificate. The hub and the command line work on the same folder at once. All times are the machine's, not the day's
that may be driven at 60 times its speed: certificates are judged by brokers, which know no other.
"""

import base64
import fcntl
import hashlib
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cloud_hub import certificates
from cloud_hub.certificates import CertificateWrong, Issuer, RequestWrong
from shared.topics import HUB

__all__ = [
    "AgentUnknown", "Authority", "AuthorityUnusable", "Certified", "Invitation", "NameWrong", "RenewalRefused",
    "RequestWrong", "Standing", "TokenRefused",
]  # fmt: skip

AGENT_DAYS = 90
TOKEN_S = 24 * 3600
GRACE_S = 30 * 24 * 3600
"""So long after its end a certificate may still ask to be renewed: a van may stand in a yard for weeks."""

RENEWALS_APART_S = 600
"""A renewal asked for again within this time gets the same certificate: the first answer was lost on the way."""

TOKEN_BEGINS = "ww1"
"""So that it is known for what it is, and is never taken for an option."""

RENEWAL = b"waywarden renewal\0"
DAY_S = 86_400
AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

REGISTER = """
CREATE TABLE IF NOT EXISTS tokens (
    hash BLOB PRIMARY KEY, agent TEXT NOT NULL, made_s REAL NOT NULL, ends_s REAL NOT NULL,
    used_s REAL, public_key BLOB, serial TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY, agent TEXT NOT NULL, kind TEXT NOT NULL, issued_s REAL NOT NULL, ends_s REAL NOT NULL,
    public_key BLOB NOT NULL, pem BLOB NOT NULL, how TEXT NOT NULL, revoked_s REAL, why TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS certificates_of ON certificates (agent, issued_s);
CREATE TABLE IF NOT EXISTS brokers (folder TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class AuthorityUnusable(ValueError):
    """The authority's folder cannot be read or written, or holds something else."""


class NameWrong(ValueError):
    """Not a name an agent can have."""


class TokenRefused(ValueError):
    """The token is unknown, over, used, or taken back."""


class RenewalRefused(ValueError):
    """The certificate may not be renewed."""


class AgentUnknown(ValueError):
    """No certificate was ever made out to this agent."""


class Invitation(NamedTuple):
    """A token, shown once, and when it ends (seconds since 1970)."""

    agent: str
    token: str
    ends_s: float


class Certified(NamedTuple):
    """A certificate in PEM and whose it is."""

    agent: str
    certificate: str


class Standing(NamedTuple):
    """A certificate on record. `how` says how it came about; `revoked_s` and `why` are None while it holds."""

    serial: str
    agent: str
    kind: str
    issued_s: float
    ends_s: float
    how: str
    revoked_s: float | None
    why: str | None


class Authority:
    """The authority of one folder. Safe to use from several threads and processes at once."""

    def __init__(self, folder: Path, now_s: Callable[[], float] = time.time) -> None:
        """Opens the folder; made, with both authorities, when there is none. Raises AuthorityUnusable."""
        self.folder = folder
        self._now_s = now_s
        if not folder.is_absolute() and not (folder / "ca.key").exists():
            raise AuthorityUnusable(
                f"the authority would be founded in {folder.absolute()}, wherever this is run: give key_file, "
                "or folder in [authority], as a full path"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            certificates.give_to_owner(folder)
            with _alone(folder):
                self._agents = self._founded("ca", "Waywarden")
                self._hubs = self._founded("hub-ca", "Waywarden hub")
                with self._register() as register:
                    register.executescript(REGISTER)
                (folder / "register.sqlite").chmod(0o600)
                for made in (folder / "register.sqlite", folder / ".lock"):
                    certificates.give_to_owner(made)
            if not (folder / "ca.crl").exists() or not (folder / "hub-ca.crl").exists():
                self.write_revocations()
        except (OSError, sqlite3.Error, CertificateWrong) as wrong:
            raise AuthorityUnusable(f"the authority in {folder} cannot be used: {wrong}") from None

    @property
    def ca_pem(self) -> str:
        """The certificate of the authority for agents and servers."""
        return certificates.pem(self._agents.certificate).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of that certificate, in hexadecimal."""
        return certificates.fingerprint(self._agents.certificate).hex()

    def invite(self, agent: str, life_s: float = TOKEN_S) -> Invitation:
        """A token by which one machine may become this agent, once. Earlier unused ones of this agent end.

        It carries the fingerprint of our certificate, so that the machine knows us before it tells us anything.
        Raises NameWrong.
        """
        if not AGENT_NAME.fullmatch(agent) or agent == HUB:
            raise NameWrong(f"'{agent[:80]}' is no agent's name, expected 1 to 64 letters, digits, . _ -, not '{HUB}'")
        secret = secrets.token_bytes(20)
        now_s = self._now_s()
        with self._register() as register:
            register.execute("DELETE FROM tokens WHERE used_s IS NULL AND (agent = ? OR ends_s < ?)", (agent, now_s))
            register.execute(
                "INSERT INTO tokens (hash, agent, made_s, ends_s) VALUES (?, ?, ?, ?)",
                (_hash(secret), agent, now_s, now_s + life_s),
            )
        known_by = certificates.fingerprint(self._agents.certificate)
        text = base64.urlsafe_b64encode(secret + known_by).decode().rstrip("=")
        return Invitation(agent, f"{TOKEN_BEGINS}{text}", now_s + life_s)

    def enrol(self, secret: bytes, request: bytes, expected: str = "") -> Certified:
        """The certificate for who holds a token's secret and sends a request (DER) signed by its own key.

        The agent's name is the token's, whatever the request says; a token of another agent than `expected` is not used
        up. All earlier certificates of the agent are revoked: the name has moved to this machine. Asked again with the
        same key within the token's life, the answer is the same: the first one may have been lost.
        Raises TokenRefused, RequestWrong.
        """
        key = certificates.key_of_request(request)
        public = key.public_bytes_raw()
        now_s = self._now_s()
        with self._register() as register:
            row = register.execute(
                "SELECT agent, ends_s, used_s, public_key, serial FROM tokens WHERE hash = ?", (_hash(secret),)
            ).fetchone()
            if row is None or row[1] < now_s:
                raise TokenRefused("the token is unknown or over; `waywarden enrol AGENT` at the hub makes another one")
            agent, _, used_s, used_by, serial = row
            if expected not in ("", agent):
                raise TokenRefused(f"the token is for '{agent}', the machine is to be '{expected}': take its own token")
            if used_s is not None:
                again = register.execute(
                    "SELECT pem FROM certificates WHERE serial = ? AND revoked_s IS NULL", (serial,)
                ).fetchone()
                if used_by != public or again is None:
                    raise TokenRefused("the token was used; `waywarden enrol AGENT` at the hub makes another one")
                return Certified(agent, again[0].decode())
            replaced = register.execute(
                "UPDATE certificates SET revoked_s = ?, why = ? WHERE agent = ? AND kind = 'agent'"
                " AND revoked_s IS NULL",
                (now_s, "enrolled anew", agent),
            ).rowcount
            certificate = self._make_out(register, agent, key, "by token")
            register.execute(
                "UPDATE tokens SET used_s = ?, public_key = ?, serial = ? WHERE hash = ?",
                (now_s, public, _serial(certificate), _hash(secret)),
            )
        if replaced:
            self.write_revocations()
        return Certified(agent, certificates.pem(certificate).decode())

    def renew(self, certificate: bytes, signature: bytes) -> Certified:
        """A new certificate for the key of an old one (PEM), which signed `renewal_bytes` of it.

        An old one that has ended may still be renewed for a while; the record says so. Raises RenewalRefused.
        """
        try:
            old = certificates.read_certificate(certificate)
        except CertificateWrong as wrong:
            raise RenewalRefused(str(wrong)) from None
        key = old.public_key()
        if not certificates.is_by(old, self._agents) or not isinstance(key, ed25519.Ed25519PublicKey):
            raise RenewalRefused("the certificate is no agent's of this authority; enrol the machine")
        try:
            key.verify(signature, renewal_bytes(old.public_bytes(serialization.Encoding.DER)))
        except InvalidSignature:
            raise RenewalRefused("the request is not signed by the certificate's own key") from None
        now_s = self._now_s()
        late_s = now_s - old.not_valid_after_utc.timestamp()
        if late_s > GRACE_S:
            days = f"{late_s / DAY_S:.0f} days ago, more than {GRACE_S // DAY_S}"
            raise RenewalRefused(f"the certificate ended {days}; enrol the machine with a new token")
        agent = certificates.common_name(old)
        with self._register() as register:
            row = register.execute("SELECT revoked_s FROM certificates WHERE serial = ?", (_serial(old),)).fetchone()
            if row is None or row[0] is not None:
                raise RenewalRefused("the certificate is revoked or not on record; enrol the machine with a new token")
            fresh = register.execute(
                "SELECT pem FROM certificates WHERE agent = ? AND public_key = ? AND issued_s > ?"
                " AND serial != ? AND revoked_s IS NULL ORDER BY issued_s DESC LIMIT 1",
                (agent, key.public_bytes_raw(), now_s - RENEWALS_APART_S, _serial(old)),
            ).fetchone()
            if fresh is not None:
                return Certified(agent, fresh[0].decode())
            how = "renewed" if late_s <= 0 else f"renewed {late_s / DAY_S:.1f} days after its end"
            new = self._make_out(register, agent, key, how)
        return Certified(agent, certificates.pem(new).decode())

    def revoke(self, agent: str, why: str) -> int:
        """Believe no certificate and no token of this agent any more; how many certificates held until now. The lists
        are written; brokers must read them again. Raises AgentUnknown.
        """
        now_s = self._now_s()
        with self._register() as register:
            known = register.execute(
                "SELECT COUNT(*) FROM certificates WHERE agent = ? AND kind = 'agent'", (agent,)
            ).fetchone()[0]
            tokens = register.execute("DELETE FROM tokens WHERE agent = ? AND used_s IS NULL", (agent,)).rowcount
            if not known and not tokens:
                raise AgentUnknown(f"no agent '{agent[:80]}' was ever enrolled; `waywarden agents` lists them")
            revoked = register.execute(
                "UPDATE certificates SET revoked_s = ?, why = ? WHERE agent = ? AND kind = 'agent'"
                " AND revoked_s IS NULL",
                (now_s, why, agent),
            ).rowcount
        self.write_revocations()
        return revoked

    def revoked_agents(self) -> frozenset[str]:
        """The agents that were enrolled once and of whom no certificate is believed any more."""
        with self._register() as register:
            rows = register.execute(
                "SELECT agent FROM certificates WHERE kind = 'agent' GROUP BY agent HAVING SUM(revoked_s IS NULL) = 0"
            ).fetchall()
        return frozenset(agent for (agent,) in rows)

    def standings(self) -> list[Standing]:
        """Every certificate made out, by agent and age."""
        with self._register() as register:
            rows = register.execute(
                "SELECT serial, agent, kind, issued_s, ends_s, how, revoked_s, why FROM certificates"
                " ORDER BY kind, agent, issued_s"
            ).fetchall()
        return [Standing(*row) for row in rows]

    def invitations(self) -> list[tuple[str, float]]:
        """Who was invited and has not come yet, and until when."""
        with self._register() as register:
            rows = register.execute(
                "SELECT agent, ends_s FROM tokens WHERE used_s IS NULL AND ends_s >= ? ORDER BY agent", (self._now_s(),)
            ).fetchall()
        return [(agent, ends_s) for agent, ends_s in rows]

    def server(self, file: str, names: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key of a server, in `file`.crt and `file`.key; made anew when a third of its life or less is
        left, or its names are others.
        """
        return self._kept(file, "server", names, lambda: certificates.server(self._agents, names, self._now()))

    def process(self, name: str = HUB) -> tuple[Path, Path]:
        """Certificate and key by which the hub's processes sign in; made anew when a third of its life is left."""
        return self._kept(name, "hub", [name], lambda: certificates.process(self._hubs, name, self._now()))

    def renew_own(self) -> list[Path]:
        """Make anew every certificate of a server and of the hub in this folder that is near its end; which were."""
        renewed = []
        for path in sorted(self.folder.glob("*.crt")):
            if path.stem in ("ca", "hub-ca"):
                continue
            before = path.read_bytes()
            try:
                read = certificates.read_certificate(before)
            except CertificateWrong as wrong:
                raise AuthorityUnusable(f"{path}: {wrong}; remove it") from None
            names = certificates.alternative_names(read)
            if names:
                self.server(path.stem, names)
            else:
                self.process(path.stem)
            if path.read_bytes() != before:
                renewed.append(path)
        return renewed

    def write_revocations(self) -> None:
        """Write both lists of revoked certificates."""
        with _alone(self.folder):
            with self._register() as register:
                rows = register.execute(
                    "SELECT serial, revoked_s FROM certificates WHERE revoked_s IS NOT NULL ORDER BY revoked_s"
                ).fetchall()
            revoked = [(int(serial, 16), datetime.fromtimestamp(at_s, UTC)) for serial, at_s in rows]
            for name, issuer in (("ca.crl", self._agents), ("hub-ca.crl", self._hubs)):
                mine = revoked if issuer is self._agents else []
                certificates.write_file(self.folder / name, certificates.revocations(issuer, mine, self._now()))

    def remember_broker(self, folder: Path) -> None:
        """A broker's folder, whose lists are to be renewed with ours."""
        with self._register() as register:
            register.execute("INSERT OR IGNORE INTO brokers VALUES (?)", (str(folder.resolve()),))

    def brokers(self) -> list[Path]:
        """The broker folders on this machine."""
        with self._register() as register:
            return [Path(folder) for (folder,) in register.execute("SELECT folder FROM brokers ORDER BY folder")]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    def _founded(self, file: str, name: str) -> Issuer:
        certificate, key = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        if not certificate.exists() and not key.exists():
            # The number keeps two authorities' subjects apart: OpenSSL looks an issuer up by its subject first.
            made = certificates.found_authority(f"{name} authority {secrets.token_hex(4)}", self._now())
            certificates.write_private(key, made.key)
            certificates.write_file(certificate, made.certificate)
        return certificates.issuer_of(certificate.read_bytes(), key.read_bytes())

    def _make_out(
        self, register: sqlite3.Connection, agent: str, key: ed25519.Ed25519PublicKey, how: str
    ) -> x509.Certificate:
        made = certificates.agent(self._agents, agent, key, self._now(), AGENT_DAYS)
        self._record(register, agent, "agent", made, key.public_bytes_raw(), how)
        return made

    def _kept(
        self, file: str, kind: str, names: Sequence[str], make: Callable[[], certificates.Kept]
    ) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        with _alone(self.folder):
            if not (key.exists() and self._is_good(certificate, kind, names)):
                made = make()
                certificates.write_private(key, made.key)
                certificates.write_file(certificate, made.certificate)
                read = certificates.read_certificate(made.certificate)
                with self._register() as register:
                    self._record(register, names[0], kind, read, b"", "made here")
        return certificate, key

    def _is_good(self, path: Path, kind: str, names: Sequence[str]) -> bool:
        if not path.exists():
            return False
        try:
            certificate = certificates.read_certificate(path.read_bytes())
        except CertificateWrong:
            return False
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        is_ours = certificates.is_by(certificate, self._agents if kind == "server" else self._hubs)
        same = kind != "server" or certificates.alternative_names(certificate) == list(names)
        return is_ours and same and ends - self._now() > (ends - begins) / 3

    def _record(
        self,
        register: sqlite3.Connection,
        name: str,
        kind: str,
        certificate: x509.Certificate,
        public: bytes,
        how: str,
    ) -> None:
        register.execute(
            "INSERT INTO certificates (serial, agent, kind, issued_s, ends_s, public_key, pem, how)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                _serial(certificate), name, kind, self._now_s(), certificate.not_valid_after_utc.timestamp(), public,
                certificates.pem(certificate), how,
            ),
        )  # fmt: skip

    @contextmanager
    def _register(self) -> Iterator[sqlite3.Connection]:
        """One transaction on the register, alone among writers."""
        with closing(sqlite3.connect(self.folder / "register.sqlite", timeout=10, isolation_level=None)) as register:
            register.execute("PRAGMA synchronous = FULL")
            register.execute("BEGIN IMMEDIATE")
            try:
                yield register
            except BaseException:
                if register.in_transaction:
                    register.execute("ROLLBACK")
                raise
            if register.in_transaction:
                register.execute("COMMIT")


def renewal_bytes(certificate_der: bytes) -> bytes:
    """What an agent signs to have its certificate renewed. Repeated by somebody else it brings him nothing: the new
    certificate is of use only to who has the key.
    """
    return RENEWAL + hashlib.sha256(certificate_der).digest()


def secret_of(token: str) -> bytes:
    """The secret part of a token. Raises TokenRefused."""
    try:
        text = token.removeprefix(TOKEN_BEGINS)
        read = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        read = b""
    if len(read) != 52 or not token.startswith(TOKEN_BEGINS):
        raise TokenRefused(f"the token is not whole, expected {TOKEN_BEGINS}… as `waywarden enrol` printed it")
    return read[:20]


def _hash(secret: bytes) -> bytes:
    # 160 random bits need no salt and no slow hash.
    return hashlib.sha256(b"waywarden token\0" + secret).digest()


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Among all processes that write files into this folder."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
