"""What the hub's core writes down of orders says nothing personal."""

import re

import msgspec

from cloud_hub.chains import KeptHand
from cloud_hub.events import ClosuresAsked, OrderCorrected, OrdersHanded
from tests.unit.hub_cases import Driven, order


def test_the_record_of_a_correction_names_the_order_and_no_address() -> None:
    hub = Driven()
    doubts = ("'Street 1': no such number; the nearest is Street 3 (0.45)",)
    hub.take(OrdersHanded((msgspec.structs.replace(order(1), state="doubtful", stop=None, doubts=doubts),)))
    hub.take(OrderCorrected(order(1), "anna"))
    (decision,) = hub.decisions()
    assert re.fullmatch("person:[0-9a-f]{8} said where order order-1 goes.", decision.sentence)
    assert b"Street" not in msgspec.json.encode(decision)


def test_a_record_names_no_person_and_the_hand_beside_it_does() -> None:
    hub = Driven()
    hub.take(ClosuresAsked((17,), True, "Main Street", "Mr Berg fell off his bicycle", "anna"))
    hub.take(ClosuresAsked((18,), True, "Side Street", "", "anna"))
    hub.take(ClosuresAsked((18,), False, "Side Street", "", "bert"))
    first, second, third = hub.decisions()
    assert b"anna" not in msgspec.json.encode((first, second)).lower()
    assert b"Berg" not in msgspec.json.encode(first)
    hands = hub.documents("hands", KeptHand)
    assert (hands["hub-000001"].name, hands["hub-000001"].words) == ("anna", "Mr Berg fell off his bicycle")
    assert first.approved_by == second.approved_by == hands["hub-000001"].person
    assert third.approved_by != first.approved_by
