"""When a told window must move, where to, and when the customer is better left in peace.

Three things are called promise. The *slot* was sold at checkout; the *told window* was last communicated and lies
inside the slot; the *estimate* is ours alone. A told window moves by the chance of missing it. Expecting the van
outside the slot is a breach, which is told too, under its own name. Rules against nagging, and against telling what
nobody knows yet, can forbid a move, and then say so.
"""

from typing import Annotated, Literal

import msgspec

from cloud_hub.chances import at_share, chance_before, inside_pct
from cloud_hub.contacts import Why
from shared.messages import Estimate
from shared.quantities import EpochMs, TimeWindow
from shared.work import AgentId, OrderId, StopId

MINUTE_MS = 60_000
ROUND_MS = 5 * MINUTE_MS
"""People are told whole five minutes."""


BEFORE_SHARE = 0.4
"""Share of a window that lies before the P50: vans are late by more than they are early."""

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Minutes = Annotated[int, msgspec.Meta(ge=5, le=720)]

Kind = Literal["first", "moved", "breach", "by_hand"]
Held = Literal["", "fits", "imminent", "too_small", "slot_ends", "too_vague", "too_often", "too_soon"]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of telling. Widths are of the windows told; a window is never told narrower than P10 to P90 unless
    the slot is.
    """

    first_width_min: Minutes = 45
    moved_width_min: Minutes = 45
    least_shift_min: Minutes = 10
    imminent_min: Minutes = 35
    last_call_min: Minutes = 60
    most_miss: Share = 0.15
    most_miss_early: Share = 0.5
    held_share: Share = 0.95
    most_moves: Annotated[int, msgspec.Meta(ge=0, le=20)] = 3
    rest_min: Minutes = 30
    much_different_min: Minutes = 30
    breach_ahead_min: Minutes = 60
    vague_min: Minutes = 120
    vague_ahead_min: Minutes = 90


class Telling(msgspec.Struct, frozen=True):
    """One window told to the customer, and why it is another than before, as the customer may know it."""

    at_ms: EpochMs
    told: TimeWindow
    kind: Kind
    decision_id: str
    why: Why = ""


class Promise(msgspec.Struct, frozen=True):
    """What one customer was sold and told. `held` names the rule that last kept us from telling more; "" when none did.

    `served_ms` is when the van was there in the end; `outcome` how that visit ended. `is_near_told` says that the
    customer knows that the van is on its way.
    """

    stop_id: StopId
    order_id: OrderId
    agent: AgentId
    slot: TimeWindow
    told: TimeWindow
    tellings: tuple[Telling, ...] = ()
    is_breached: bool = False
    held: Held = ""
    served_ms: EpochMs | None = None
    outcome: str = ""
    is_near_told: bool = False

    @property
    def moves(self) -> int:
        """How often the customer was told another window than the first."""
        return sum(telling.kind in ("moved", "breach") for telling in self.tellings)


class Judgement(msgspec.Struct, frozen=True):
    """What to do about one promise: tell `window` as `kind`, or nothing, and by which rule.

    `wanted` is the window that would be told if no rule forbade it.
    """

    wanted: TimeWindow | None
    kind: Kind | None
    held: Held
    verdict: str

    @property
    def window(self) -> TimeWindow | None:
        """The window to tell now; None to leave the customer in peace."""
        return None if self.held else self.wanted


def first_told(slot: TimeWindow, estimate: Estimate, rule: Rule) -> TimeWindow:
    """The first window told: around the expected arrival, inside the slot."""
    return _around(at_share(estimate, rule.held_share), slot, rule.first_width_min * MINUTE_MS)


def judge(promise: Promise, estimate: Estimate, now_ms: int, rule: Rule) -> Judgement:
    """Whether the told window must move to meet this estimate.

    It must by the chance of missing it: hours ahead when that is likelier than not (`most_miss_early`), in the last
    hour much sooner (`most_miss`).
    """
    told = promise.told
    early = 0.0 if told.opens_ms <= promise.slot.opens_ms else chance_before(estimate, told.opens_ms)
    late = 1.0 - chance_before(estimate, told.closes_ms)
    is_last_call = estimate.p50_ms - now_ms <= rule.last_call_min * MINUTE_MS
    if early + late < (rule.most_miss if is_last_call else rule.most_miss_early):
        return Judgement(None, None, "fits", "the estimate lies inside the window told")
    is_late = late >= early
    is_breach = _leaves_slot(promise, estimate, now_ms, rule)
    bounds = TimeWindow(promise.slot.opens_ms, EpochMs(1 << 62)) if is_breach else promise.slot
    wanted = _around(at_share(estimate, rule.held_share), bounds, rule.moved_width_min * MINUTE_MS)
    kind: Kind = "breach" if is_breach else "moved"
    held, verdict = _held_back(promise, wanted, estimate, now_ms, rule, is_late, is_breach)
    return Judgement(wanted, kind, held, verdict)


def how_sure(promise: Promise, estimate: Estimate) -> int:
    """Percent of cases in which service begins inside the window told. A van that is early waits for the slot."""
    told = promise.told
    opens_ms = told.opens_ms if told.opens_ms > promise.slot.opens_ms else EpochMs(0)
    return inside_pct(TimeWindow(opens_ms, told.closes_ms), estimate)


def _leaves_slot(promise: Promise, estimate: Estimate, now_ms: int, rule: Rule) -> bool:
    """Whether the slot will be missed: surely (P10), or probably (P50) and so soon that the van can hardly mend it."""
    closes_ms = promise.slot.closes_ms
    is_soon = estimate.p50_ms - now_ms <= rule.breach_ahead_min * MINUTE_MS
    return estimate.p10_ms > closes_ms or (estimate.p50_ms > closes_ms and (is_soon or promise.is_breached))


def _held_back(
    promise: Promise,
    wanted: TimeWindow,
    estimate: Estimate,
    now_ms: int,
    rule: Rule,
    is_late: bool,
    is_breach: bool,
) -> tuple[Held, str]:
    told = promise.told
    gain_ms = wanted.closes_ms - told.closes_ms if is_late else told.opens_ms - wanted.opens_ms
    if is_late and not promise.is_breached and gain_ms <= 0 and told.closes_ms >= promise.slot.closes_ms:
        return "slot_ends", "held back: the window told ends with the slot, and the van may still make it"
    if gain_ms < rule.least_shift_min * MINUTE_MS:
        return "too_small", f"held back: a shift of less than {rule.least_shift_min} min is not worth a notice"
    outside_ms = max(estimate.p50_ms - told.closes_ms, told.opens_ms - estimate.p50_ms)
    is_imminent = estimate.p50_ms - now_ms < rule.imminent_min * MINUTE_MS
    if is_imminent and outside_ms < rule.least_shift_min * MINUTE_MS:
        return "imminent", (
            f"held back: the van is expected within {rule.imminent_min} min and not {rule.least_shift_min} min "
            "outside the window told"
        )
    if is_breach and not promise.is_breached:
        return "", "allowed: leaving the slot is always told, whatever was told before"
    if _is_vague(wanted, estimate, now_ms, rule):
        return "too_vague", (
            f"held back: a window of more than {rule.vague_min} min tells little, and "
            f"{rule.vague_ahead_min} min before the arrival we shall know better"
        )
    if promise.moves >= rule.most_moves:
        return (
            "too_often",
            f"held back: this customer's window has moved {promise.moves} times today, {rule.most_moves} are allowed",
        )
    rested_ms = now_ms - promise.tellings[-1].at_ms if promise.tellings else 1 << 62
    if rested_ms < rule.rest_min * MINUTE_MS and outside_ms < rule.much_different_min * MINUTE_MS:
        return "too_soon", (
            f"held back: the customer was told {rested_ms // MINUTE_MS} min ago, {rule.rest_min} min must pass "
            f"unless the arrival leaves the window by {rule.much_different_min} min"
        )
    return "", f"allowed: move {promise.moves + 1} of {rule.most_moves}"


def _is_vague(wanted: TimeWindow, estimate: Estimate, now_ms: int, rule: Rule) -> bool:
    """Whether waiting tells more than speaking: behind a lorry or just after another order hardly anything is known of
    the hours to come, and minutes later most of it is.
    """
    width_ms = wanted.closes_ms - wanted.opens_ms
    return width_ms > rule.vague_min * MINUTE_MS and estimate.p50_ms - now_ms > rule.vague_ahead_min * MINUTE_MS


def told_again(
    promise: Promise, told: TimeWindow, kind: Kind, at_ms: EpochMs, decision_id: str, why: Why = ""
) -> Promise:
    """The promise after its customer was told this window."""
    return msgspec.structs.replace(
        promise,
        told=told,
        tellings=(*promise.tellings, Telling(at_ms, told, kind, decision_id, why)),
        is_breached=promise.is_breached or kind == "breach",
        held="",
    )


def _around(estimate: Estimate, bounds: TimeWindow, width_ms: int) -> TimeWindow:
    """A window around the P50 that holds P10 and P90, in whole five minutes, pushed inside the bounds.

    Every end is a maximum or minimum of what grows with the estimate, so a later arrival never gets an earlier end.
    """
    base = _floor(estimate.p50_ms - int(BEFORE_SHARE * width_ms))
    opens = min(base, _floor(estimate.p10_ms), max(bounds.opens_ms, bounds.closes_ms - width_ms))
    closes = max(base + width_ms, _ceil(estimate.p90_ms), min(bounds.closes_ms, bounds.opens_ms + width_ms))
    return TimeWindow(EpochMs(max(opens, bounds.opens_ms)), EpochMs(min(closes, bounds.closes_ms)))


def _floor(instant_ms: int) -> int:
    return instant_ms - instant_ms % ROUND_MS


def _ceil(instant_ms: int) -> int:
    return instant_ms + -instant_ms % ROUND_MS
