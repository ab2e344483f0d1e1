"""Whoever is forgotten is in no row any more, and everything that happened still adds up."""

from collections.abc import Callable, Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.chains import KeptHand
from cloud_hub.contacts import Customer, Wishes
from cloud_hub.events import ClosuresAsked, ForgetAsked, Notice, OptOutSaid, OrderCorrected, OrdersHanded
from cloud_hub.fleet import Candidate, DeadLetter, DeadPayload, Order
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.notice_rules import NoticeRule
from cloud_hub.promises import Promise
from cloud_hub.sayings import DoorCode, WishSaid
from cloud_hub.traces import SWEEP, SWEPT, Traces, sweep
from shared import wire
from shared.messages import (
    HeadingTo,
    ObjectPart,
    PersonForgotten,
    PlanPushed,
    ShiftChanged,
    Visited,
    WorkAmended,
)
from shared.quantities import EpochMs, Position
from shared.steps import LinkUp, Row
from shared.work import AgentId, OrderId, Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import VAN, Driven, at, clock_face, order

ANNA = Customer(
    "anna-ref", "Anna Virtanen", "anna@example.fi", "+358401234567", "fi", ("email", "sms"),
    wishes=Wishes("4711#", "behind the sauna", "Pekka Korhonen", "beware of the goose"),
)  # fmt: skip
SECRETS = (
    "anna-ref", "Virtanen", "anna@example", "+358401234567", "4711#", "sauna", "Korhonen", "goose", "Street 1\"",
    "24.941", "Hidden Lane", "the dog bit me", "pic-1", "9393#", "print-1\"",
)  # fmt: skip


class Remembering(Driven):
    """A driven hub whose store sweeps like the real one, and which remembers people for some days."""

    def __init__(self, keep_days: int = 0) -> None:
        self.keep_days = keep_days
        super().__init__()

    def wake_up(self) -> None:
        identity = HubIdentity(
            "main", "life", "boot", "UTC", clock_face, NoticeRule(on=("email",)), secret=b"s" * 32,
            keep_days=self.keep_days,
        )  # fmt: skip
        self.core = HubCore(identity, self.rooms)
        self.take(LinkUp())

    def commit(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.room == SWEEP:
                assert row.value is not None
                traces = msgspec.json.decode(row.value, type=Traces)
                for room in SWEPT:
                    super().commit(list(sweep(room, sorted(self.rooms.get(room, {}).items()), traces)))
            else:
                super().commit([row])

    def everything(self) -> str:
        return "\n".join(
            f"{room} {key} {doc.decode()}" for room, rows in self.rooms.items() for key, doc in rows.items()
        )

    def found(self) -> list[str]:
        text = self.everything()
        return [secret for secret in SECRETS if secret in text]


def annas(number: int) -> Order:
    """An order of hers: everything personal a stop can hold."""
    plain = order(number)
    assert plain.stop is not None
    stop = msgspec.structs.replace(plain.stop, door_code="4711#", note="beware of the goose", safe_place="the sauna")
    places = (Candidate("Hidden Lane 3", 60.1, 24.9, 0.4),)
    return msgspec.structs.replace(
        plain, stop=stop, customer_ref="anna-ref", candidates=places, place_reason="corrected by Anna Virtanen"
    )


def place_of(sold: Order) -> Position:
    assert sold.stop is not None
    return sold.stop.position


def delivered(number: int, hour: float) -> tuple[HeadingTo, Visited]:
    stop_id = StopId(f"stop-{number}")
    proof = Proof((), place_of(annas(number)), at(hour), signature="pic-1")
    visit = Visit(stop_id, Outcome.DELIVERED_TO_PERSON, at(hour), EpochMs(at(hour) + 60_000), proof, "the dog bit me")
    return HeadingTo(stop_id), Visited(visit)


def a_day(keep_days: int = 0) -> Remembering:
    """Anna's order is done, another is not; the agent never acknowledged its plan."""
    hub = Remembering(keep_days)
    doubtful = msgspec.structs.replace(annas(1), state="doubtful", stop=None, entry='{"address":"Hidden Lane"}')
    hub.take(OrdersHanded((doubtful,), (ANNA,)))
    said = msgspec.json.encode({"position": place_of(annas(1)), "by": "bert"}).decode()
    hub.take(OrderCorrected(annas(1), "bert", ("hidden lane", said)))
    hub.plan([annas(1), order(2)], [9.5, 11])
    hub.take(WishSaid(OrderId("order-1"), DoorCode("9393#")))
    hub.say(ShiftChanged("begun"), *delivered(1, 9.6))
    part = ObjectPart("pic-1", "signature", StopId("stop-1"), "image/png", 0, 1, b"png")
    hub.commit([Row("objects", "pic-1/0000", msgspec.json.encode(part))])
    letter = DeadLetter(VAN, "b", "events", 9, at(9), "why", '{"stop_id":"stop-1","reason":"the dog bit me"}')
    hub.commit([Row("dead_letters", "x", msgspec.json.encode(letter))])
    for key, said in (("x", b'{"stop_id":"stop-1","reason":"the dog bit me"}'), ("y", b'{"stop_id":"stop-2"}')):
        hub.commit([Row("dead_payloads", key, msgspec.json.encode(DeadPayload(at(9), said)))])
    hub.commit([Row("receipts", "r", b'{"order_id":"order-1","answer":"250 anna@example.fi"}')])
    return hub


def test_a_customer_is_forgotten_everywhere_and_the_figures_stay() -> None:
    hub = a_day()
    assert sorted(hub.found()) == sorted(SECRETS)
    assert "order-1" in {notice.order_id for notice in hub.documents("notices_due", Notice).values()}
    promises = hub.documents("promises", Promise)
    answer = hub.take(ForgetAsked("anna-ref", "bert")).answers[0]
    assert (answer.is_done, answer.named[1:]) == (True, ("order-1",))
    assert hub.found() == []
    assert list(hub.rooms["dead_payloads"]) == ["y"]
    assert hub.documents("promises", Promise) == promises
    assert {notice.order_id for notice in hub.documents("notices_due", Notice).values()} <= {"order-2"}
    kept = hub.documents("orders", Order)["order-1"]
    assert (kept.is_forgotten, kept.stop.slot) == (True, annas(1).stop.slot)  # type: ignore[union-attr]  # Both have.
    assert {n.state for n in hub.documents("notices", Notice).values() if n.order_id == "order-1"} == {"forgotten"}
    assert "Street 2" in hub.everything()
    assert [decision.kind for decision in hub.decisions()].count("person_forgotten") == 1


def test_what_waits_for_an_agent_that_is_away_is_rewritten_under_its_number() -> None:
    hub = a_day()
    hub.take(ForgetAsked("anna-ref", "bert"))
    waiting = [wire.decode_numbered(payload) for _, payload in sorted(hub.rooms["outbox"].items())]
    pushed = waiting[0].message
    assert isinstance(pushed, PlanPushed)
    assert [stop.address for stop in pushed.plan.stops] == ["", "Street 2"]
    assert pushed.plan.objections() == []
    assert [numbered.seq for numbered in waiting] == list(range(1, len(waiting) + 1))
    assert waiting[-1].message == PersonForgotten((StopId("stop-1"),))


def test_somebody_who_still_waits_for_a_parcel_is_not_forgotten_by_accident() -> None:
    hub = Remembering()
    hub.take(OrdersHanded((), (ANNA,)))
    hub.plan([annas(1), order(2)], [9.5, 11])
    refused = hub.take(ForgetAsked("anna-ref", "bert")).answers[0]
    assert (refused.is_done, "still to be delivered: order-1" in refused.why_not) == (False, True)
    assert "Virtanen" in hub.everything()
    assert hub.take(ForgetAsked("anna-ref", "bert", even_open=True)).answers[0].is_done
    said = [type(command) for command in hub.commands()]
    assert said.index(WorkAmended) < said.index(PersonForgotten)
    assert hub.found() == []
    assert hub.documents("orders", Order)["order-1"].state == "refused"


def test_what_a_van_says_later_of_somebody_forgotten_is_kept_without_them() -> None:
    hub = Remembering()
    hub.take(OrdersHanded((), (ANNA,)))
    hub.plan([annas(1), order(2)], [9.5, 11])
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    part = ObjectPart("0" * 64, "signature", StopId("stop-1"), "image/png", 0, 1, b"png")
    hub.say(ShiftChanged("begun"), *delivered(1, 9.6), part)  # It was under way when the word came.
    assert hub.found() == []
    hub.say(*delivered(1, 9.8), agent=AgentId("van-9"))
    assert hub.found() == []
    assert hub.rooms.get("objects", {}) == {}


def test_an_order_under_way_cannot_be_withdrawn_and_nothing_is_forgotten() -> None:
    hub = Remembering()
    hub.take(OrdersHanded((), (ANNA,)))
    hub.plan([annas(1), order(2)], [9.5, 11])
    hub.say(ShiftChanged("begun"), HeadingTo(StopId("stop-1")))
    answer = hub.take(ForgetAsked("anna-ref", "bert", even_open=True)).answers[0]
    assert (answer.is_done, "StopUnderWay" in answer.why_not) == (False, True)
    assert "Virtanen" in hub.everything()


def test_a_customer_nobody_knows_is_an_answer() -> None:
    assert not Remembering().take(ForgetAsked("nobody", "bert")).answers[0].is_done
    assert not a_day().take(ForgetAsked("", "bert")).answers[0].is_done


def test_people_are_forgotten_by_themselves_when_their_last_order_is_old_enough() -> None:
    hub = a_day(keep_days=30)
    hub.hour = 24 * 30
    hub.take()
    assert "Virtanen" in hub.everything()
    hub.hour = 24 * 32
    hub.take()
    assert hub.found() == []
    assert "30 days ago" in hub.decisions()[-1].sentence


def test_who_decided_something_long_ago_is_forgotten_and_the_record_of_it_stays() -> None:
    hub = Remembering(keep_days=30)
    hub.take(ClosuresAsked((17,), True, "Main Street", "Mr Berg fell", "anna"))
    hub.hour = 24 * 29
    hub.take(ClosuresAsked((18,), True, "Side Street", "", "bert"))
    assert [hand.name for hand in hub.documents("hands", KeptHand).values()] == ["anna", "bert"]
    hub.hour = 24 * 32
    hub.take()
    assert [hand.name for hand in hub.documents("hands", KeptHand).values()] == ["bert"]
    assert [decision.kind for decision in hub.decisions()] == ["street_closed", "street_closed"]


def test_a_hub_that_remembers_for_ever_forgets_nobody_and_wakes_for_nobody() -> None:
    hub = a_day()
    hub.hour = 24 * 9000
    hub.take()
    assert "Virtanen" in hub.everything()


def test_a_correction_somebody_else_still_needs_stays() -> None:
    hub = a_day()
    upstairs = msgspec.structs.replace(annas(7), stop=msgspec.structs.replace(annas(1).stop, stop_id=StopId("stop-7")))  # type: ignore[type-var]  # It has one.
    neighbour = msgspec.structs.replace(upstairs, customer_ref="pekka-ref")
    hub.take(OrdersHanded((neighbour,)))
    hub.take(ForgetAsked("anna-ref", "bert"))
    assert list(hub.rooms["corrections"]) == ["hidden lane"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(("forget", "sleep", "hand", "wait")), max_size=8))
def test_however_it_goes_on_nobody_forgotten_comes_back(story: list[str]) -> None:
    hub = a_day()
    steps: dict[str, Callable[[], object]] = {
        "forget": lambda: hub.take(ForgetAsked("anna-ref", "bert")),
        "sleep": hub.wake_up,
        "hand": lambda: hub.take(OrdersHanded((order(5),))),
        "wait": hub.take,
    }
    hub.take(ForgetAsked("anna-ref", "bert"))
    for step in story:
        steps[step]()
    hub.wake_up()
    assert hub.found() == []


def test_who_was_forgotten_is_not_remembered_again_by_a_link_that_was_kept() -> None:
    hub = a_day()
    hub.take(ForgetAsked("anna-ref", "bert"))
    assert not hub.take(WishSaid(OrderId("order-1"), DoorCode("9393#"))).answers[0].is_done
    assert not hub.take(OptOutSaid(OrderId("order-1"))).answers[0].is_done
    assert (hub.found(), hub.rooms.get("customers", {})) == ([], {})
