"""What a day came to: windows kept, lateness, messages, kilometres, people's work and money, by the same sums for all.

The hub, the twin and the bench hand in plain facts and get the same figures back, so that two days can be held
beside each other. A day under way is reckoned up to an instant: what is already missed counts, what may still be met
does not.

Three sentences decide what the figures mean. *Service begins* when the van is there, though never before the slot
opens: an early van waits. A *window is kept* when service begins inside the window last told before it. A person's
work counts as an *intervention* when somebody had to touch something: see `Interventions`.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec

from shared.costs import Costs
from shared.quantities import EpochMs, TimeWindow
from shared.work import Outcome

MINUTE_MS = 60_000

GoesOn = Literal["", "today", "next_day", "locker", "return_to_sender"]
"""How work goes on after a failed attempt; "" when nobody has said: then it costs another day."""

NO_ATTEMPT_MENDS = frozenset({Outcome.REFUSED, Outcome.DAMAGED})
"""Outcomes after which the parcel goes back, whoever planned the day."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class PromiseFacts(msgspec.Struct, frozen=True):
    """What became of one promise: one stop of one day, with the windows its customer was told.

    `told_first` and `told_last` are the first and the last window told before the visit. `served_ms` is when the van
    was there, None while it has not been; `outcome` is a `shared.work.Outcome` value, "" so long. `told_by` is the
    channel (email, sms, webhook) of every message this customer got, the day's first one first. `is_called_off` when
    the customer or a policy took the stop out of the day: then it can be neither kept nor missed, and messages alone
    count.
    """

    stop_id: str
    slot: TimeWindow
    told_first: TimeWindow
    told_last: TimeWindow
    served_ms: EpochMs | None = None
    outcome: str = ""
    told_by: tuple[str, ...] = ()
    goes_on: GoesOn = ""
    is_called_off: bool = False

    @property
    def begins_ms(self) -> EpochMs | None:
        """When service began: on arrival, though not before the slot opens. None while nobody has been there."""
        return None if self.served_ms is None else EpochMs(max(self.served_ms, self.slot.opens_ms))


class VanFacts(msgspec.Struct, frozen=True):
    """What one van's day took so far: metres driven, seconds its wheels turned, seconds from leaving to coming home or
    until now, and how many of those lie after the end of the shift.
    """

    agent: str
    metres: float = 0.0
    driving_s: float = 0.0
    working_s: float = 0.0
    overtime_s: float = 0.0


class Interventions(msgspec.Struct, frozen=True):
    """How often a person had to do something.

    Of the system: `approvals` are decisions a person approved, refused or took over, `corrections` doubtful orders a
    person put right, `windows_by_hand` windows a person told. Of a day without it: `calls` are slots missed about which
    somebody telephones, `rebookings` failed attempts that somebody books again (`twin_interventions`). Customers who
    call by themselves, and drivers who answer their page, count for neither.
    """

    approvals: Count = 0
    corrections: Count = 0
    windows_by_hand: Count = 0
    calls: Count = 0
    rebookings: Count = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.approvals + self.corrections + self.windows_by_hand + self.calls + self.rebookings


class CostSplit(msgspec.Struct, frozen=True):
    """What the day cost, in `DayFigures.currency`, by where the money went."""

    driving: float
    hours: float
    overtime: float
    messages: float
    interventions: float
    breaches: float
    lateness: float
    next_attempts: float
    total: float


class DayFigures(msgspec.Struct, frozen=True):
    """One day in numbers, up to `at_ms`.

    - `promises`: stops promised to customers and not called off; `visits` those the van has been at.
    - `windows_due`: promises that were visited, or whose told window ended before `at_ms` unvisited; `windows_kept`
      those whose service began inside the window last told; `kept_pct` kept of due, None while none is due.
    - `slots_breached`: promises whose service began after the end of the slot, or whose slot ended unvisited.
    - `late_min`: minutes from the end of the window last told to the beginning of service, or to `at_ms` while the
      customer still waits; added up over all promises.
    - `messages`: everything told to customers; `messages_extra` those beyond each customer's first of the day;
      `extra_per_customer` these per promise that was told anything.
    - `failed_attempts`: visits at which nobody took the parcels (outcome `attempted`).
    - `km`, `driving_h`, `working_h`, `overtime_h`: all vans together; overtime is part of the working hours.
    - `driven_until_ms`: the instant up to which kilometres and driving are known; telemetry comes in batches.
    - `interventions`: people's work (`Interventions`), and `interventions_by` its kinds.
    - `assumptions`: what was assumed rather than counted, in sentences to be shown beside the figures.
    """

    at_ms: EpochMs
    promises: int
    visits: int
    windows_due: int
    windows_kept: int
    kept_pct: float | None
    slots_breached: int
    late_min: float
    messages: int
    messages_extra: int
    extra_per_customer: float
    failed_attempts: int
    km: float
    driving_h: float
    working_h: float
    overtime_h: float
    interventions: int
    interventions_by: Interventions
    cost: CostSplit
    currency: str
    driven_until_ms: EpochMs
    assumptions: tuple[str, ...] = ()


TWIN_ASSUMPTIONS = (
    "each missed slot costs somebody a telephone call",
    "each failed attempt is booked again by hand and costs another day",
    "one e-mail tells each customer the day's window; nobody hears of a change",
)
"""What the figures of a day without orchestration take for granted."""


def reckon(
    promises: Iterable[PromiseFacts],
    vans: Iterable[VanFacts],
    interventions: Interventions,
    costs: Costs,
    at_ms: int,
    assumptions: tuple[str, ...] = (),
    driven_until_ms: int | None = None,
) -> DayFigures:
    """The figures of a day up to `at_ms` (epoch ms). Promises may come in any order; the sums do not depend on it.

    `driven_until_ms` says how far the vans' metres are known, `at_ms` when absent.
    """
    known = sorted(promises, key=lambda facts: facts.stop_id)
    facts = [one for one in known if not one.is_called_off]
    drives = sorted(vans, key=lambda van: van.agent)
    due = [one for one in facts if one.begins_ms is not None or one.told_last.closes_ms < at_ms]
    kept = sum(1 for one in due if one.begins_ms is not None and one.told_last.holds(one.begins_ms))
    messages = sum(len(one.told_by) for one in known)
    told = sum(1 for one in known if one.told_by)
    split = _split(known, drives, interventions, costs, at_ms)
    return DayFigures(
        at_ms=EpochMs(at_ms),
        promises=len(facts),
        visits=sum(1 for one in facts if one.served_ms is not None),
        windows_due=len(due),
        windows_kept=kept,
        kept_pct=round(100 * kept / len(due), 1) if due else None,
        slots_breached=sum(1 for one in facts if is_breached(one, at_ms)),
        late_min=round(sum(late_ms(one, at_ms) for one in facts) / MINUTE_MS, 1),
        messages=messages,
        messages_extra=messages - told,
        extra_per_customer=round((messages - told) / told, 3) if told else 0.0,
        failed_attempts=sum(1 for one in known if one.outcome == Outcome.ATTEMPTED),
        km=round(sum(van.metres for van in drives) / 1000, 1),
        driving_h=round(sum(van.driving_s for van in drives) / 3600, 2),
        working_h=round(sum(van.working_s for van in drives) / 3600, 2),
        overtime_h=round(sum(van.overtime_s for van in drives) / 3600, 2),
        interventions=interventions.total,
        interventions_by=interventions,
        cost=split,
        currency=costs.currency,
        driven_until_ms=EpochMs(at_ms if driven_until_ms is None else driven_until_ms),
        assumptions=assumptions,
    )


def is_breached(facts: PromiseFacts, at_ms: int) -> bool:
    """Whether the slot is missed: service began after its end, or it has ended and nobody has been there."""
    begins_ms = facts.begins_ms
    return not facts.is_called_off and (at_ms if begins_ms is None else begins_ms) > facts.slot.closes_ms


def late_ms(facts: PromiseFacts, at_ms: int) -> int:
    """Milliseconds after the end of the window last told: of service, or of a wait that is not over."""
    if facts.is_called_off:
        return 0
    begins_ms = facts.begins_ms
    return max(0, (at_ms if begins_ms is None else begins_ms) - facts.told_last.closes_ms)


def twin_interventions(promises: Iterable[PromiseFacts], at_ms: int) -> Interventions:
    """The work people have with a day nobody orchestrates: a call for each missed slot, a booking for each failed
    attempt. An assumption: print `TWIN_ASSUMPTIONS` beside it.
    """
    facts = list(promises)
    return Interventions(
        calls=sum(1 for one in facts if is_breached(one, at_ms)),
        rebookings=sum(1 for one in facts if one.outcome == Outcome.ATTEMPTED),
    )


class Line(msgspec.Struct, frozen=True):
    """One figure of two days side by side. `better` is "ours", "twin" or "even"."""

    name: str
    ours: float | None
    twin: float | None
    unit: str
    better: Literal["ours", "twin", "even"]

    def spoken(self) -> str:
        """As people read it: "windows kept 96.2 % (twin 81.0 %)"."""
        return f"{self.name} {told(self.ours, self.unit)} (twin {told(self.twin, self.unit)})"


def compare(ours: DayFigures, twin: DayFigures) -> tuple[Line, ...]:
    """The headline: each key figure of both days, and which day did better. Losses stand in it like wins."""
    rows: Sequence[tuple[str, float | None, float | None, str, bool]] = (
        ("windows kept", ours.kept_pct, twin.kept_pct, "%", True),
        ("slots breached", ours.slots_breached, twin.slots_breached, "", False),
        ("minutes late", ours.late_min, twin.late_min, "min", False),
        ("messages", ours.messages, twin.messages, "", False),
        ("driven", ours.km, twin.km, "km", False),
        ("failed attempts", ours.failed_attempts, twin.failed_attempts, "", False),
        ("people's interventions", ours.interventions, twin.interventions, "", False),
        ("cost", ours.cost.total, twin.cost.total, ours.currency, False),
    )
    return tuple(Line(name, a, b, unit, _better(a, b, is_more_better)) for name, a, b, unit, is_more_better in rows)


def cut_pct(ours: float, twin: float) -> float | None:
    """By how many per cent the twin's figure is cut; negative when ours is higher, None when the twin's is 0."""
    return round(100 * (twin - ours) / twin, 1) if twin else None


def told(figure: float | None, unit: str) -> str:
    """A figure with its unit as people read it; "-" while there is none."""
    if figure is None:
        return "-"
    words = f"{figure:,.0f}" if float(figure).is_integer() or abs(figure) >= 1000 else f"{figure:,.1f}"
    return f"{words} {unit}".strip()


def _split(
    facts: Sequence[PromiseFacts],
    vans: Sequence[VanFacts],
    interventions: Interventions,
    costs: Costs,
    at_ms: int,
) -> CostSplit:
    prices = {"sms": costs.per_sms, "email": costs.per_email}
    overtime_h = sum(van.overtime_s for van in vans) / 3600
    parts = {
        "driving": costs.per_km * sum(van.metres for van in vans) / 1000,
        "hours": costs.per_driver_hour * (sum(van.working_s for van in vans) / 3600 - overtime_h),
        "overtime": costs.per_overtime_hour * overtime_h,
        "messages": sum(prices.get(channel, 0.0) for one in facts for channel in one.told_by),
        "interventions": costs.per_intervention * interventions.total,
        "breaches": costs.per_breach * sum(1 for one in facts if is_breached(one, at_ms)),
        "lateness": costs.per_late_min * sum(late_ms(one, at_ms) for one in facts) / MINUTE_MS,
        "next_attempts": sum(next_attempt_cost(one, costs) for one in facts),
    }
    rounded = {name: round(cost, 2) for name, cost in parts.items()}
    return CostSplit(**rounded, total=round(sum(parts.values()), 2))


def next_attempt_cost(facts: PromiseFacts, costs: Costs) -> float:
    """What goes on after this visit costs, above the driving and time of it: by the policy's choice when there is one,
    another day when nobody has chosen; a parcel refused or damaged goes back to its sender; one missing from the load
    comes another day.
    """
    prices = {"today": 0.0, "next_day": costs.next_day, "locker": costs.locker,
              "return_to_sender": costs.return_to_sender}  # fmt: skip
    if facts.goes_on:
        return prices[facts.goes_on]
    if facts.outcome in NO_ATTEMPT_MENDS:
        return costs.return_to_sender
    return costs.next_day if facts.outcome in (Outcome.ATTEMPTED, Outcome.MISSING_FROM_LOAD) else 0.0


def _better(ours: float | None, twin: float | None, is_more_better: bool) -> Literal["ours", "twin", "even"]:
    if ours is None or twin is None or ours == twin:
        return "even"
    return "ours" if (ours > twin) == is_more_better else "twin"
