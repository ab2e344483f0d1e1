"""What each way to go on after a failed visit would cost, and which of them is taken.

Money decides, by one costs file: driving and the driver's time on the way there, what it makes others late, the price
of the step itself, and what follows when nobody is met again. Before money come the customer's own wish and what
cannot be mended by any visit. Pure arithmetic: the same case is always decided the same way.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from shared.costs import Costs
from shared.quantities import EpochMs, Position
from shared.work import Outcome

Step = Literal["today", "tomorrow", "locker", "return"]
"""Again today by the same van, on the next working day, into a locker, back to the sender."""

STEPS: tuple[Step, ...] = ("today", "tomorrow", "locker", "return")

DECIDING = "deciding"
"""What stands in a step's place while the roads are asked."""

FAILED = frozenset({Outcome.ATTEMPTED, Outcome.REFUSED, Outcome.DAMAGED, Outcome.PART})
"""Outcomes after which parcels are still on the van that were to stay with the customer."""

NO_VISIT_MENDS = FAILED - {Outcome.ATTEMPTED}

NEEDS_A_PERSON = frozenset({"signature", "age_check", "collection"})

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

KMH = 25.0
"""Kilometres a van drives in an hour between doors in a town, to price kilometres where only seconds are known."""

HOPE_BY_REASON = {
    "nobody answered": 1.0,
    "nowhere to stop": 0.9,
    "no valid ID": 0.8,
    "nothing was ready": 0.7,
    "no way in": 0.6,
    "not safe": 0.3,
    "closed": 0.3,
    "address not found": 0.2,
}
"""What the reason leaves of the chance that another visit succeeds, by the words the driver's page keeps. Judged, not
measured: what lay in the customer's day heals by itself, what lies in the address does not.
"""


class Locker(msgspec.Struct, frozen=True):
    """A parcel locker: what fits into one of its compartments, and how many of them are ours each day."""

    locker_id: str
    name: str
    position: Position
    most_litres: float = 60.0
    capacity: int = 10


class RedeliveryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of trying again. `most_attempts` counts all visits to one customer, the first one too.

    A retry of the same day begins at least `retry_not_before_min` after the failed visit and at `latest_hour` (local)
    at the latest. `at_home_*` are the chances that somebody is in when the van comes as told, before noon, until five,
    and after; `at_business` in a firm's hours. Who was out an hour ago is rather still out than not:
    `again_today` is what that leaves of the chance. Lockers farther than `locker_within_m` from the door are no help.
    Work is done on `working_days` (ISO: 1 is Monday).
    """

    most_attempts: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3
    retry_not_before_min: Annotated[int, msgspec.Meta(ge=0, le=720)] = 90
    latest_hour: Annotated[int, msgspec.Meta(ge=1, le=24)] = 20
    at_home_morning: Share = 0.70
    at_home_afternoon: Share = 0.65
    at_home_evening: Share = 0.80
    at_business: Share = 0.95
    again_today: Share = 0.75
    locker_within_m: Annotated[int, msgspec.Meta(ge=0, le=20_000)] = 1_500
    working_days: tuple[Annotated[int, msgspec.Meta(ge=1, le=7)], ...] = (1, 2, 3, 4, 5)


class Detour(msgspec.Struct, frozen=True):
    """What one more stop does to a van's day: service there begins at `begin_ms`, it drives `driving_s` longer and is
    home `longer_s` later. `late_min` are the minutes by which it makes others miss the windows they were told, beyond
    those they miss anyway, `breaches` the slots it breaks. `cost_s` is the evaluator's weighted seconds.
    """

    begin_ms: EpochMs
    driving_s: int
    longer_s: int
    late_min: float
    breaches: int
    cost_s: int


class Case(msgspec.Struct, frozen=True):
    """One failed visit, as the choice sees it. `attempt` counts the visits so far.

    `wish` is what the customer has said: another_day, at_the_door (who or where takes it when nobody is in), or
    nothing. A detour is absent when the step is impossible, and its reason then says why. `today_hour` and
    `next_hour` are local hours, fractions allowed.
    """

    outcome: Outcome
    reason: str
    attempt: int
    is_business: bool
    is_collection: bool
    wish: Literal["", "another_day", "at_the_door"] = ""
    today: Detour | None = None
    why_not_today: str = ""
    today_hour: float = 12.0
    next_hour: float = 12.0
    lockers: tuple[tuple[Locker, Detour], ...] = ()
    why_no_locker: str = ""


class Option(msgspec.Struct, frozen=True):
    """One way to go on: its expected money in all, or why it is impossible. `chance` is that of success, 0 to 1."""

    step: Step
    money: float
    chance: float = 1.0
    why_not: str = ""
    detour: Detour | None = None
    locker: Locker | None = None

    @property
    def is_possible(self) -> bool:
        """Whether it can be done at all."""
        return not self.why_not


def options(case: Case, rule: RedeliveryRule, costs: Costs) -> tuple[Option, ...]:
    """Every way to go on, in the order of `STEPS`, each with what it would cost; the best locker stands for all."""
    return (_today(case, rule, costs), _tomorrow(case, rule, costs), _locker(case, costs), _return(case, costs))


def choose(case: Case, found: Sequence[Option]) -> tuple[int, str]:
    """Which of the options is taken, by its place among them, and by which rule, in words."""
    place = {option.step: number for number, option in enumerate(found)}
    if case.outcome in NO_VISIT_MENDS:
        return place["return"], f"what was {_past(case.outcome)} goes back: no other visit mends that"
    if case.wish == "another_day" and found[place["tomorrow"]].is_possible:
        return place["tomorrow"], "the customer asked for another day"
    if case.wish == "at_the_door" and found[place["today"]].is_possible:
        return place["today"], "the customer has said since who or where takes it when nobody is in"
    possible = [number for number, option in enumerate(found) if option.is_possible]
    best = min(possible, key=lambda number: (found[number].money, number))
    return best, f"the least expected money of {len(possible)} that can be done"


def in_words(option: Option, currency: str, face: str = "") -> str:
    """The option as a record has it: what, how much money, and how sure. `face` is its instant as people read it."""
    what = {
        "today": f"again today{f' at about {face}' if face else ''}",
        "tomorrow": f"on another day{f', {face}' if face else ''}",
        "locker": f"into locker {option.locker.locker_id}" if option.locker is not None else "into a locker",
        "return": "back to the sender",
    }[option.step]
    if not option.is_possible:
        return f"{what}: {option.why_not}"
    sure = "" if option.chance >= 1 else f", {round(100 * option.chance)} % that somebody is met"
    way = "" if option.detour is None else f", {round(option.detour.longer_s / 60)} min more for the van"
    return f"{what}: {option.money:.2f} {currency} expected{way}{sure}"


def price_of(detour: Detour, costs: Costs) -> float:
    """The money a detour costs: the driver's time, the kilometres, and what it does to those who wait."""
    paid_h = max(detour.longer_s, detour.driving_s) / 3600
    km = detour.driving_s / 3600 * KMH
    waits = detour.late_min * costs.per_late_min + detour.breaches * costs.per_breach
    return paid_h * costs.per_driver_hour + max(0.0, km) * costs.per_km + waits


def chance_at(hour: float, is_business: bool, rule: RedeliveryRule) -> float:
    """How likely somebody is in at this local hour, told that the van comes."""
    if is_business:
        return rule.at_business
    if hour < 12:
        return rule.at_home_morning
    return rule.at_home_afternoon if hour < 17 else rule.at_home_evening


def chance_today(hour: float, case_reason: str, is_business: bool, rule: RedeliveryRule) -> float:
    """How likely another visit of the same day succeeds."""
    return chance_at(hour, is_business, rule) * rule.again_today * HOPE_BY_REASON.get(case_reason, 1.0)


def _today(case: Case, rule: RedeliveryRule, costs: Costs) -> Option:
    why_not = case.why_not_today or _why_no_visit(case, rule)
    if case.today is None or why_not:
        return Option("today", 0.0, 0.0, why_not or "the van's day has no room for it")
    chance = 1.0
    if case.wish != "at_the_door":
        chance = chance_today(case.today_hour, case.reason, case.is_business, rule)
    money = price_of(case.today, costs) + (1 - chance) * _after_failing(case, case.attempt + 1, rule, costs)
    return Option("today", money, chance, detour=case.today)


def _tomorrow(case: Case, rule: RedeliveryRule, costs: Costs) -> Option:
    why_not = _why_no_visit(case, rule)
    if why_not and case.wish != "another_day":
        return Option("tomorrow", 0.0, 0.0, why_not)
    chance = _chance_another_day(case, rule)
    money = costs.next_day + (1 - chance) * _after_failing(case, case.attempt + 1, rule, costs)
    return Option("tomorrow", money, chance)


def _locker(case: Case, costs: Costs) -> Option:
    priced = [(price_of(detour, costs) + costs.locker, k) for k, (_, detour) in enumerate(case.lockers)]
    if not priced or case.outcome in NO_VISIT_MENDS:
        return Option("locker", 0.0, 0.0, case.why_no_locker or "no locker is near enough and has room")
    money, best = min(priced)
    locker, detour = case.lockers[best]
    return Option("locker", money, detour=detour, locker=locker)


def _return(case: Case, costs: Costs) -> Option:
    """A collection has nothing to send back: giving it up costs a person's call."""
    return Option("return", costs.per_intervention if case.is_collection else costs.return_to_sender)


def _after_failing(case: Case, visits: int, rule: RedeliveryRule, costs: Costs) -> float:
    """The money still to be expected after so many failed visits: another day, or back."""
    back = _return(case, costs).money
    if visits >= rule.most_attempts:
        return back
    chance = _chance_another_day(case, rule)
    return min(back, costs.next_day + (1 - chance) * _after_failing(case, visits + 1, rule, costs))


def _chance_another_day(case: Case, rule: RedeliveryRule) -> float:
    return chance_at(case.next_hour, case.is_business, rule) * HOPE_BY_REASON.get(case.reason, 1.0)


def _why_no_visit(case: Case, rule: RedeliveryRule) -> str:
    if case.outcome in NO_VISIT_MENDS:
        return f"what was {_past(case.outcome)} is not brought again"
    if case.attempt >= rule.most_attempts:
        return f"{case.attempt} visits have failed, {rule.most_attempts} are allowed"
    return ""


def _past(outcome: Outcome) -> str:
    return {"part": "left over"}.get(outcome.value, outcome.value)
