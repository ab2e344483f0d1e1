"""What the hub's core makes of a day that is planned: its record, and the vehicles it is planned for."""

from tests.unit.hub_cases import Driven, order


def test_the_record_of_a_plan_says_what_it_was_made_from_and_what_each_order_costs_its_own_van() -> None:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    (planned,) = (decision for decision in hub.decisions() if decision.kind == "planned")
    assert [(looked_at.name, looked_at.value) for looked_at in planned.inputs] == [("orders", "2")]
    taken = planned.alternatives[planned.chosen]
    assert (taken.what, taken.cost_s, taken.driving_s) == ("after repair", 3600, 3600)
    assert "60 min of driving" in planned.sentence
    assert planned.about == ("van-1", "order-1", "order-2")
