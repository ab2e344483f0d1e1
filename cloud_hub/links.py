"""Links that open one order's page to whoever holds them, until they expire: signed, unguessable and no other's.

A token is `payload.signature`: five bytes of expiry (seconds, big-endian) and the order's number in UTF-8, base64url,
signed with itsdangerous. The signature is HMAC-SHA256 cut to 128 bits (RFC 2104 section 5 allows a half), because the
link must leave room for words in an SMS of 160 characters. The key comes from the hub's own by
`shared.signing.Signer.secret_for(PURPOSE)`: a new hub key ends every link at once.
"""

import hashlib
import hmac

from itsdangerous import BadSignature
from itsdangerous import Signer as _Signer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.exc import BadData
from itsdangerous.signer import SigningAlgorithm

from shared.work import OrderId

PURPOSE = "tracking links"
"""What the links' key is derived for."""

PATH = "/t/"
"""Where the tracking page is; the token follows."""

LONGEST_TOKEN = 400
SIGNATURE_BYTES = 16
EXPIRY_BYTES = 5
LATEST_S = (1 << (8 * EXPIRY_BYTES)) - 1


class LinkWrong(ValueError):
    """The token is none of ours, or somebody has changed it."""


class LinkExpired(ValueError):
    """The token was ours, and its time is over."""


class _HalfOfSha256(SigningAlgorithm):
    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.new(key, value, hashlib.sha256).digest()[:SIGNATURE_BYTES]


class Links:
    """Makes and reads the links of one hub. Safe from any thread."""

    def __init__(self, key: bytes, base_url: str) -> None:
        """`key` is a secret of at least 16 bytes, `base_url` what customers' phones reach: https://HOST[/PATH].

        Raises ValueError when the key is shorter.
        """
        if len(key) < SIGNATURE_BYTES:
            raise ValueError(f"the key of links has {len(key)} bytes, expected at least {SIGNATURE_BYTES}")
        self._base = base_url.rstrip("/")
        self._signer = _Signer(key, key_derivation="none", algorithm=_HalfOfSha256())

    def link(self, order_id: OrderId, expires_ms: int) -> str:
        """The address of an order's tracking page, good until `expires_ms` (domain time, rounded up to a second)."""
        return f"{self._base}{PATH}{self.token(order_id, expires_ms)}"

    def token(self, order_id: OrderId, expires_ms: int) -> str:
        """The last part of the link."""
        expires_s = min(max(0, -(-expires_ms // 1000)), LATEST_S)
        payload = base64_encode(expires_s.to_bytes(EXPIRY_BYTES, "big") + order_id.encode())
        return self._signer.sign(payload).decode()

    def read(self, token: str, now_ms: int) -> OrderId:
        """The order a token opens. Raises LinkWrong unless we signed it, LinkExpired after its time."""
        try:
            if len(token) > LONGEST_TOKEN:
                raise BadSignature("too long")
            encoded = self._signer.unsign(token.encode())
            payload = base64_decode(encoded)
            # One order has one token: base64 that was only respelled, here or in the signature, is refused as well.
            is_respelled = base64_encode(payload) != encoded or self._signer.sign(encoded) != token.encode()
            if is_respelled or len(payload) <= EXPIRY_BYTES:
                raise BadSignature("another spelling")
            order_id = OrderId(payload[EXPIRY_BYTES:].decode())
        except (BadData, UnicodeError):
            raise LinkWrong("this link is not one of ours: open it as it came, in full") from None
        if now_ms > int.from_bytes(payload[:EXPIRY_BYTES], "big") * 1000:
            raise LinkExpired("this link has expired: the delivery is over")
        return order_id
