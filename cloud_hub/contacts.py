"""Who the customers are, how they may be told something, and what they have asked for.

Everything here is personal. It stays in rooms of its own, is named elsewhere by `customer_ref` alone, and can be
forgotten without touching a single record of what was decided.
"""

from typing import Literal

import msgspec

Language = Literal["en", "fi", "sv"]
LANGUAGES: tuple[Language, ...] = ("en", "fi", "sv")

Channel = Literal["email", "sms", "webhook"]


class Wishes(msgspec.Struct, frozen=True):
    """What the customer said about the door, for this and every later order; "" and False for nothing said."""

    door_code: str = ""
    safe_place: str = ""
    neighbour: str = ""
    note: str = ""
    on_its_way: bool = False


class Customer(msgspec.Struct, frozen=True):
    """One person or firm that waits for parcels.

    `consents` are the channels the customer has agreed to; a webhook tells the shop, not the person, and needs none.
    `opted_out` holds kinds of notices no longer wanted (see `cloud_hub.mailbag`).
    """

    customer_ref: str
    name: str = ""
    email: str = ""
    phone: str = ""
    language: Language = "en"
    consents: tuple[Channel, ...] = ()
    opted_out: tuple[str, ...] = ()
    wishes: Wishes = Wishes()
