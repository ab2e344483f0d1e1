"""Give a phone the token of its shift, and find it again in what the phone sends."""

import hashlib
import hmac
import secrets
from http.cookies import CookieError, SimpleCookie

COOKIE = "shift"
LONGEST_TOKEN = 100
KEPT_S = 18 * 3600
"""A working day and the way home; the agent ends the session earlier by itself."""


class Sessions:
    """Tokens of one process. Only their hashes reach the core and the disk."""

    def __init__(self, is_secure: bool) -> None:
        """`is_secure` when the page is served over TLS: the cookie then never travels in clear."""
        self._secret = secrets.token_bytes(32)
        self._secure = "; Secure" if is_secure else ""

    def token_for(self, key: str) -> str:
        """The token for an idempotency key: a repeated request gets the same one, nobody else can tell it."""
        return hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()

    def cookie(self, token: str) -> str:
        """The Set-Cookie header that hands a phone its token."""
        return f"{COOKIE}={token}; Max-Age={KEPT_S}; HttpOnly; SameSite=Strict; Path=/{self._secure}"


def token_in(header: str | None) -> str:
    """The token of a Cookie header; "" when it holds none."""
    if not header or len(header) > 4096:
        return ""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None and len(found.value) <= LONGEST_TOKEN else ""


def digest_of(token: str) -> str:
    """What the core knows a token by."""
    return hashlib.sha256(token.encode()).hexdigest()
