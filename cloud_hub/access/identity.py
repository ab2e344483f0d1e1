"""Find out who a request is from: a key, a session's cookie, a provider's token, or this machine itself."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from itsdangerous import BadSignature, Signer

from cloud_hub.access.keys import ID_BYTES, SECRET_BYTES, KeyRecord, digest_of, opens, parsed, written
from cloud_hub.access.oidc import NotBelieved, Provider
from cloud_hub.access.roles import Caller
from cloud_hub.access.setting import AccessSetting, is_loopback
from cloud_hub.storage import HubStore

COOKIE = "ww_session"
THIS_MACHINE = Caller("this machine", "this machine", "machine", "admin")

FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
"""Signs that a proxy brings the request of somebody else."""

_record = msgspec.json.Decoder(KeyRecord)


def now_ms() -> int:
    """The wall clock: keys and sessions live by it, whatever day the hub drives."""
    return time.time_ns() // 1_000_000


class Identity:
    """Knows whom to believe. Any thread asks; a key is read from the store each time, so a revoked one is dead."""

    def __init__(self, setting: AccessSetting, store: HubStore, secret: bytes, provider: Provider | None) -> None:
        self.setting = setting
        self.provider = provider
        self._store = store
        self._secret = secret
        self._signer = Signer(secret, salt="session cookie")

    def is_this_machine(self, headers: Mapping[str, str], address: str) -> bool:
        """Whether the request comes from the loopback by no proxy's hand, and that is enough here."""
        return (
            self.setting.open_on_loopback
            and is_loopback(address or "-")
            and not any(name in headers for name in FORWARDED)
        )

    def caller_of(self, headers: Mapping[str, str], cookies: Mapping[str, str], address: str) -> Caller | None:
        """Who asks; None when they do not say. Raises NotBelieved for what opens nothing, ProviderAway."""
        said = headers.get("authorization", "")
        if said:
            return self._of_header(said)
        cookie = cookies.get(COOKIE, "")
        if cookie:
            try:
                return self._of_cookie(cookie)
            except NotBelieved:
                if not self.is_this_machine(headers, address):
                    raise
        return THIS_MACHINE if self.is_this_machine(headers, address) else None

    def _of_header(self, said: str) -> Caller:
        scheme, _, token = said.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotBelieved("scheme", f"authorization is by '{scheme[:20]}', expected Bearer and a key (ww_...)")
        if token.startswith("ww_"):
            record = self.key(token)
            if record.kind == "session":
                raise NotBelieved("session_as_key", "that is a session, expected a key: sessions travel in cookies")
            return record.caller()
        if self.provider is None:
            raise NotBelieved("token", "that is no key, and no provider's tokens are taken here: expected ww_...")
        return self.provider.caller_of(token)

    def _of_cookie(self, cookie: str) -> Caller:
        try:
            text = self._signer.unsign(cookie.encode()).decode()
        except (BadSignature, UnicodeError):
            raise NotBelieved("cookie", "the sign-in is none of ours: sign in again") from None
        return self.key(text).caller()

    def key(self, text: str) -> KeyRecord:
        """The record of a key as its holder wrote it. Raises NotBelieved."""
        found = parsed(text)
        if found is None:
            raise NotBelieved("key_form", "the key is misspelt, expected ww_ID_SECRET as it was shown once: copy all")
        key_id, secret = found
        document = self._store.document("keys", key_id)
        record = None if document is None else _record.decode(document)
        if record is None or not opens(record, secret):
            raise NotBelieved("key_unknown", f"no key is {written(key_id, '...')}: ask an admin for a new one")
        why_dead = record.why_dead(now_ms())
        if why_dead:
            raise NotBelieved("key_dead", f"{written(key_id, '...')} {why_dead}: ask an admin for a new one")
        return record

    def named(self, what: str, name: str) -> str:
        """How the record of accesses names somebody or something: orders, vans and depots as they are. A customer and a
        picture's digest by an HMAC, as decisions name people: who is forgotten leaves no name behind, and who has the
        name can still ask who read it.
        """
        if what not in ("ref", "customer_ref", "digest"):
            return name
        digits = hmac.new(self._secret, f"about|{name}".encode(), hashlib.sha256).hexdigest()[:12]
        return f"{'object' if what == 'digest' else 'customer'}:{digits}"

    def cookie_of(self, key: str) -> str:
        """The cookie of a session."""
        return self._signer.sign(key.encode()).decode()

    def seal(self, words: str, what: str) -> str:
        """Words that travel in somebody's browser and must come back as they went."""
        return Signer(self._secret, salt=what).sign(words.encode()).decode()

    def unseal(self, sealed: str, what: str) -> str | None:
        """The words that were sealed; None when somebody has changed them."""
        try:
            return Signer(self._secret, salt=what).unsign(sealed.encode()).decode()
        except (BadSignature, UnicodeError):
            return None


def new_key(**fields: Any) -> tuple[str, KeyRecord]:
    """A fresh key as its holder keeps it, and the record of it with these fields."""
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    return written(key_id, secret), KeyRecord(key_id=key_id, digest=digest_of(secret), made_ms=now_ms(), **fields)
