"""Whoever had a stop once may still have its address on its disk: each of them hears that its person is forgotten."""

import msgspec

from cloud_hub.contacts import Customer
from cloud_hub.events import ForgetAsked, OptOutSaid, OrdersHanded, VehiclesSaid
from cloud_hub.fleet import StopRecord
from cloud_hub.sayings import OtherDay, WishSaid
from shared.messages import AmendmentTaken, PersonForgotten, ShiftChanged
from shared.work import AgentId, OrderId, StopId
from tests.unit.hub_cases import at, order, vehicle, window
from tests.unit.test_forgetting import ANNA, Remembering, annas

ONE = StopId("stop-1")
TOMORROW = window(24 + 9, 24 + 17)


def told_to_forget(hub: Remembering) -> list[PersonForgotten]:
    return [command for command in hub.commands() if isinstance(command, PersonForgotten)]


def withdrawn_for_another_day() -> Remembering:
    """Anna's stop was planned; she asked for tomorrow, and the van says that it leaves it out."""
    hub = Remembering()
    hub.take(OrdersHanded((), (ANNA,)))
    hub.plan([annas(1), order(2)], [9.5, 11])
    hub.take(WishSaid(OrderId("order-1"), OtherDay("2026-03-04", TOMORROW)))
    hub.say(ShiftChanged("begun"), AmendmentTaken(1, (ONE,), (), (StopId("stop-2"),)))
    return hub


def test_a_van_that_left_a_stop_out_forgets_who_was_there() -> None:
    hub = withdrawn_for_another_day()
    assert hub.take(ForgetAsked("anna-ref", "bert", even_open=True)).answers[0].is_done
    assert told_to_forget(hub) == [PersonForgotten((ONE,))]


def test_it_forgets_although_the_hub_has_slept_and_the_shop_has_said_the_order_anew() -> None:
    hub = withdrawn_for_another_day()
    hub.take(OrdersHanded((annas(1),)))
    hub.wake_up()
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    assert told_to_forget(hub) == [PersonForgotten((ONE,))]


def test_both_vans_forget_when_the_day_was_planned_twice() -> None:
    hub, other = Remembering(), AgentId("van-2")
    hub.take(OrdersHanded((), (ANNA,)))
    hub.plan([annas(1), order(2)], [9.5, 11])
    hub.plan([annas(1)], [10], other)
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    assert told_to_forget(hub) == [PersonForgotten((ONE,))] * 2


def test_what_a_van_left_undone_yesterday_it_forgets_today() -> None:
    hub = Remembering()
    hub.take(OrdersHanded((), (ANNA,)))
    hub.plan([annas(1)], [9.5])
    hub.hour = 24 + 7
    tomorrow = msgspec.structs.replace(vehicle(), day="2026-03-04", begins_ms=at(24 + 8), ends_ms=at(24 + 16))
    hub.take(VehiclesSaid((tomorrow,)))
    assert hub.documents("stops", StopRecord)["stop-1.2"].agent == ""
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    assert told_to_forget(hub) == [PersonForgotten((ONE, StopId("stop-1.2")))]


def test_a_visit_that_was_called_off_is_forgotten_too() -> None:
    again = msgspec.structs.replace(annas(1).stop, stop_id=StopId("stop-1.2"))  # type: ignore[type-var]  # It has one.
    called_off = annas(1).with_stop(again).without_stop(again.stop_id)
    assert (called_off.amended, called_off.visits) == ((), (ONE, StopId("stop-1.2")))


def test_a_file_handed_in_again_does_not_bring_back_who_was_forgotten() -> None:
    hub = withdrawn_for_another_day()
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    ((refused, why),) = hub.take(OrdersHanded((annas(1),), (ANNA,))).answers[0].refused
    assert (refused, "forgotten" in why) == ("order-1", True)
    assert hub.found() == []


def test_who_was_forgotten_may_order_anew() -> None:
    hub = withdrawn_for_another_day()
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    assert hub.take(OrdersHanded((annas(1), annas(7)), (ANNA,))).answers[0].named == ("order-7",)
    assert hub.documents("customers", Customer)["anna-ref"] == ANNA


def test_a_link_of_somebody_forgotten_stops_nothing_and_makes_no_customer() -> None:
    hub = withdrawn_for_another_day()
    hub.take(ForgetAsked("anna-ref", "bert", even_open=True))
    assert not hub.take(OptOutSaid(OrderId("order-1"))).answers[0].is_done
    assert hub.documents("customers", Customer) == {}
