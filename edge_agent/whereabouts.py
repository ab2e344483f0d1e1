"""Say what believed readings mean for the work: the day has begun, the van set off, stands at a door, or left one.

Nothing is remembered here but since when the van has been near a stop, and the caller keeps that. What happened is
answered as a value; what follows from it is the core's to decide.
"""

from typing import NamedTuple

from edge_agent.assignment import Assignment
from edge_agent.memory import Day
from edge_agent.sensing import Belief
from edge_agent.turns import next_on_page
from shared.contracts import Plan
from shared.quantities import EpochMs, Position, metres_between
from shared.work import StopId

NEAR_M = 60.0
"""A van parks within a few car lengths of the door, and fixes between houses are 10 to 20 m off."""
NEAR_ENOUGH_M = 90.0
FAR_M = 150.0
"""Some doors lie in a yard, 130 m from the nearest street a van may stand in (Postikuja 2, Helsinki)."""
STANDS_MS = 20_000
STANDS_NEAR_ENOUGH_MS = 60_000
"""Longer than most red lights (up to 45 s) where the door is not quite near."""
ELSEWHERE_M = 45.0
STANDS_ELSEWHERE_MS = 120_000
STANDS_FAR_MS = 120_000
"""As long as at a door the van was not heading for: nothing but the order shown speaks for either."""
STANDS_AGAINST_HIS_WORD_MS = 300_000
"""A driver who said where he is going and stands elsewhere is held up until five minutes say otherwise."""
OPENS_SOON_MS = 900_000
"""Whoever stands before a door whose slot opens in more than a quarter of an hour stands there for another reason."""
LEFT_M = 150.0
"""So far from where it stood, a van has left."""
DRIVES_MPS = 3.0
SETS_OFF_MPS = 1.5
EARLY_MS = 3_600_000
"""A van that leaves the depot more than an hour before its plan is on another errand."""
LEAST_OF_THE_WAY = 0.6
"""Without satellites, standing counts as arrival once the wheels have turned for this share of the straight line."""
FRESH_POSITION_S = 90.0


class Near(NamedTuple):
    """Which stop the van has been near, and since when.

    `stood_ms` is when it came to stand there; None while it has not, or drives again. To creep is not to drive. It is
    far from the goal of its leg when nothing to come is nearer than that, but its door may lie off the street.
    """

    stop_id: StopId
    since_ms: int
    stood_ms: int | None = None
    is_far: bool = False


class SetOff(NamedTuple):
    """The van left without a word: it is taken to go where the order shows."""

    stop_id: StopId


class StandsAt(NamedTuple):
    """The van stands at a stop to come, and has since this instant."""

    stop_id: StopId
    since_ms: EpochMs


class LeftAgain(NamedTuple):
    """The van left the stop it stood at and nobody said how the visit ended.

    It goes on to `goal`, where the driver had said he was going; None when he had not.
    """

    stop_id: StopId
    goal: StopId | None


Happening = SetOff | StandsAt | LeftAgain


def is_moving(belief: Belief | None) -> bool | None:
    """Whether the van moves by what is believed; None when nobody knows."""
    if belief is None or (belief.speed_mps is None and not belief.is_standing):
        return None
    return not belief.is_standing and (belief.speed_mps or 0.0) >= SETS_OFF_MPS


def has_begun(belief: Belief, plan: Plan, now_ms: int | None) -> bool:
    """Whether a van whose driver has said nothing is out on its round; `now_ms` is None while nobody knows the time."""
    if belief.position is None or belief.is_standing or belief.quality != "gnss":
        return False
    far_m = min(metres_between(belief.position, p) for p in (plan.depot.position, plan.depot.gateway))
    is_time = now_ms is None or now_ms > plan.depart_ms - EARLY_MS
    return far_m > 2 * LEFT_M and (belief.speed_mps or 0) > DRIVES_MPS and is_time


def observe(
    belief: Belief, day: Day, work: Assignment, near: Near | None, now_ms: int, is_dated: bool = True
) -> tuple[Happening | None, Near | None]:
    """What has happened on a day under way with stops to come, and which stop the van is near from now on.

    While nobody knows the time, any slot may open soon.
    """
    if day.at_stop is not None:
        return _leaving(belief, day, day.at_stop, work, near), near
    if belief.quality != "gnss":
        return _arrival_by_wheels(belief, day, work, now_ms), near
    if belief.position is None:
        return None, near
    leaves = _setting_off(belief, belief.position, day, work)
    goal = day.heading_to if leaves is None else leaves.stop_id
    away = {stop_id: metres_between(belief.position, work.stops[stop_id].position) for stop_id in day.shown}
    near = _stood(_nearest(away, goal, near, now_ms), belief, day)
    # Who sets off does not stand, so no reading says both.
    opens_soon = not is_dated or (near is not None and work.stops[near.stop_id].slot.opens_ms - now_ms <= OPENS_SOON_MS)
    return leaves or _arrival(belief, belief.position, day, away, near, opens_soon, now_ms), near


def share_left(belief: Belief | None, day: Day, goal: StopId, work: Assignment, now_ms: int) -> float:
    """How much of the leg under way is still ahead: by the straight lines, else by the time it has taken."""
    if belief is not None and belief.position is not None and _is_fresh(belief):
        door = work.stops[goal].position
        whole_m = metres_between(work.origin(day.from_position), door)
        if whole_m > NEAR_M:
            return min(1.3, max(0.02, metres_between(belief.position, door) / whole_m))
    if day.set_off_ms is None:
        return 1.0
    expected_s = max(1.0, work.leg_s(day.from_place, goal, day.set_off_ms))
    return min(1.0, max(0.1, 1 - (now_ms - day.set_off_ms) / 1000 / expected_s))


def _leaving(belief: Belief, day: Day, stop_id: StopId, work: Assignment, near: Near | None) -> LeftAgain | None:
    if belief.is_standing or belief.quality != "gnss" or belief.position is None:
        return None
    away_m = metres_between(belief.position, work.stops[stop_id].position)
    stood_far = near is not None and near.stop_id == stop_id and near.is_far
    if stood_far and away_m <= NEAR_ENOUGH_M and (belief.speed_mps or 0) > DRIVES_MPS:
        return LeftAgain(stop_id, None)  # It was held up on the way; this is the way to the door.
    if away_m <= LEFT_M:
        return None
    goes_on = day.said_heading in day.shown and day.said_heading != stop_id
    return LeftAgain(stop_id, day.said_heading if goes_on else None)


def _setting_off(belief: Belief, position: Position, day: Day, work: Assignment) -> SetOff | None:
    if day.heading_to is not None or belief.is_standing or (belief.speed_mps or 0) < SETS_OFF_MPS:
        return None
    has_left = metres_between(work.origin(day.from_position), position) > LEFT_M
    goal = next_on_page(day)
    return SetOff(goal) if has_left and goal is not None else None


def _nearest(away: dict[StopId, float], goal: StopId | None, near: Near | None, now_ms: int) -> Near | None:
    """The stop the van is near: its goal when that is near enough, whatever door is nearer.

    Its goal, too, when that is far and every other door farther.
    """
    nearest = min(away, key=lambda stop_id: (stop_id != goal or away[stop_id] > NEAR_ENOUGH_M, away[stop_id]))
    is_far = away[nearest] > NEAR_ENOUGH_M
    if is_far and (nearest != goal or away[nearest] > FAR_M):
        return None
    is_same = near is not None and (near.stop_id, near.is_far) == (nearest, is_far)
    return near if is_same else Near(nearest, now_ms, is_far=is_far)


def _stood(near: Near | None, belief: Belief, day: Day) -> Near | None:
    """When the van came to stand near the stop, after it had set off to it."""
    if near is None or (belief.speed_mps or 0) > DRIVES_MPS:
        return near if near is None or near.stood_ms is None else near._replace(stood_ms=None)
    since_ms = belief.standing_since_ms
    if near.stood_ms is not None and near.stood_ms > (day.set_off_ms or 0):
        return near
    has_come_to_stand = belief.is_standing and since_ms is not None and since_ms > (day.set_off_ms or 0)
    return near._replace(stood_ms=since_ms if has_come_to_stand else None)


def _arrival(
    belief: Belief,
    position: Position,
    day: Day,
    away: dict[StopId, float],
    near: Near | None,
    opens_soon: bool,
    now_ms: int,
) -> StandsAt | None:
    if near is None or not belief.is_standing or belief.standing_since_ms is None:
        return None
    stood_ms = now_ms - belief.standing_since_ms
    if near.is_far:
        # Who sets off on foot, the van standing where it stood for the visit before, says the outcome himself.
        if near.stop_id != day.heading_to or near.stood_ms is None or not _is_new_place(position, day):
            return None
        needed_ms, since_ms = STANDS_FAR_MS, near.stood_ms
    elif near.stop_id == day.heading_to:
        needed_ms = STANDS_MS if away[near.stop_id] <= NEAR_M else STANDS_NEAR_ENOUGH_MS
        # A van that never moved was left standing for a few steps on foot.
        since_ms = near.stood_ms or max(near.since_ms, day.set_off_ms or 0)
    elif opens_soon and away[near.stop_id] <= ELSEWHERE_M and _is_new_place(position, day):
        needed_ms = STANDS_ELSEWHERE_MS if day.said_heading is None else STANDS_AGAINST_HIS_WORD_MS
        since_ms = near.since_ms
    else:
        return None
    return StandsAt(near.stop_id, EpochMs(since_ms)) if stood_ms >= needed_ms else None


def _is_new_place(position: Position, day: Day) -> bool:
    """Whether the van has moved since its last visit: standing on after one is no arrival at the next door."""
    return day.from_position is None or metres_between(day.from_position, position) > NEAR_M


def _arrival_by_wheels(belief: Belief, day: Day, work: Assignment, now_ms: int) -> StandsAt | None:
    """Without satellites: far enough driven since setting off, and standing."""
    goal = day.heading_to
    if goal is None or not belief.is_standing or belief.standing_since_ms is None or day.set_off_ms is None:
        return None
    straight_m = metres_between(work.origin(day.from_position), work.stops[goal].position)
    if belief.odometer_m - day.set_off_odometer_m < LEAST_OF_THE_WAY * straight_m - NEAR_M:
        return None
    since_ms = max(belief.standing_since_ms, day.set_off_ms)
    return StandsAt(goal, EpochMs(since_ms)) if now_ms - since_ms >= STANDS_NEAR_ENOUGH_MS else None


def _is_fresh(belief: Belief) -> bool:
    return belief.position_age_s is not None and belief.position_age_s <= FRESH_POSITION_S
