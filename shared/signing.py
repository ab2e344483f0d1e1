"""Signatures are checked before a core sees bytes.

Ed25519 over topic and payload together, so that a command signed for one
agent is worth nothing on another's topic.
"""

import hashlib
import hmac
import os
from pathlib import Path

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from shared.wire import Refused


class SignatureWrong(Refused):
    """The bytes are not signed, or not by whom they should be."""


class KeyUnreadable(ValueError):
    """The file does not hold an Ed25519 key in hexadecimal."""


class Signer:
    """Signs what the hub says."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> "Signer":
        """The key of a file; made, readable by its owner only, when there is none. Raises KeyUnreadable."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(SigningKey.generate().encode().hex())
        return cls(SigningKey(_key_bytes(path)))

    def public_hex(self) -> str:
        """The key that others verify with, in hexadecimal."""
        return bytes(self._key.verify_key).hex()

    def secret_for(self, purpose: str) -> bytes:
        """32 bytes only the holder of this key can know, others for each purpose.

        HMAC-SHA256 of the purpose under the key's seed, which is uniform: the expand step of RFC 5869.
        """
        return hmac.new(self._key.encode(), f"waywarden/{purpose}\1".encode(), hashlib.sha256).digest()

    def sign(self, topic: str, payload: bytes) -> str:
        """The signature in hexadecimal."""
        return self._key.sign(_signed_bytes(topic, payload)).signature.hex()


class Verifier:
    """Believes one key only."""

    def __init__(self, public_hex: str) -> None:
        """Raises KeyUnreadable when the text is not a public key."""
        try:
            self._key = VerifyKey(bytes.fromhex(public_hex))
        except ValueError as wrong:
            raise KeyUnreadable(f"'{public_hex[:16]}…' is not a public key of 64 hexadecimal digits: {wrong}") from None

    def check(self, topic: str, payload: bytes, signature: str | None) -> None:
        """Raises SignatureWrong unless the signature is our peer's for exactly this topic and payload."""
        if signature is None:
            raise SignatureWrong(f"{topic} came without a signature")
        try:
            self._key.verify(_signed_bytes(topic, payload), bytes.fromhex(signature))
        except (BadSignatureError, ValueError):
            raise SignatureWrong(f"{topic} came with a signature that is not the hub's") from None


def _signed_bytes(topic: str, payload: bytes) -> bytes:
    return topic.encode() + b"\0" + payload


def _key_bytes(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as wrong:
        raise KeyUnreadable(f"{path}: {wrong}") from None
    if len(key) != 32:
        raise KeyUnreadable(f"{path} holds {len(key)} bytes, expected 32")
    return key
