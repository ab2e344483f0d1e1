"""What agents say, checked at the door: topic, sender and form, before the core sees it.

Whatever is refused is counted under its own name. A message whose contents we cannot read but whose place in its
stream we can goes on as unreadable, so that it is kept, acknowledged, and does not hold up the ones behind it.
"""

from collections import Counter
from collections.abc import Callable

import msgspec

from cloud_hub.events import Acked, HubHeard, PresenceHeard, Spoke, Unreadable
from shared import topics, wire
from shared.mqtt import Heard
from shared.wire import Refused
from shared.work import AgentId

LONGEST_NAME = 64
MOST_COUNTED = 1 << 53
"""JSON may hold any number; no sequence and no instant of ours needs more than a double keeps exactly."""


class SenderWrong(Refused):
    """A message whose sender is not the party whose topic it came on."""


class Revoked(Refused):
    """A message of an agent that is not believed any more; the broker has not thrown it out yet."""


class RegionWrong(Refused):
    """A topic of another region."""


class Door:
    """Reads what comes from the broker. Called from the network's thread; raises nothing."""

    def __init__(self, region: str, is_revoked: Callable[[str], bool] = lambda _: False) -> None:
        """`is_revoked` says whether an agent's certificates were taken back."""
        self._region = region
        self._is_revoked = is_revoked
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
        is_revoked = self._is_revoked(place.party)
        if is_revoked and place.carries != "presence":
            raise Revoked(f"{place.party} was revoked")
        if place.carries in ("events", "objects"):
            return _event(place.party, heard.payload)
        if place.carries == "acks":
            return Acked(place.party, wire.decode_ack(heard.payload))
        if place.carries == "presence":
            presence = wire.decode_presence(heard.payload)
            if presence.party != place.party:
                raise SenderWrong(f"{place.party} speaks as {presence.party}")
            if is_revoked and presence.is_there:
                raise Revoked(f"{place.party} was revoked")  # That it is gone, the broker says, by its will.
            if not all(0 < seq < MOST_COUNTED for seq in presence.unacked.values()):
                raise wire.UnknownMessage(f"{place.party} keeps numbers {presence.unacked}, expected 1 to 2**53")
            return PresenceHeard(place.party, presence)
        return None


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
    if not (0 <= numbered.seq < MOST_COUNTED and 0 <= numbered.said_ms < MOST_COUNTED):
        found = f"{party} says number {numbered.seq} at {numbered.said_ms}, expected 0 to 2**53"
        return _unreadable(party, payload, wire.UnknownMessage(found))
    return Spoke(numbered)


def _unreadable(party: AgentId, payload: bytes, why: wire.UnknownMessage) -> Unreadable:
    try:
        placed = _placed.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise why from None
    if placed.sender != party:
        raise SenderWrong(f"{party} speaks as {placed.sender}") from None
    if not 0 <= placed.seq < MOST_COUNTED:
        raise why
    return Unreadable(placed.sender, placed.boot, placed.stream, placed.seq, payload, str(why)[:500])
