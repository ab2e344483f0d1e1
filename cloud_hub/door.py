"""What agents say, checked at the door: topic, sender and form, before the core sees it.

Whatever is refused is counted under its own name. A message whose contents we cannot read but whose place in its
stream we can goes on as unreadable, so that it is kept, acknowledged, and does not hold up the ones behind it.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from cloud_hub.events import Acked, HubHeard, PresenceHeard, Spoke, Unreadable
from shared import topics, wire
from shared.messages import Ack
from shared.mqtt import Heard
from shared.wire import Refused
from shared.work import AgentId

LONGEST_NAME = 64
MOST_COUNTED = 1 << 53
"""JSON may hold any number; no sequence and no instant of ours needs more than a double keeps exactly."""


FARTHEST_MS = 1 << 45
"""The year 3084, and as far before 1970: beyond it calendars end, and with them whoever has to show an instant."""

LONGEST_WORDS = 8_192
MOST_THINGS = 2_000
"""Of what a message lists; a plan has 250 stops. What is longer would be written again with all that follows it."""

BURST = 4_000
PER_S = 1_000
PIECE_BYTES = 4_096
"""What one agent may say: so many messages of so many bytes at once, and so many each second from then on. A day's
backlog is said at the pace of its acknowledgements, 64 at a time; what is refused here is repeated.
"""
MOST_PARTIES = 10_000


class SenderWrong(Refused):
    """A message whose sender is not the party whose topic it came on."""


class Revoked(Refused):
    """A message of an agent that is not believed any more; the broker has not thrown it out yet."""


class RegionWrong(Refused):
    """A topic of another region."""


class TooFast(Refused):
    """More than one agent can have to say; it waits nowhere, and what is honest of it is said again."""


class Door:
    """Reads what comes from the broker. Called from the network's thread; raises nothing."""

    def __init__(
        self,
        region: str,
        is_revoked: Callable[[str], bool] = lambda _: False,
        monotonic_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`is_revoked` says whether an agent's certificates were taken back; `monotonic_s` is what paces are held to,
        none by a clock that stands still.
        """
        self._region = region
        self._is_revoked = is_revoked
        self._monotonic_s = monotonic_s
        self._paces: dict[str, tuple[float, float]] = {}
        self.refused: Counter[str] = Counter()

    def read(self, heard: Heard) -> Spoke | Unreadable | Acked | PresenceHeard | HubHeard | None:
        """The event for the core; None when it is not the core's business or was refused."""
        try:
            return self._read(heard)
        except (Refused, topics.TopicUnknown) as why:
            self.refused[type(why).__name__] += 1
            return None

    def _read(self, heard: Heard) -> Spoke | Unreadable | Acked | PresenceHeard | HubHeard | None:
        place = topics.read(heard.topic)
        if place.region != self._region:
            raise RegionWrong(f"topic '{heard.topic[:80]}', expected region '{self._region}'")
        if place.direction != "up" or not 0 < len(place.party) <= LONGEST_NAME:
            raise SenderWrong(f"topic '{heard.topic[:80]}', expected an agent's own")
        if place.party == topics.HUB:
            return HubHeard(wire.decode_presence(heard.payload)) if place.carries == "presence" else None
        self._hold_pace(place.party, len(heard.payload))
        is_revoked = self._is_revoked(place.party)
        if is_revoked and place.carries != "presence":
            raise Revoked(f"{place.party} was revoked")
        if place.carries in ("events", "objects"):
            return _event(place.party, heard.payload)
        if place.carries == "acks":
            return Acked(place.party, _ack(place.party, heard.payload))
        if place.carries == "presence":
            presence = wire.decode_presence(heard.payload)
            if presence.party != place.party:
                raise SenderWrong(f"{place.party} speaks as {presence.party}")
            if is_revoked and presence.is_there:
                raise Revoked(f"{place.party} was revoked")  # That it is gone, the broker says, by its will.
            if not all(0 < seq < MOST_COUNTED for seq in presence.unacked.values()):
                raise wire.UnknownMessage(f"{place.party} keeps numbers no row can hold, expected 1 to 2**53")
            if not all(_is_name(word) for word in (presence.life, presence.boot, presence.asks_time) if word):
                raise wire.UnknownMessage(f"{place.party} is there in words of more than {LONGEST_NAME} printed signs")
            return PresenceHeard(place.party, presence)
        return None

    def _hold_pace(self, party: str, size: int) -> None:
        """Raises TooFast. A bucket for each agent, filled with time and emptied by what it says."""
        now_s = self._monotonic_s()
        if party not in self._paces and len(self._paces) >= MOST_PARTIES:
            self._paces.clear()
        left, since_s = self._paces.get(party, (float(BURST), now_s))
        left = min(float(BURST), left + (now_s - since_s) * PER_S)
        cost = 1 + size // PIECE_BYTES
        self._paces[party] = (left - cost if left >= cost else left, now_s)
        if left < cost and now_s:
            raise TooFast(f"{party} says more than {PER_S} messages a second")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def _ack(party: AgentId, payload: bytes) -> Ack:
    ack = wire.decode_ack(payload)
    if not 0 <= ack.upto < MOST_COUNTED:
        raise wire.UnknownMessage(f"{party} acknowledges up to a number no row can hold, expected 0 to 2**53")
    return ack


class _Placed(msgspec.Struct, frozen=True):
    sender: AgentId
    boot: str
    stream: str
    seq: int


_placed = msgspec.json.Decoder(_Placed)


def _event(party: AgentId, payload: bytes) -> Spoke | Unreadable:
    try:
        numbered = wire.decode_numbered(payload)
    except wire.UnknownMessage as why:
        return _unreadable(party, payload, why)
    if numbered.sender != party:
        raise SenderWrong(f"{party} speaks as {numbered.sender}")
    if numbered.said_ms < 0:
        return _unreadable(party, payload, wire.UnknownMessage(f"{party} says it at {numbered.said_ms}, before 1970"))
    absurd = _absurd(numbered)
    if absurd:
        return _unreadable(party, payload, wire.UnknownMessage(f"{party} says {absurd}"))
    if not (numbered.seq >= 0 and _is_name(numbered.boot) and _is_name(numbered.stream)):
        raise wire.UnknownMessage(f"{party} has no place: expected a number and short names of boot and stream")
    return Spoke(numbered)


def _absurd(said: Any, name: str = "") -> str:
    """What in this message, however deep, nobody could mean and nobody should have to reckon with, in words: a number,
    a list or a text beyond bounds; "" when there is none.
    """
    if isinstance(said, msgspec.Struct):
        fields = said.__struct_fields__
        return next((found for one in fields if (found := _absurd(getattr(said, one), one))), "")
    if isinstance(said, str):
        return (
            f"{name} is {len(said)} signs long, expected at most {LONGEST_WORDS}" if len(said) > LONGEST_WORDS else ""
        )
    if isinstance(said, tuple | list | dict) and len(said) > MOST_THINGS:
        return f"{name} lists {len(said)} things, expected at most {MOST_THINGS}"
    if isinstance(said, tuple | list):
        return next((found for one in said if (found := _absurd(one, name))), "")
    if isinstance(said, dict):
        return next((found for one in said.values() if (found := _absurd(one, name))), "")
    if isinstance(said, int):
        most = FARTHEST_MS if name.endswith("_ms") else MOST_COUNTED
        return "" if -most < said < most else f"{name} is beyond {most}"
    if isinstance(said, float) and not math.isfinite(said):
        return f"{name} is {said}"
    return ""


def _unreadable(party: AgentId, payload: bytes, why: wire.UnknownMessage) -> Unreadable:
    try:
        placed = _placed.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise why from None
    if placed.sender != party:
        raise SenderWrong(f"{party} speaks as {placed.sender}") from None
    if not (0 <= placed.seq < MOST_COUNTED and _is_name(placed.boot) and _is_name(placed.stream)):
        raise why
    return Unreadable(placed.sender, placed.boot, placed.stream, placed.seq, payload, str(why)[:500])
