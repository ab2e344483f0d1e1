"""A customer's number and an order's number come from different drawers: the same one names two people."""

import msgspec

from cloud_hub.contacts import Customer
from cloud_hub.events import OrdersHanded
from cloud_hub.fleet import Order
from shared.work import OrderId, StopId
from tests.unit.hub_cases import Driven, order

ANNA = Customer("1001", "Anna Virtanen", "anna@example.fi", consents=("email",))
BERTTA = Customer("1001", "Bertta Ahola", "bertta@example.fi", consents=("email",))


def annas(number: int = 1) -> Order:
    """An order that names its customer."""
    return msgspec.structs.replace(order(number), customer_ref="1001")


def guests(reference: str = "") -> Order:
    """Bertta's: an order whose own number is the number of Anna."""
    plain = order(2)
    assert plain.stop is not None
    stop = msgspec.structs.replace(plain.stop, order_id=OrderId("1001"), stop_id=StopId("stop-1001"))
    return msgspec.structs.replace(plain, order_id=OrderId("1001"), stop=stop, customer_ref=reference)


def known(hub: Driven) -> Customer:
    (customer,) = hub.documents("customers", Customer).values()
    assert isinstance(customer, Customer)
    return customer


def test_an_order_without_a_customer_does_not_become_that_of_a_namesake() -> None:
    hub = Driven()
    hub.take(OrdersHanded((annas(),), (ANNA,)))
    for reference in ("", "1001"):
        ((refused, why),) = hub.take(OrdersHanded((guests(reference),), (BERTTA,))).answers[0].refused
        assert (refused, "customer" in why) == ("1001", True)
    assert known(hub) == ANNA


def test_nor_does_a_customer_take_over_the_order_of_one() -> None:
    hub = Driven()
    hub.take(OrdersHanded((guests(),), (BERTTA,)))
    ((refused, _),) = hub.take(OrdersHanded((annas(),), (ANNA,))).answers[0].refused
    assert (refused, known(hub)) == ("order-1", BERTTA)


def test_handed_in_together_the_order_that_names_its_customer_is_taken() -> None:
    hub = Driven()
    answer = hub.take(OrdersHanded((guests(), annas(), order(3)), (BERTTA, ANNA))).answers[0]
    assert (answer.named, [refused for refused, _ in answer.refused]) == (("order-1", "order-3"), ["1001"])
    assert hub.documents("customers", Customer) == {}


def test_a_guest_may_say_more_of_the_same_order() -> None:
    hub = Driven()
    hub.take(OrdersHanded((guests(),), ()))
    assert hub.take(OrdersHanded((guests(),), (BERTTA,))).answers[0].named == ("1001",)
    assert known(hub) == BERTTA
