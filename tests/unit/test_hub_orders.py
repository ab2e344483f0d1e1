"""What the hub's core writes down of orders says nothing personal."""

import msgspec

from cloud_hub.events import OrderCorrected, OrdersHanded
from tests.unit.hub_cases import Driven, order


def test_the_record_of_a_correction_names_the_order_and_no_address() -> None:
    hub = Driven()
    doubts = ("'Street 1': no such number; the nearest is Street 3 (0.45)",)
    hub.take(OrdersHanded((msgspec.structs.replace(order(1), state="doubtful", stop=None, doubts=doubts),)))
    hub.take(OrderCorrected(order(1), "anna"))
    (decision,) = hub.decisions()
    assert decision.sentence == "anna said where order order-1 goes."
    assert b"Street" not in msgspec.json.encode(decision)
