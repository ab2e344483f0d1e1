"""Find what is personal of somebody in a kept row, and erase it while what happened stays.

A stop keeps its ids, windows and parcels, a visit its outcome and instants, so that promises, records and figures add
up as before. What says who somebody is, where they live, what they said or how they sign goes.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from cloud_hub.chains import KeptHand
from cloud_hub.fleet import Amendment, DeadLetter, DeadPayload, Order
from shared.contracts import Plan
from shared.messages import HubCommand, PlanPushed, WorkAmended
from shared.quantities import Position
from shared.steps import Row
from shared.work import Proof, Stop, Visit

T = TypeVar("T", bound=msgspec.Struct)

SWEEP = "sweep"
"""No room but an errand: a row by which the store erases these traces, in the commit that carries it."""

SWEPT = (
    "notices", "plan_history", "dead_letters", "dead_payloads", "receipts", "objects", "hands", "corrections",
)  # fmt: skip
"""Rooms and archives the core does not hold in memory: the store erases there, in the same commit."""

KEPT_OF_A_NOTICE = frozenset({
    "notice_id", "kind", "order_id", "stop_id", "agent", "told", "slot", "at_ms", "decision_id", "state", "attempts",
    "settled_ms", "why", "is_breach", "sure_pct", "next_step", "channels", "channel", "not_before_ms",
})  # fmt: skip
"""What a notice still says: that it was sent, when, on which channel and about which window."""


_OLD_GO = frozenset({"hands", "dead_letters", "dead_payloads"})
"""Where what is old enough goes, whomever it speaks of."""


class Traces(msgspec.Struct, frozen=True):
    """By what a forgotten person is found in kept rows: orders, stops and exact places.

    Names and free words that belong to no order (who closed a street, what nobody could read) are found by their age:
    those from before `before_ms` go.
    """

    order_ids: frozenset[str] = frozenset()
    stop_ids: frozenset[str] = frozenset()
    places: tuple[Position, ...] = ()
    before_ms: int = 0

    def lead_to(self, room: str) -> bool:
        """Whether anything in this room can be theirs."""
        return bool(self.order_ids or self.stop_ids) or (bool(self.before_ms) and room in _OLD_GO)


def coarse(place: Position) -> Position:
    """The part of town: a hundredth of a degree, some 500 to 1,100 m."""
    return Position(round(place.lat, 2), round(place.lon, 2))


def scrubbed_stop(stop: Stop, place: Position | None = None) -> Stop:
    """The stop without a person: no address, nothing that helps at the door, and this place instead of its own (the
    part of town unless given).
    """
    return msgspec.structs.replace(
        stop, address="", position=place or coarse(stop.position), floor=0, door_group="", open_hours=None,
        door_code="", note="", safe_place="", neighbour="",
    )  # fmt: skip


def scrubbed_visit(visit: Visit) -> Visit:
    """The visit with its outcome, instants and scans; without place, pictures and the driver's own words."""
    proof = Proof(visit.proof.scanned, None, visit.proof.at_ms, age_checked=visit.proof.age_checked)
    return msgspec.structs.replace(visit, proof=proof, reason="")


def kept_visit(order: Order | None, visit: Visit) -> Visit:
    """A visit as it may be kept: one that is reported when its customer has been forgotten says nothing personal."""
    return scrubbed_visit(visit) if order is not None and order.is_forgotten else visit


def scrubbed_order(order: Order) -> Order:
    """The order with its ids and windows alone. Its fingerprint goes too: a hash of an address gives it away."""
    return msgspec.structs.replace(
        order,
        entry="",
        fingerprint="",
        stop=None if order.stop is None else scrubbed_stop(order.stop),
        amended=tuple(scrubbed_stop(stop) for stop in order.amended),
        doubts=(),
        candidates=(),
        place_reason="",
        customer_ref="",
        is_forgotten=True,
    )


def scrubbed_plan(plan: Plan, stop_ids: frozenset[str]) -> Plan:
    """The plan with these of its stops scrubbed. They are said to lie where the vans enter the map: that is nobody's
    home, and the roads know the way there when they are asked for the plan's leg times again.
    """
    return _scrubbed(plan, "stops", stop_ids, plan.depot.gateway)


def scrubbed_amendment(amendment: Amendment, stop_ids: frozenset[str]) -> Amendment:
    """An amendment that is not settled yet, without what it says of these stops."""
    return _scrubbed(_scrubbed(amendment, "stops", stop_ids), "former", stop_ids)


def scrubbed_command(command: HubCommand, stop_ids: frozenset[str]) -> HubCommand:
    """A command that still waits for its agent, without what it says of these stops."""
    if isinstance(command, PlanPushed):
        plan = scrubbed_plan(command.plan, stop_ids)
        return command if plan is command.plan else PlanPushed(plan, command.start_by_ms)
    return _scrubbed(command, "stops", stop_ids) if isinstance(command, WorkAmended) else command


def _scrubbed(holder: T, field: str, stop_ids: frozenset[str], place: Position | None = None) -> T:
    """The holder with these stops of its field scrubbed; the very same when it has none of them."""
    stops: tuple[Stop, ...] = getattr(holder, field)
    if not any(stop.stop_id in stop_ids for stop in stops):
        return holder
    left = tuple(scrubbed_stop(stop, place) if stop.stop_id in stop_ids else stop for stop in stops)
    return msgspec.structs.replace(holder, **{field: left})


def sweep(room: str, documents: Iterable[tuple[str, bytes]], traces: Traces) -> Iterator[Row]:
    """The rows that erase these people from one swept room, given all it holds by key."""
    for key, document in documents if traces.lead_to(room) else ():
        left = swept(room, document, traces)
        if left != document:
            yield Row(room, key, left)


def swept(room: str, document: bytes, traces: Traces) -> bytes | None:
    """What is left of a kept document once these people are forgotten: the same bytes when it says nothing of them,
    None when it was theirs alone. Of an object its first HEAD_BYTES are enough.
    """
    if room == "plan_history":
        if not any(stop.stop_id in traces.stop_ids for stop in _stops.decode(document).stops):
            return document
        return _json.encode(scrubbed_plan(_plan.decode(document), traces.stop_ids))
    if room == "objects":
        return None if _is_object_of(document, traces) else document
    if room == "notices":
        return _swept_notice(document, traces)
    if room == "dead_letters":
        letter = _letter.decode(document)
        goes = letter.payload and (letter.heard_ms < traces.before_ms or _says(letter.payload, traces))
        return _json.encode(msgspec.structs.replace(letter, payload="", size=0)) if goes else document
    if room == "dead_payloads":
        dead = _dead_payload.decode(document)
        goes = dead.heard_ms < traces.before_ms or _says(dead.payload.decode(errors="replace"), traces)
        return None if goes else document
    if room == "hands":
        hand = _hand.decode(document)
        goes = hand.at_ms < traces.before_ms or not _words(traces).isdisjoint(hand.about)
        return None if goes else document
    if room == "corrections":
        return None if _correction.decode(document).position in traces.places else document
    return None if _mentions(msgspec.json.decode(document), _words(traces)) else document


HEAD_BYTES = 1_024
_STOP_OF_OBJECT = re.compile(rb'"stop_id":("(?:[^"\\]|\\.)*")')


def _is_object_of(head: bytes, traces: Traces) -> bool:
    """Pictures are large and many: whose they are is read from their first bytes, before the piece itself."""
    found = _STOP_OF_OBJECT.search(head[:HEAD_BYTES])
    return found is not None and msgspec.json.decode(found[1]) in traces.stop_ids


class _StopNamed(msgspec.Struct, frozen=True):
    stop_id: str


class _StopsNamed(msgspec.Struct, frozen=True):
    stops: tuple[_StopNamed, ...]


class _Corrected(msgspec.Struct, frozen=True):
    position: Position


_json = msgspec.json.Encoder()
_plan = msgspec.json.Decoder(Plan)
_stops = msgspec.json.Decoder(_StopsNamed)
_letter = msgspec.json.Decoder(DeadLetter)
_dead_payload = msgspec.json.Decoder(DeadPayload)
_hand = msgspec.json.Decoder(KeptHand)
_correction = msgspec.json.Decoder(_Corrected)


def _words(traces: Traces) -> frozenset[str]:
    return frozenset((*traces.order_ids, *traces.stop_ids))


def _swept_notice(document: bytes, traces: Traces) -> bytes:
    notice: dict[str, Any] = msgspec.json.decode(document)
    if notice["order_id"] not in traces.order_ids and notice["stop_id"] not in traces.stop_ids:
        return document
    left = {field: said for field, said in notice.items() if field in KEPT_OF_A_NOTICE} | {"sentence": ""}
    if left.get("state") in ("due", "waiting_quiet"):
        left["state"] = "forgotten"
    return _json.encode(left)


def _says(payload: str, traces: Traces) -> bool:
    return any(f'"{word}"' in payload for word in _words(traces))


def _mentions(said: Any, words: frozenset[str]) -> bool:
    """Whether any text in this JSON value is one of the words."""
    if isinstance(said, str):
        return said in words
    if isinstance(said, dict):
        return any(_mentions(one, words) for one in said.values())
    return isinstance(said, list) and any(_mentions(one, words) for one in said)
