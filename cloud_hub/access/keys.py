"""API keys and sessions: how one is written, what is kept of it, and whether it is still good.

A key is `ww_ID_SECRET`. The secret is 256 random bits, of which only the SHA-256 is kept: a slow hash (argon2, bcrypt)
buys time against guessing what people choose, and nobody guesses 256 random bits. A fast one lets every request be
checked against the store, so that a revoked key is dead with the commit that revokes it. A session is a key that lives
for hours and travels in a cookie.
"""

import hashlib
import hmac
import re
from typing import Literal

import msgspec

from cloud_hub.access.roles import Caller, Role

SECRET_BYTES = 32
ID_BYTES = 6
LONGEST_NAME = 80

_WRITTEN = re.compile(r"ww_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)


class KeyRecord(msgspec.Struct, frozen=True):
    """What the hub keeps of a key: nothing it could be made from again.

    Instants are of the wall clock (epoch ms): a key outlives no demo's fast day. `subject` and `parent` are a
    session's: who signed in, and with which key (then it ends with that). `used_ms` is coarse. `depots` None is for
    all.
    """

    key_id: str
    kind: Literal["key", "session"]
    name: str
    digest: str
    role: Role
    made_ms: int
    depots: tuple[str, ...] | None = None
    partner: str = ""
    expires_ms: int | None = None
    revoked_ms: int | None = None
    used_ms: int | None = None
    subject: str = ""
    parent: str = ""

    def why_dead(self, now_ms: int) -> str:
        """Why this key opens nothing any more, in words; "" while it does."""
        if self.revoked_ms is not None:
            return "was revoked"
        if self.expires_ms is not None and now_ms >= self.expires_ms:
            return "has expired"
        return ""

    def caller(self) -> Caller:
        """Who comes with this key."""
        subject = self.subject or f"key:{self.key_id}"
        expires_s = None if self.expires_ms is None else self.expires_ms // 1000
        return Caller(subject, self.name, self.kind, self.role, self.depots, self.partner, self.key_id, expires_s)


def written(key_id: str, secret: str) -> str:
    """The key as its holder keeps it."""
    return f"ww_{key_id}_{secret}"


def parsed(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key as written; None when it is none of ours."""
    found = _WRITTEN.fullmatch(text)
    return None if found is None else (found[1], found[2])


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def opens(record: KeyRecord, secret: str) -> bool:
    """Whether this is the record's secret, in a time that tells nothing of it."""
    return hmac.compare_digest(record.digest, digest_of(secret))
