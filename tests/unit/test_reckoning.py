"""What a day came to: each figure's definition on days small enough to count on one's fingers."""

from hypothesis import given
from hypothesis import strategies as st

from shared.costs import Costs
from shared.quantities import EpochMs, TimeWindow
from shared.reckoning import (
    Interventions,
    PromiseFacts,
    VanFacts,
    compare,
    cut_pct,
    late_ms,
    next_attempt_cost,
    reckon,
    twin_interventions,
)

MIN = 60_000
NOON = 12 * 60 * MIN
ROUND_PRICES = Costs(
    per_km=1, per_driver_hour=10, per_overtime_hour=20, per_sms=0.5, per_email=0.25, per_intervention=5, per_breach=6,
    per_late_min=0.1, next_day=4, locker=2, return_to_sender=8,
)  # fmt: skip


def window(from_min: int, to_min: int) -> TimeWindow:
    return TimeWindow(EpochMs(NOON + from_min * MIN), EpochMs(NOON + to_min * MIN))


def promise(stop_id: str = "s1", served_min: int | None = None, outcome: str = "", **more: object) -> PromiseFacts:
    known = {
        "slot": window(0, 120),
        "told_first": window(0, 60),
        "told_last": window(30, 90),
        "told_by": ("email",),
        "outcome": outcome or ("delivered_to_person" if served_min is not None else ""),
    }
    served_ms = None if served_min is None else EpochMs(NOON + served_min * MIN)
    return PromiseFacts(stop_id=stop_id, served_ms=served_ms, **(known | more))  # type: ignore[arg-type] # Any of them.


def figures(*promises: PromiseFacts, at_min: int = 600, vans: tuple[VanFacts, ...] = ()):  # type: ignore[no-untyped-def]
    return reckon(promises, vans, Interventions(), ROUND_PRICES, NOON + at_min * MIN)


def test_a_window_is_kept_when_service_begins_inside_the_one_last_told() -> None:
    found = figures(promise("in", 90), promise("after", 91), promise("before", 29))
    assert (found.visits, found.windows_due, found.windows_kept) == (3, 3, 1)
    assert found.kept_pct == 33.3


def test_a_van_before_the_slot_waits_so_service_begins_with_the_slot() -> None:
    found = figures(promise("early", -20, told_last=window(0, 60)))
    assert found.windows_kept == 1


def test_lateness_counts_from_the_end_of_the_window_last_told() -> None:
    found = figures(promise("late", 97), promise("in_time", 40))
    assert found.late_min == 7.0
    assert found.cost.lateness == 0.7


def test_who_still_waits_is_late_already_and_breached_once_the_slot_is_over() -> None:
    waiting = promise("waits")
    assert figures(waiting, at_min=80).windows_due == 0
    assert figures(waiting, at_min=100).late_min == 10.0
    assert figures(waiting, at_min=100).slots_breached == 0
    assert figures(waiting, at_min=121).slots_breached == 1


def test_a_stop_called_off_is_neither_kept_nor_missed_but_its_messages_count() -> None:
    found = figures(promise("off", is_called_off=True, told_by=("email", "sms")))
    assert (found.promises, found.windows_due, found.slots_breached, found.late_min) == (0, 0, 0, 0.0)
    assert (found.messages, found.messages_extra) == (2, 1)


def test_messages_beyond_each_customers_first_are_extra() -> None:
    found = figures(promise("a", 40, told_by=("email", "email", "sms")), promise("b", 40), promise("c", 40, told_by=()))
    assert (found.messages, found.messages_extra, found.extra_per_customer) == (4, 2, 1.0)
    assert found.cost.messages == 3 * 0.25 + 0.5


def test_hours_of_overtime_are_paid_as_overtime_and_not_twice() -> None:
    van = VanFacts("van-1", metres=12_000, driving_s=3600, working_s=5 * 3600, overtime_s=3600)
    found = figures(vans=(van, VanFacts("van-2", metres=3_000)))
    assert (found.km, found.working_h, found.overtime_h) == (15.0, 5.0, 1.0)
    assert (found.cost.driving, found.cost.hours, found.cost.overtime) == (15.0, 40.0, 20.0)


def test_a_failed_attempt_costs_another_day_until_a_policy_has_chosen() -> None:
    assert next_attempt_cost(promise(served_min=40, outcome="attempted"), ROUND_PRICES) == 4
    assert next_attempt_cost(promise(served_min=40, outcome="attempted", goes_on="locker"), ROUND_PRICES) == 2
    assert next_attempt_cost(promise(served_min=40, outcome="attempted", goes_on="today"), ROUND_PRICES) == 0
    assert next_attempt_cost(promise(served_min=40, outcome="refused"), ROUND_PRICES) == 8
    assert next_attempt_cost(promise(served_min=40), ROUND_PRICES) == 0


def test_without_orchestration_people_call_about_breaches_and_book_failed_attempts_again() -> None:
    day = (promise("breach", 130), promise("failed", 40, "attempted"), promise("well", 40))
    work = twin_interventions(day, NOON + 600 * MIN)
    assert (work.calls, work.rebookings, work.total) == (1, 1, 2)
    assert reckon(day, (), work, ROUND_PRICES, NOON + 600 * MIN).cost.interventions == 10


def test_the_headline_says_losses_as_plainly_as_wins() -> None:
    ours = figures(promise("a", 40, told_by=("email", "sms")))
    twin = figures(promise("a", 95))
    better = {line.name: line.better for line in compare(ours, twin)}
    assert better["windows kept"] == "ours"
    assert better["messages"] == "twin"
    assert better["failed attempts"] == "even"
    assert compare(ours, twin)[0].spoken() == "windows kept 100 % (twin 0 %)"


def test_a_cut_of_nothing_is_no_figure() -> None:
    assert cut_pct(2, 8) == 75.0
    assert cut_pct(3, 0) is None


served = st.one_of(st.none(), st.integers(-300, 900))
promises = st.lists(
    st.builds(
        promise,
        stop_id=st.text(max_size=3),
        served_min=served,
        told_by=st.lists(st.sampled_from(["email", "sms", "webhook", "pigeon"]), max_size=4).map(tuple),
        goes_on=st.sampled_from(["", "today", "next_day", "locker", "return_to_sender"]),
        is_called_off=st.booleans(),
    ),
    max_size=8,
)


@given(promises, st.integers(-600, 1200))
def test_the_parts_of_the_cost_add_up_and_shares_stay_shares(day: list[PromiseFacts], at_min: int) -> None:
    found = figures(*day, at_min=at_min)
    cost = found.cost
    parts = (
        cost.driving, cost.hours, cost.overtime, cost.messages, cost.interventions, cost.breaches, cost.lateness,
        cost.next_attempts,
    )  # fmt: skip
    assert abs(sum(parts) - cost.total) < 0.05
    assert 0 <= found.windows_kept <= found.windows_due <= found.promises
    assert found.visits <= found.windows_due


@given(promises, st.integers(-600, 1200), st.integers(0, 600))
def test_lateness_and_breaches_never_shrink_while_the_day_goes_on(
    day: list[PromiseFacts], at_min: int, later: int
) -> None:
    before, after = NOON + at_min * MIN, NOON + (at_min + later) * MIN
    assert all(late_ms(one, before) <= late_ms(one, after) for one in day)
