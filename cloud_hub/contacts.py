"""Who the customers are, how they may be told something, and what they have asked for.

Everything here is personal. It stays in rooms of its own, is named elsewhere by `customer_ref` alone, and can be
forgotten without touching a single record of what was decided.
"""

from typing import Literal

import msgspec

Language = Literal["en", "fi", "sv"]
LANGUAGES: tuple[Language, ...] = ("en", "fi", "sv")

Channel = Literal["email", "sms", "webhook"]
CHANNELS: tuple[Channel, ...] = ("email", "sms", "webhook")

NoticeKind = Literal["day", "on_its_way", "changed", "missed"]
NOTICE_KINDS: tuple[NoticeKind, ...] = ("day", "on_its_way", "changed", "missed")
"""The first window, the van is near, another window than told, nobody was met and what comes next."""

Why = Literal[
    "",
    "traffic",
    "street_closed",
    "earlier_stop_took_longer",
    "customer_asked",
    "early",
    "route_changed",
    "shop_asked",
    "under_way_already",
    "not_reached",
    "not_on_board",
]
"""Why a window moved or nobody came, as a customer may know it: never another customer, a stop or a van; "" when nobody
can say. `under_way_already`: what the customer asked for came too late for the van.
"""

NextStep = Literal["", "today", "tomorrow", "locker", "locker_ready", "return"]
"""How it goes on after a failed attempt; "" when a person has to decide. `locker`: it will be taken there today;
`locker_ready`: it has been put there, and can be fetched.
"""


LONGEST_AT_THE_DOOR = {"door_code": 40, "safe_place": 200, "neighbour": 200, "note": 500}
"""Characters of what helps at the door, whoever says it, shop or customer; a driver reads it at arm's length."""


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
    `opted_out` holds the kinds of notices no longer wanted, `opted_out_channels` the channels on which none is,
    whatever was agreed before or is said to be agreed later by anybody else.
    """

    customer_ref: str
    name: str = ""
    email: str = ""
    phone: str = ""
    language: Language = "en"
    consents: tuple[Channel, ...] = ()
    opted_out: tuple[NoticeKind, ...] = ()
    wishes: Wishes = Wishes()
    opted_out_channels: tuple[Channel, ...] = ()

    def may_be_told(self, channel: Channel) -> bool:
        """Whether this channel reaches the customer and may be used."""
        if channel in self.opted_out_channels:
            return False
        address = {"email": self.email, "sms": self.phone, "webhook": ""}[channel]
        return channel == "webhook" or (bool(address) and channel in self.consents)


def merged(known: Customer | None, said: Customer) -> Customer:
    """What is known of a customer after the shop has said this with an order.

    What it leaves out stays as it was; an opt-out is the customer's own and no order takes it back.
    """
    if known is None:
        return said
    return Customer(
        customer_ref=known.customer_ref,
        name=said.name or known.name,
        email=said.email or known.email,
        phone=said.phone or known.phone,
        language=said.language,
        consents=said.consents or known.consents,
        opted_out=known.opted_out,
        wishes=Wishes(
            door_code=said.wishes.door_code or known.wishes.door_code,
            safe_place=said.wishes.safe_place or known.wishes.safe_place,
            neighbour=said.wishes.neighbour or known.wishes.neighbour,
            note=said.wishes.note or known.wishes.note,
            on_its_way=said.wishes.on_its_way or known.wishes.on_its_way,
        ),
        opted_out_channels=tuple(
            channel for channel in CHANNELS if channel in known.opted_out_channels + said.opted_out_channels
        ),
    )
