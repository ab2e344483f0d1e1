"""Each customer is told by a channel they agreed to, at an hour they are awake, once, and never what is stale."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.contacts import Channel, Customer, Wishes
from cloud_hub.events import (
    ClosuresAsked,
    CustomerSaid,
    ForgetAsked,
    LegTimesFound,
    LegTimesWanted,
    Notice,
    NoticeDelivered,
    NoticeFailed,
    NoticeWanted,
    OptOutSaid,
    OrdersHanded,
    Receipt,
    WindowAsked,
)
from cloud_hub.fleet import Order
from cloud_hub.mailbag import MOST_ATTEMPTS, MOST_WITH_ANOTHER
from cloud_hub.notice_rules import NoticeRule, quiet_until
from cloud_hub.promises import Promise
from shared.contracts import LegTimes
from shared.messages import Arrived, EstimatesMoved, HeadingTo, ShiftChanged, Visited
from shared.steps import Consequences, Now
from shared.work import OrderId, Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import HOUR, MIDNIGHT, MINUTE, VAN, Driven, at, clock_face, estimate, order, window

ALL_ON = NoticeRule(on=("email", "sms", "webhook"))
MAIJA = Customer("C-1", "Maija", "maija@example.fi", "+358401234567", "fi", ("email", "sms"))


def order_of(customer: Customer, number: int = 1) -> Order:
    return msgspec.structs.replace(order(number), customer_ref=customer.customer_ref)


def hub_with(customer: Customer, rule: NoticeRule = ALL_ON, hour: float = 7.5) -> tuple[Driven, Consequences]:
    """A hub that has just planned one order of this customer for ten o'clock."""
    hub = Driven(notices=rule)
    hub.hour = hour
    hub.take(OrdersHanded((order_of(customer),), (customer,)))
    return hub, hub.plan([order_of(customer)], [10.0])


def wanted(made: Consequences) -> list[NoticeWanted]:
    return [job for job in made.jobs if isinstance(job, NoticeWanted)]


def notices(hub: Driven, kind: str = "day") -> list[Notice]:
    return [notice for notice in hub.documents("notices", Notice).values() if notice.kind == kind]


def receipts(hub: Driven) -> list[Receipt]:
    return list(hub.documents("receipts", Receipt).values())


def test_the_first_window_goes_by_email_to_who_agreed_to_it_and_leaves_a_receipt() -> None:
    hub, made = hub_with(MAIJA)
    (job,) = wanted(made)
    assert (job.channel, job.customer, job.notice.kind) == ("email", MAIJA, "day")
    assert job.notice.sure_pct == 95
    hub.take(NoticeDelivered(job.need, "250 2.0.0", "Q17"))
    (notice,) = notices(hub)
    assert (notice.state, notice.channel, notice.attempts) == ("delivered", "email", 1)
    assert [(each.channel, each.is_delivered, each.provider_id) for each in receipts(hub)] == [("email", True, "Q17")]
    assert hub.rooms["notices_due"] == {}


def test_what_is_kept_of_a_notice_names_no_address() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(NoticeDelivered(wanted(made)[0].need, "250"))
    kept = b"".join(doc for room in ("notices", "receipts", "decisions") for doc in hub.rooms[room].values())
    assert b"example.fi" not in kept
    assert b"Maija" not in kept


def test_a_channel_that_refuses_for_good_hands_over_to_the_next() -> None:
    hub, made = hub_with(MAIJA)
    (second,) = wanted(hub.take(NoticeFailed(wanted(made)[0].need, "550 5.1.1", True)))
    assert second.channel == "sms"
    (third,) = wanted(hub.take(NoticeFailed(second.need, "400 Bad Request", True)))
    assert third.channel == "webhook"
    hub.take(NoticeFailed(third.need, "410 Gone", True))
    assert [notice.state for notice in notices(hub)] == ["given_up"]
    assert [(each.channel, each.answer) for each in receipts(hub)] == [
        ("email", "550 5.1.1"), ("sms", "400 Bad Request"), ("webhook", "410 Gone")
    ]  # fmt: skip


def test_a_channel_that_stays_away_is_left_after_seven_attempts_and_the_last_one_after_twelve() -> None:
    hub, made = hub_with(MAIJA, NoticeRule(on=("email", "sms")))
    channels = []
    while wanted(made) or hub.rooms["notices_due"]:
        channels += [job.channel for job in wanted(made)]
        hub.real_ms += 400_000
        made = hub.take(*(NoticeFailed(job.need, "ConnectionRefusedError", False) for job in wanted(made)))
    assert channels == ["email"] * MOST_WITH_ANOTHER + ["sms"] * MOST_ATTEMPTS
    assert [notice.state for notice in notices(hub)] == ["given_up"]


@pytest.mark.parametrize(
    ("customer", "rule", "channel"),
    [
        (MAIJA, NoticeRule(on=("sms",)), "sms"),
        (msgspec.structs.replace(MAIJA, consents=("sms",)), ALL_ON, "sms"),
        (msgspec.structs.replace(MAIJA, email=""), ALL_ON, "sms"),
        (msgspec.structs.replace(MAIJA, consents=()), ALL_ON, "webhook"),
        (msgspec.structs.replace(MAIJA, opted_out_channels=("email",)), ALL_ON, "sms"),
        (MAIJA, NoticeRule(on=("email", "sms"), order_of={"day": ("sms",)}), "sms"),
        (MAIJA, NoticeRule(on=("email", "sms"), order=("sms",), order_of={}), "sms"),
    ],
)
def test_the_first_channel_that_is_on_reaches_the_customer_and_was_agreed_to(
    customer: Customer, rule: NoticeRule, channel: Channel
) -> None:
    _, made = hub_with(customer, rule)
    assert [job.channel for job in wanted(made)] == [channel]


@pytest.mark.parametrize(
    ("customer", "rule", "state"),
    [
        (MAIJA, NoticeRule(), "kept"),
        (Customer("C-1"), NoticeRule(on=("email", "sms")), "kept"),
        (msgspec.structs.replace(MAIJA, consents=()), NoticeRule(on=("email", "sms")), "kept"),
        (msgspec.structs.replace(MAIJA, opted_out=("day",)), ALL_ON, "opted_out"),
        (msgspec.structs.replace(MAIJA, opted_out_channels=("email", "sms")), NoticeRule(on=("sms",)), "opted_out"),
    ],
)
def test_whom_nothing_reaches_or_who_wants_nothing_is_not_told(
    customer: Customer, rule: NoticeRule, state: str
) -> None:
    hub, made = hub_with(customer, rule)
    assert wanted(made) == []
    assert [notice.state for notice in notices(hub)] == [state]


def test_an_opt_out_holds_what_already_waits_and_a_later_consent_of_the_shop_does_not_undo_it() -> None:
    hub, made = hub_with(MAIJA, NoticeRule(on=("email",)))
    hub.take(OptOutSaid(OrderId("order-1"), channels=("email",)))
    hub.real_ms = 5_000
    again = hub.take(NoticeFailed(wanted(made)[0].need, "451", False))
    hub.real_ms = 50_000
    assert wanted(again) == wanted(hub.take()) == []
    assert [notice.state for notice in notices(hub)] == ["opted_out"]
    hub.take(OrdersHanded((order_of(MAIJA, 2),), (MAIJA,)))
    assert hub.documents("customers", Customer)["C-1"].opted_out_channels == ("email",)


def test_opting_out_of_everything_stops_every_kind_and_back_in_takes_it_all_back() -> None:
    hub, _ = hub_with(MAIJA)
    hub.take(OptOutSaid(OrderId("order-1")))
    assert hub.documents("customers", Customer)["C-1"].opted_out == ("day", "on_its_way", "changed", "missed")
    hub.take(OptOutSaid(OrderId("order-1"), is_out=False))
    assert hub.documents("customers", Customer)["C-1"] == MAIJA
    assert hub.take(OptOutSaid(OrderId("stranger"))).answers[0].why_not == "order 'stranger' is unknown"


# People sleep.


def test_what_is_told_in_the_evening_waits_for_the_morning() -> None:
    hub, made = hub_with(MAIJA, hour=5.25)
    assert wanted(made) == []
    (asleep,) = notices(hub)
    assert (asleep.state, asleep.not_before_ms) == ("waiting_quiet", at(7))
    hub.wake_up()
    assert wanted(hub.take()) == []
    assert hub.core.wake(hub_now(hub)).domain_ms == at(7)
    hub.hour = 7.0
    assert [job.channel for job in wanted(hub.take())] == ["email"]


def hub_now(hub: Driven) -> Now:
    return Now(at(hub.hour), hub.real_ms)


def test_a_window_that_begins_before_the_quiet_ends_is_told_at_once() -> None:
    early = msgspec.structs.replace(order_of(MAIJA), stop=None)
    first = order(1, window(6, 9)).stop
    assert first is not None
    hub = Driven(notices=ALL_ON)
    hub.hour = 5.25
    hub.take(OrdersHanded((), (MAIJA,)))
    made = hub.plan([msgspec.structs.replace(early, stop=first)], [7.0])
    assert [job.channel for job in wanted(made)] == ["email"]


def test_a_webhook_leaves_at_any_hour() -> None:
    _, made = hub_with(Customer("C-1"), hour=5.25)
    assert [job.channel for job in wanted(made)] == ["webhook"]


def test_a_newer_notice_of_the_order_makes_one_that_waits_useless() -> None:
    hub, _ = hub_with(MAIJA, hour=5.25)
    hub.take(WindowAsked(OrderId("order-1"), window(13, 14), "anna"))
    assert [notice.state for notice in notices(hub)] == ["superseded", "waiting_quiet"]
    hub.hour = 7.0
    assert [job.notice.told for job in wanted(hub.take())] == [window(13, 14)]


def test_who_has_not_heard_the_first_window_is_not_told_that_it_changed() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(NoticeFailed(wanted(made)[0].need, "451", False))
    hub.take(WindowAsked(OrderId("order-1"), window(13, 14), "anna"))
    assert [(notice.state, notice.why) for notice in notices(hub)] == [("superseded", ""), ("due", "")]
    assert notices(hub, "changed") == []


def test_a_first_window_that_fails_while_a_newer_one_waits_makes_the_newer_one_the_first() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(WindowAsked(OrderId("order-1"), window(13, 14), "anna"))
    assert [notice.kind for notice in notices(hub, "changed")] == ["changed"]
    made = hub.take(NoticeFailed(wanted(made)[0].need, "451", False))
    assert [notice.state for notice in notices(hub)] == ["superseded", "due"]
    assert [(job.notice.told, job.channel) for job in wanted(made)] == [(window(13, 14), "sms")]


def test_a_window_told_for_good_changes_by_that_name() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(NoticeDelivered(wanted(made)[0].need, "250"))
    hub.take(WindowAsked(OrderId("order-1"), window(13, 14), "anna"))
    assert [notice.why for notice in notices(hub, "changed")] == ["shop_asked"]


def test_a_notice_just_being_sent_is_left_to_its_answer_and_not_repeated_once_something_newer_is_known() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(WindowAsked(OrderId("order-1"), window(13, 14), "anna"))
    assert [notice.state for notice in notices(hub)] == ["due"]
    hub.take(NoticeFailed(wanted(made)[0].need, "451", False))
    assert [(notice.state, notice.told == window(13, 14)) for notice in notices(hub)] == [
        ("superseded", False), ("due", True)
    ]  # fmt: skip


def test_a_window_that_is_over_is_told_to_nobody() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(NoticeFailed(wanted(made)[0].need, "TimeoutError", False))
    hub.hour, hub.real_ms = 14.0, 60_000
    assert wanted(hub.take()) == []
    assert [notice.state for notice in notices(hub)] == ["given_up"]


@pytest.mark.parametrize("hour", [5.25, 7.5])
def test_who_is_forgotten_is_told_nothing_and_the_bag_goes_on_without_them(hour: float) -> None:
    hub, made = hub_with(MAIJA, hour=hour)
    hub.take(*(NoticeFailed(job.need, "451", False) for job in wanted(made)))
    assert hub.take(ForgetAsked("C-1", "anna", even_open=True)).answers[0].is_done
    assert {notice.state for notice in notices(hub)} == {"forgotten"}
    hub.hour, hub.real_ms = 8.0, 60_000
    assert wanted(hub.take()) == []
    assert hub.rooms["notices_due"] == {}
    hub.plan([order(2)], [10.0])
    assert {notice.order_id for notice in hub.documents("notices_due", Notice).values()} == {"order-2"}


def test_an_answer_that_comes_after_its_customer_was_forgotten_changes_nothing() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(ForgetAsked("C-1", "anna", even_open=True))
    hub.take(NoticeDelivered(wanted(made)[0].need, "250 maija@example.fi"))
    assert [notice.state for notice in notices(hub)] == ["forgotten"]
    assert receipts(hub) == []


def test_nothing_is_told_after_the_visit() -> None:
    hub, made = hub_with(MAIJA)
    hub.take(NoticeFailed(wanted(made)[0].need, "TimeoutError", False))
    hub.hour, hub.real_ms = 9.0, 60_000
    hub.say(ShiftChanged("begun"), HeadingTo(StopId("stop-1")), Arrived(StopId("stop-1")))
    proof = Proof((), None, at(9))
    hub.say(Visited(Visit(StopId("stop-1"), Outcome.ATTEMPTED, at(9), at(9.1), proof, "nobody home")))
    hub.take(NoticeFailed(wanted(made)[0].need, "TimeoutError", False))
    assert [notice.state for notice in notices(hub)] == ["superseded"]


@given(st.integers(0, 2 * 24 * 60 - 1), st.integers(0, 23), st.integers(0, 23))
def test_quiet_ends_at_the_first_instant_that_is_not_quiet(minute: int, begins: int, ends: int) -> None:
    rule = NoticeRule(quiet_from=f"{begins:02d}:00", quiet_to=f"{ends:02d}:00")
    now_ms = MIDNIGHT + minute * MINUTE + 17

    def face(instant_ms: int) -> str:
        return clock_face(MIDNIGHT + (instant_ms - MIDNIGHT) % (24 * HOUR))

    until_ms = quiet_until(now_ms, rule, face)
    if until_ms is not None:
        assert now_ms < until_ms <= now_ms + 24 * HOUR
        assert face(until_ms) == rule.quiet_to
        assert quiet_until(until_ms, rule, face) is None
        assert quiet_until(until_ms - 1, rule, face) == until_ms


@pytest.mark.parametrize(("day", "night_h"), [("2026-03-29", 9), ("2026-10-25", 11), ("2026-06-01", 10)])
def test_quiet_hours_end_by_the_local_clock_also_when_it_is_changed_at_night(day: str, night_h: int) -> None:
    zone = ZoneInfo("Europe/Helsinki")
    evening = datetime.fromisoformat(f"{day}T21:00").replace(tzinfo=zone) - timedelta(days=1)
    begins_ms = int(evening.timestamp() * 1000)
    until_ms = quiet_until(
        begins_ms, NoticeRule(), lambda ms: datetime.fromtimestamp(ms / 1000, zone).strftime("%H:%M")
    )
    assert until_ms is not None
    assert (until_ms - begins_ms) / HOUR == night_h


# The van is near.


def on_the_road(customer: Customer, rule: NoticeRule = ALL_ON) -> Driven:
    """A van under way with four stops, the third of them this customer's."""
    hub = Driven(notices=rule)
    orders = [order(1), order(2), order_of(customer, 3), order(4)]
    hub.take(OrdersHanded(tuple(orders), (customer,)))
    hub.plan(orders, [9.5, 9.75, 10.0, 10.25])
    hub.hour = 9.25
    hub.say(ShiftChanged("begun"))
    return hub


def moved(minutes: float) -> EstimatesMoved:
    hours = {"stop-1": 9.5, "stop-2": 9.75, "stop-3": 10.0, "stop-4": 10.25}
    return EstimatesMoved(tuple(estimate(stop, hour + minutes / 60) for stop, hour in hours.items()), "news")


def test_who_asked_is_told_once_that_the_van_is_near() -> None:
    hub = on_the_road(msgspec.structs.replace(MAIJA, wishes=Wishes(on_its_way=True)))
    hub.say(HeadingTo(StopId("stop-1")))
    assert notices(hub, "on_its_way") == []
    hub.hour = 9.51
    hub.say(moved(0))
    (near,) = notices(hub, "on_its_way")
    assert (near.order_id, near.expected_ms, near.notice_id) == ("order-3", at(10), "stop-3.on_its_way")
    hub.say(moved(1))
    hub.wake_up()
    hub.say(moved(2))
    assert len(notices(hub, "on_its_way")) == 1


@pytest.mark.parametrize(
    ("wishes", "rule", "told"),
    [
        (Wishes(), ALL_ON, []),
        (Wishes(on_its_way=True), msgspec.structs.replace(ALL_ON, on_its_way="never"), []),
        (Wishes(on_its_way=True), msgspec.structs.replace(ALL_ON, on_its_way_stops=2), []),
        (Wishes(), msgspec.structs.replace(ALL_ON, on_its_way="always"), ["order-1", "order-2", "order-3"]),
    ],
)
def test_who_is_told_that_the_van_is_near_is_a_setting(wishes: Wishes, rule: NoticeRule, told: list[str]) -> None:
    hub = on_the_road(msgspec.structs.replace(MAIJA, wishes=wishes), rule)
    hub.hour = 9.51
    hub.say(HeadingTo(StopId("stop-1")), moved(0))
    assert [notice.order_id for notice in notices(hub, "on_its_way")] == told


# Why it moved.


def test_a_window_that_moves_tells_why_by_a_code_and_nothing_else() -> None:
    hub = on_the_road(MAIJA)
    hub.say(moved(150))
    assert {notice.why for notice in notices(hub, "changed")} == {"traffic"}
    promise = hub.documents("promises", Promise)["stop-3"]
    assert promise.tellings[-1].why == "traffic"


@pytest.mark.parametrize(("hour", "why"), [(9.3, "street_closed"), (10.2, "traffic")])
def test_a_street_just_closed_is_the_reason_and_later_it_is_not(hour: float, why: str) -> None:
    hub = on_the_road(MAIJA)
    asked = hub.take(ClosuresAsked((17,), True, "Main Street", "burst pipe", "anna"))
    (roads,) = [job for job in asked.jobs if isinstance(job, LegTimesWanted)]
    places = tuple(StopId(f"stop-{k}") for k in range(1, 5))
    legs = LegTimes.from_matrix(roads.roads_version, places, (at(17),), np.full((1, 5, 5), 90))
    hub.take(LegTimesFound(roads.need, VAN, 1, legs))
    hub.hour = hour
    hub.say(moved(150))
    assert {notice.why for notice in notices(hub, "changed")} == {why}


def test_a_stop_that_took_long_is_the_reason_for_those_behind_it() -> None:
    hub = on_the_road(MAIJA)
    hub.say(HeadingTo(StopId("stop-1")), Arrived(StopId("stop-1")), said=9.3)
    hub.hour = 9.75
    hub.say(moved(150))
    assert {notice.why for notice in notices(hub, "changed")} == {"earlier_stop_took_longer"}


def test_a_van_that_comes_before_its_window_is_early() -> None:
    hub = on_the_road(MAIJA)
    hub.take(WindowAsked(OrderId("order-3"), window(14, 15), "anna"))
    assert notices(hub, "changed")[0].why == "shop_asked"
    hub.hour = 9.9
    hub.say(moved(5))
    assert notices(hub, "changed")[-1].why == "early"


# The book.


def test_what_a_customer_wished_at_this_door_holds_for_the_next_order_unless_it_says_otherwise() -> None:
    hub = Driven()
    wishes = Wishes(door_code="12C", neighbour="flat 3")
    hub.take(OrdersHanded((order_of(MAIJA),), (msgspec.structs.replace(MAIJA, wishes=wishes),)))
    again = order_of(MAIJA, 2)
    assert again.stop is not None
    assert order(1).stop is not None
    here = order(1).stop.position  # type: ignore[union-attr]  # Asserted above.
    same_door = msgspec.structs.replace(again, stop=msgspec.structs.replace(again.stop, position=here, neighbour="4"))
    elsewhere = order_of(MAIJA, 3)
    hub.take(OrdersHanded((same_door, elsewhere)))
    kept = {key: each.stop for key, each in hub.documents("orders", Order).items()}
    assert [(stop.door_code, stop.neighbour) for stop in kept.values() if stop is not None] == [
        ("12C", "flat 3"), ("12C", "4"), ("", "")
    ]  # fmt: skip


def test_what_a_row_leaves_out_stays_as_it_was_and_a_person_puts_everything() -> None:
    hub = Driven()
    hub.take(OrdersHanded((order_of(MAIJA),), (MAIJA,)))
    hub.take(OrdersHanded((), (Customer("C-1", phone="+358500000000", language="fi"),)))
    kept = hub.documents("customers", Customer)["C-1"]
    assert (kept.name, kept.phone, kept.consents) == ("Maija", "+358500000000", ("email", "sms"))
    hub.take(CustomerSaid(Customer("C-1", "M."), "anna"))
    assert hub.documents("customers", Customer)["C-1"] == Customer("C-1", "M.")


answers = st.lists(st.sampled_from(["delivered", "later", "never", "out", "night", "window", "restart"]), max_size=25)


@settings(max_examples=60, deadline=None)
@given(answers)
def test_whatever_is_answered_no_notice_is_lost_none_is_delivered_twice_and_receipts_add_up(said: list[str]) -> None:
    hub, made = hub_with(MAIJA, NoticeRule(on=("email", "sms", "webhook"), quiet_from="12:00", quiet_to="13:00"))
    running = {job.need: job for job in wanted(made)}
    asked = len(running)
    for each in said:
        hub.real_ms += 130_000
        if each == "restart":
            hub.wake_up()
            running = {}
        events: list[Any] = []
        if each in ("delivered", "later", "never") and running:
            need, _ = running.popitem()
            events = [NoticeDelivered(need, "ok") if each == "delivered" else NoticeFailed(need, "no", each == "never")]
        elif each == "out":
            events = [OptOutSaid(OrderId("order-1"), channels=("sms",))]
        elif each == "window":
            opens = 9 + 0.25 * (hub.real_ms // 130_000 % 20)
            events = [WindowAsked(OrderId("order-1"), window(opens, opens + 1), "anna")]
        hub.hour = 12.5 if each == "night" else hub.hour
        jobs = wanted(hub.take(*events))
        assert not {job.need for job in jobs} & set(running)
        running |= {job.need: job for job in jobs}
        asked += len(jobs)
    kept = hub.documents("notices", Notice)
    due = hub.documents("notices_due", Notice)
    assert {key for key, notice in kept.items() if notice.state in ("due", "waiting_quiet")} == set(due)
    assert all(kept[key] == notice for key, notice in due.items())
    delivered = [receipt.notice_id for receipt in receipts(hub) if receipt.is_delivered]
    assert sorted(delivered) == sorted(key for key, notice in kept.items() if notice.state == "delivered")
    assert len(receipts(hub)) <= asked


def test_what_a_van_that_was_away_expected_an_hour_ago_is_told_to_nobody() -> None:
    hub = on_the_road(msgspec.structs.replace(MAIJA, wishes=Wishes(on_its_way=True)))
    hub.hour = 12.0
    hub.say(moved(60), said=10.0)
    assert notices(hub, "on_its_way") + notices(hub, "changed") == []
    hub.say(moved(130), said=12.0)
    assert len(notices(hub, "changed")) > 0
