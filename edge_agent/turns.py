"""Say what each turn of the day makes of it: a plan, a shift, setting off, arriving, a visit, another order.

Every function takes the day as it was and gives the day as it is; nothing is said to anybody here.
"""

from collections.abc import Collection, Container

import msgspec

from edge_agent.dating import Dating
from edge_agent.memory import Change, Day, Override, Refused
from shared.quantities import EpochMs, Position
from shared.work import StopId, Visit

REFUSED_FOR_MS = 1_800_000
"""A change the driver turned down is not proposed again for half an hour."""
MOST_SCANS = 400

SHIFT_FOLLOWS = {
    "begun": {"waiting": "under_way", "ended": "under_way"},
    "on_break": {"under_way": "on_break", "waiting": "on_break"},
    "off_break": {"on_break": "under_way"},
    "ended": {"under_way": "ended", "on_break": "ended", "waiting": "ended"},
}
"""What is said of the shift, and what it makes of each state of the day from which it can follow."""


def under_way(day: Day) -> StopId | None:
    """The stop the van stands at or heads for; None between two stops."""
    return day.at_stop or day.heading_to


def on_page(day: Day) -> tuple[StopId, ...]:
    """The order the page shows: the one held while the van moves, else the order of the day."""
    return day.held or day.shown


def hold(before: Day, after: Day) -> Day:
    """The day after a change while the van moves: the page goes on showing what it showed."""
    return msgspec.structs.replace(after, held=on_page(before))


def let_go(day: Day) -> Day:
    """The van stands: the page shows the order of the day."""
    return msgspec.structs.replace(day, held=()) if day.held else day


def next_on_page(day: Day) -> StopId | None:
    """The stop to come that the page shows first, not counting where the van stands; None when there is none."""
    shown = set(day.shown)
    return next((stop_id for stop_id in on_page(day) if stop_id in shown and stop_id != day.at_stop), None)


def planned(day: Day, order: tuple[StopId, ...], visited: Container[StopId]) -> Day:
    """Another plan for this day: what is done stays done, and the stop under way stays first if it is still there."""
    remaining = tuple(stop_id for stop_id in order if stop_id not in visited)
    first = under_way(day)
    if first is not None and first not in remaining:
        day = msgspec.structs.replace(
            day, heading_to=None, said_heading=None, at_stop=None, arrived_ms=None, override=None
        )
        first = None
    return msgspec.structs.replace(
        day, planned=order, shown=_first(remaining, first), before_override=(), change=None, refused=()
    )


def amended(day: Day, order: tuple[StopId, ...], change: Change) -> Day:
    """Other work than planned, by somebody's wish: it costs the agent's own budget of changes nothing."""
    return msgspec.structs.replace(day, shown=order, before_override=(), change=change, amendments=day.amendments + 1)


def shift_turned(day: Day, now_is: str, now_ms: EpochMs) -> Day | None:
    """The shift has begun, ended, or a break has; None when that cannot follow from where the shift stands."""
    becomes = SHIFT_FOLLOWS[now_is].get(day.shift)
    if becomes is None:
        return None
    turned = msgspec.structs.replace(day, shift=becomes, ended_ms=now_ms if now_is == "ended" else None)
    if now_is == "on_break":
        return msgspec.structs.replace(turned, rest_began_ms=now_ms)
    if day.shift == "on_break":
        return msgspec.structs.replace(turned, rest_began_ms=None, is_rest_taken=True, left_ms=now_ms)
    return turned if day.left_ms is not None else msgspec.structs.replace(turned, left_ms=now_ms)


def instead_of(day: Day, stop_id: StopId) -> StopId | None:
    """The stop the page shows first, if setting off to this one is another choice; None when it is not.

    Who gives up an override and goes where he was shown first overrides nothing.
    """
    expected = next_on_page(day)
    if day.override is not None and day.override.stop_id != stop_id and day.override.instead_of in day.shown:
        expected = day.override.instead_of
    return expected if expected != stop_id else None


def set_off(
    day: Day, stop_id: StopId, said: StopId | None, stays_parked: bool, now_ms: EpochMs, odometer_m: float
) -> Day:
    """The van is under way to a stop, which comes first now; `said` is where the driver said he was going.

    An override that came to nothing leaves no trace: the stop it went for goes back to its place in the order.
    """
    order = day.before_override or day.shown
    overrides = stop_id in order and order[0] != stop_id
    instead = instead_of(day, stop_id)
    return msgspec.structs.replace(
        day,
        override=None if instead is None else Override(stop_id, instead, now_ms),
        # A stop the page does not show yet is shown when the van goes there.
        held=(stop_id, *(other for other in day.held if other != stop_id)) if day.held else (),
        before_override=order if overrides else (),
        heading_to=stop_id,
        said_heading=said,
        at_stop=None,
        arrived_ms=None,
        shown=_first(order, stop_id),
        set_off_ms=now_ms,
        set_off_odometer_m=odometer_m,
        scans=day.scans if stays_parked else (),
    )


def arrived(day: Day, stop_id: StopId, at_ms: EpochMs) -> Day:
    """The van stands at the stop it was heading for."""
    return msgspec.structs.replace(day, at_stop=stop_id, arrived_ms=at_ms)


def left_again(day: Day) -> Day:
    """A stand that ended without an outcome was no visit."""
    return msgspec.structs.replace(day, at_stop=None, arrived_ms=None)


def scanned(day: Day, code: str) -> Day:
    """A label was read; the same label twice is read once."""
    return day if code in day.scans else msgspec.structs.replace(day, scans=(*day.scans, code)[-MOST_SCANS:])


def visited(day: Day, visit: Visit, position: Position) -> Day:
    """A visit is over, and the next leg begins at its door. Who came there by an override is to be asked why."""
    done = set(visit.proof.scanned)
    why = day.override
    is_asked = why is not None and why.stop_id == visit.stop_id and why.instead_of in day.shown
    return msgspec.structs.replace(
        day,
        held=tuple(other for other in day.held if other != visit.stop_id),
        override=None,
        question=msgspec.structs.replace(why, at_ms=visit.left_ms) if is_asked and why is not None else None,
        shown=tuple(other for other in day.shown if other != visit.stop_id),
        before_override=(),
        driven=(*day.driven, visit.stop_id),
        heading_to=None,
        said_heading=None,
        at_stop=None,
        arrived_ms=None,
        from_place=visit.stop_id,
        from_position=position,
        left_ms=visit.left_ms,
        set_off_ms=None,
        scans=tuple(code for code in day.scans if code not in done),
    )


def reordered(day: Day, change: Change, arcs: int) -> Day:
    """Another order is shown, and `arcs` of the day's budget are spent; the driver has not answered yet."""
    return msgspec.structs.replace(
        day,
        shown=change.after,
        before_override=(),
        change=change,
        arcs_used=day.arcs_used + arcs,
        changed_ms=change.at_ms,
    )


def change_seen(day: Day) -> Day:
    """The driver lets the changed order stand."""
    return msgspec.structs.replace(day, change=None)


def change_refused(day: Day, change: Change, now_ms: EpochMs) -> Day:
    """The order the driver last agreed to comes back, for what of it is still to come.

    Work that came since is not the driver's to refuse: it stays, behind the stop it was put behind.
    """
    to_come = set(day.shown)
    order = [stop_id for stop_id in change.before if stop_id in to_come]
    for place, stop_id in enumerate(day.shown):
        if stop_id not in order:
            order.insert(order.index(day.shown[place - 1]) + 1 if place else 0, stop_id)
    return msgspec.structs.replace(
        day,
        shown=_first(tuple(order), under_way(day)),
        before_override=(),
        change=None,
        refused=(*lately_refused(day, now_ms), Refused(now_ms, change.new_arcs)),
    )


def override_explained(day: Day) -> Day:
    """The driver has said why, or will not."""
    return msgspec.structs.replace(day, question=None)


def to_forget(day: Day, stop_ids: Collection[StopId]) -> Day:
    """The people of these stops, and of no others, are to be forgotten once the van has left."""
    return msgspec.structs.replace(day, forgetting=tuple(sorted(stop_ids)))


def lately_refused(day: Day, now_ms: int) -> tuple[Refused, ...]:
    """Changes turned down so lately that they are not proposed again."""
    return tuple(refused for refused in day.refused if now_ms - refused.at_ms < REFUSED_FOR_MS)


def redated(day: Day, dating: Dating) -> Day:
    """The time was found: what happened on the unknown clock happened then."""
    day = dating.of(day, "arrived_ms", "left_ms", "set_off_ms", "rest_began_ms", "changed_ms", "ended_ms")
    return msgspec.structs.replace(
        day,
        change=None if day.change is None else dating.of(day.change, "at_ms"),
        refused=tuple(dating.of(refused, "at_ms") for refused in day.refused),
        override=None if day.override is None else dating.of(day.override, "at_ms"),
        question=None if day.question is None else dating.of(day.question, "at_ms"),
    )


def _first(order: tuple[StopId, ...], stop_id: StopId | None) -> tuple[StopId, ...]:
    """The same order with one stop taken to the front; unchanged for None."""
    if stop_id is None or stop_id not in order:
        return order
    return (stop_id, *(other for other in order if other != stop_id))
