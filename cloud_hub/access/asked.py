"""What the core is asked about keys, and told of who has read personal data."""

import msgspec

from cloud_hub.access.keys import KeyRecord


class KeyAsked(msgspec.Struct, frozen=True):
    """Keep this key. `is_first` makes it only when no key was ever made. `by` is who asks."""

    record: KeyRecord
    by: str
    is_first: bool = False


class KeyRevokeAsked(msgspec.Struct, frozen=True):
    """End this key or session from now on, and every session that was opened with it."""

    key_id: str
    by: str
    at_ms: int


class KeysUsed(msgspec.Struct, frozen=True):
    """When keys were last used (wall clock, epoch ms, coarse)."""

    used_ms: dict[str, int]


class Access(msgspec.Struct, frozen=True):
    """Somebody read or changed personal data: who, when (wall clock, epoch ms), by which route, about whom.

    `about` is an order, a customer, a van, a depot, or "*" for all that the caller may see. `times` counts the same
    within moments.
    """

    subject: str
    at_ms: int
    route: str
    about: str
    status: int
    times: int = 1


class AccessesSeen(msgspec.Struct, frozen=True):
    """Keep these accesses, each under its key `YYYY-MM-DD/...`."""

    kept: tuple[tuple[str, Access], ...]


class AccessesOld(msgspec.Struct, frozen=True):
    """Forget the accesses under these keys: they have been kept long enough."""

    keys: tuple[str, ...]
