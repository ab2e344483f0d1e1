"""Everything one customer is shown of one delivery, without words: what is not here cannot leak onto the page.

No other customer, no stop's id, no route and no driver is in it. The van's place is there for the last few stops only,
rounded, and with its age.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from cloud_hub.contacts import Customer
from cloud_hub.fleet import AgentRecord, EstimatesHeard, Order, StopRecord
from cloud_hub.promises import Promise, Telling, how_sure
from cloud_hub.sayings import DoorCode, Neighbour, NotHomeUntil, OtherDay, SafePlace, SaidWish, wish_id
from cloud_hub.web.needs import why_person
from cloud_hub.web.picture import Picture
from cloud_hub.wishes import NEEDS_A_PERSON, last_visit
from cloud_hub.workdays import Workdays
from shared.messages import Estimate
from shared.quantities import EpochMs, Position, TimeWindow, metres_between
from shared.work import AgentId, OrderId, Outcome, Stop, StopId, Visit

LAST_FEW = 3
"""The van's place and the number of stops before a door are shown when at most so many remain."""

ON_ITS_ROUTE = ("planned", "under_way", "at_the_door")

OLDEST_PLACE_MS = 15 * 60_000
"""Where a van was a quarter of an hour ago says nothing of where it is."""

SILENT_MS = 5 * 60_000
"""A van in a courtyard or a tunnel is soon back: only after so long is its silence told."""

GRID_M = 50.0
METRES_PER_DEGREE = 111_195.0

DAYS_OFFERED = 6
FARTHEST_DAY = 13
"""Days ahead that are offered at most: a parcel is kept for two weeks."""

MOST_SHOWN = 8
"""Windows shown, the newest."""


@dataclass(frozen=True, slots=True)
class Van:
    """Where the van last was, to some fifty metres, and how long ago."""

    position: Position
    age_min: int
    metres_off: int


@dataclass(frozen=True, slots=True)
class ToldWindow:
    """One window that was told: when, which, and the code of why it was another than before."""

    at_ms: EpochMs
    told: TimeWindow
    why: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A visit that has ended without a delivery, or one that was never made (`not_reached`)."""

    outcome: str
    at_ms: EpochMs


@dataclass(frozen=True, slots=True)
class View:
    """One delivery as its customer sees it.

    `phase` is checking, waiting, planned, under_way, at_the_door, done, collected or missed. `window` is the one told,
    or the slot while none is. `sure_pct` is absent when nothing is expected. `needs_person` names the service that
    forbids leaving it; "" when none does. `silent_since_ms` is when the van that is to come was last heard, if it is
    out of reach: what is shown is from then. `is_open` while the visit can still be changed. `has_next_time` when the
    shop said which customer it is, so that something can be remembered for later orders. `locker` is the one
    the visit goes to instead of the door.
    """

    order_id: OrderId
    phase: str
    visit: Stop | None
    window: TimeWindow | None
    is_told: bool
    is_late: bool
    sure_pct: int | None
    stops_before: int | None
    van: Van | None
    silent_since_ms: EpochMs | None
    outcome: str
    ended_ms: EpochMs | None
    next_step: str
    earlier: tuple[Attempt, ...]
    tellings: tuple[ToldWindow, ...]
    said: tuple[SaidWish, ...]
    customer: Customer | None
    needs_person: str
    is_open: bool
    has_next_time: bool
    locker: str = ""


class Gone(Exception):
    """The order this link opened is there no more, or its customer wanted to be forgotten."""


def view(picture: Picture, order_id: OrderId, now_ms: int) -> View:
    """The delivery as it is in the store. Raises Gone."""
    order = picture.one("orders", order_id, Order)
    if order is None or order.is_forgotten:
        raise Gone
    customer = picture.one("customers", order.customer_ref or order_id, Customer)
    stop_id = last_visit(order)
    record = None if stop_id is None else picture.one("stops", stop_id, StopRecord)
    visit = None if stop_id is None else order.stop_named(stop_id)
    if visit is None or record is None or order.state not in ("accepted", "returning"):
        return _bare(order, customer)
    promise = picture.one("promises", visit.stop_id, Promise)
    if record.is_leaving or not record.agent:
        promise = None
    agent = picture.one("agents", record.agent, AgentRecord) if record.agent else None
    ended = record.visits[-1] if record.visits else None
    phase = _phase(record, ended, promise)
    is_coming = phase in ("planned", "under_way") and not visit.is_at_locker
    before = _stops_before(agent, visit.stop_id) if is_coming else None
    estimate = _estimate(picture, record, promise) if is_coming and promise is not None else None
    return View(
        order_id=order_id,
        phase=phase,
        visit=visit,
        window=visit.slot if promise is None else promise.told,
        is_told=promise is not None,
        is_late=promise is not None and promise.is_breached,
        sure_pct=None if estimate is None or promise is None else how_sure(promise, estimate),
        stops_before=before,
        van=None if before is None else _van(picture, record.agent, visit.position, now_ms),
        silent_since_ms=_silent_since(picture, agent, now_ms) if phase in ON_ITS_ROUTE else None,
        outcome="" if ended is None else ended.outcome.value,
        ended_ms=None if ended is None else ended.arrived_ms,
        next_step=_next_step(order, record),
        earlier=_earlier(picture, order, visit.stop_id),
        tellings=() if promise is None or visit.is_at_locker else _tellings(picture, promise),
        said=_said(picture, order_id),
        customer=customer,
        needs_person=visit.service if visit.service in NEEDS_A_PERSON else "",
        is_open=phase in ("waiting", "planned") and not record.is_leaving,
        has_next_time=order.customer_ref not in ("", order.order_id),
        locker=visit.address if visit.is_at_locker else "",
    )


def rounded(position: Position) -> Position:
    """The place on a grid of fifty metres: nearer says at whose door the van stands."""
    step = GRID_M / METRES_PER_DEGREE
    return Position(round(round(position.lat / step) * step, 6), round(round(position.lon / step / 2) * step * 2, 6))


def days_offered(visit: Stop, now_ms: int, workdays: Workdays) -> tuple[date, ...]:
    """The next working days on which the visit could be instead."""
    last = max(workdays.day(visit.slot.opens_ms), workdays.day(now_ms))
    days = (last + timedelta(days=ahead) for ahead in range(1, FARTHEST_DAY + 1))
    return tuple(day for day in days if workdays.is_worked(day))[:DAYS_OFFERED]


def slot_on(sold: TimeWindow, day: date, zone: ZoneInfo) -> TimeWindow:
    """The same hours by the clock on the wall on another day. Raises OverflowError when it is beyond the calendar."""
    opens, closes = _local(sold.opens_ms, zone), _local(sold.closes_ms, zone)
    begins = datetime.combine(day, opens.time(), zone)
    ends = datetime.combine(day + (closes.date() - opens.date()), closes.time(), zone)
    return TimeWindow(EpochMs(int(begins.timestamp() * 1000)), EpochMs(int(ends.timestamp() * 1000)))


def instant_on(visit: Stop, hour: int, minute: int, zone: ZoneInfo) -> EpochMs:
    """The instant at which the clock on the wall shows this time on the day of the visit."""
    moment = _local(visit.slot.opens_ms, zone).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return EpochMs(int(moment.timestamp() * 1000))


def still_holds(said: SaidWish, visit: Stop) -> bool:
    """Whether what was granted is so still: a van may have been under way already when the word of it came."""
    if isinstance(said.wish, OtherDay) and said.effect == "other_day":
        return visit.slot.opens_ms >= said.wish.slot.opens_ms
    if isinstance(said.wish, NotHomeUntil) and said.effect == "not_before":
        return visit.slot.opens_ms >= said.wish.at_ms or visit.attempt > 1
    if not said.is_done or visit.attempt > 1:
        return True
    match said.wish:
        case SafePlace(where=asked):
            return visit.safe_place == asked
        case Neighbour(who=asked):
            return visit.neighbour == asked
        case DoorCode(code=asked):
            return visit.door_code == asked
    return True


def _bare(order: Order, customer: Customer | None) -> View:
    return View(
        order.order_id, "checking", None, None, False, False, None, None, None, None, "", None, "", (), (), (),
        customer, "", False, order.customer_ref not in ("", order.order_id),
    )  # fmt: skip


def _phase(record: StopRecord, ended: Visit | None, promise: Promise | None) -> str:
    if record.state == "done" and ended is not None:
        if ended.outcome is Outcome.COLLECTED:
            return "collected"
        return "done" if ended.outcome.is_delivery else "missed"
    if record.is_leaving or promise is None:
        return "waiting"
    return {"heading": "under_way", "arrived": "at_the_door"}.get(record.state, "planned")


def _next_step(order: Order, record: StopRecord) -> str:
    """How it goes on: a step, `deciding`, or `person` when nothing follows by itself."""
    if order.state == "returning":
        return "return"
    return "person" if why_person(order, record) else record.next_step


def _stops_before(agent: AgentRecord | None, stop_id: StopId) -> int | None:
    """How many stops the van still makes before this one; None when they are more than a customer is told."""
    if agent is None or not agent.has_begun or agent.shift == "ended" or stop_id not in agent.order:
        return None
    before = agent.order.index(stop_id)
    return before if before <= LAST_FEW else None


def _van(picture: Picture, agent: AgentId, door: Position, now_ms: int) -> Van | None:
    place = picture.position(agent)
    if place is None or now_ms - place["at_ms"] > OLDEST_PLACE_MS:
        return None
    position = rounded(Position(place["lat"], place["lon"]))
    metres = metres_between(position, door)
    return Van(position, max(0, now_ms - place["at_ms"]) // 60_000, round(metres / GRID_M) * round(GRID_M))


def _silent_since(picture: Picture, agent: AgentRecord | None, now_ms: int) -> EpochMs | None:
    """When a van under way that is out of reach was last heard; None while it is there, or not away for long."""
    if agent is None or agent.is_there or not agent.has_begun:
        return None
    place = picture.position(agent.agent)
    last_ms = max(agent.last_event_ms, EpochMs(0 if place is None else place["at_ms"]))
    return last_ms if now_ms - last_ms >= SILENT_MS else None


def _estimate(picture: Picture, record: StopRecord, promise: Promise) -> Estimate | None:
    """What the van expects, unless the customer has since asked for other hours, of which it has not spoken yet."""
    heard = picture.one("estimates", record.agent, EstimatesHeard)
    last = promise.tellings[-1] if promise.tellings else None
    if heard is None or (last is not None and last.why == "customer_asked" and heard.said_ms < last.at_ms):
        return None
    return next((estimate for estimate in heard.estimates if estimate.stop_id == record.stop_id), None)


def _earlier(picture: Picture, order: Order, current: StopId) -> tuple[Attempt, ...]:
    found = (picture.one("stops", stop_id, StopRecord) for stop_id in order.visits if stop_id != current)
    records = [record for record in found if record is not None and record.state == "done"]
    made = [Attempt(visit.outcome.value, visit.arrived_ms) for record in records for visit in record.visits]
    never_made = [Attempt("not_reached", record.changed_ms) for record in records if not record.visits]
    return tuple(sorted((*made, *never_made), key=lambda attempt: attempt.at_ms))


def _tellings(picture: Picture, promise: Promise) -> tuple[ToldWindow, ...]:
    told = []
    for before, telling in zip((None, *promise.tellings), promise.tellings, strict=False):
        told.append(ToldWindow(telling.at_ms, telling.told, _why(picture, before, telling)))
    return tuple(told[-MOST_SHOWN:])


def _why(picture: Picture, before: Telling | None, telling: Telling) -> str:
    if telling.why:
        return telling.why
    if telling.kind == "first" or before is None:
        return "first"
    if telling.kind == "by_hand":
        decision: Mapping[str, object] = picture.decision(telling.decision_id) or {}
        return "customer_asked" if decision.get("kind") == "customer_wish" else "shop_asked"
    return "early" if telling.told.closes_ms < before.told.closes_ms else "later"


def _said(picture: Picture, order_id: OrderId) -> tuple[SaidWish, ...]:
    """What was granted last of each kind, and what was refused last, newest first."""
    found: list[SaidWish] = []
    while (said := picture.one("said_wishes", wish_id(order_id, len(found) + 1), SaidWish)) is not None:
        found.append(said)
    last = {(type(said.wish), said.is_done): said for said in found}
    return tuple(sorted(last.values(), key=lambda said: said.wish_id, reverse=True))


def _local(instant_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(instant_ms / 1000, zone)
