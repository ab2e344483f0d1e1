"""What the hub's core makes of a day that is planned: its record, and the vehicles it is planned for."""

import msgspec

from cloud_hub.events import DayPlanAsked, DepotsSaid, OrdersHanded, PlanWanted, VehiclesSaid
from cloud_hub.fleet import AgentRecord, DeadLetter, StopRecord, Vehicle, why_waiting
from shared.contracts import Plan
from shared.messages import ShiftChanged, Visited
from shared.work import OrderId, Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import DAY, DEPOT, VAN, Driven, at, order, planned, vehicle, window

TOMORROW = "2026-03-04"
SHORT = msgspec.structs.replace(vehicle(), begins_ms=at(12))
AS_SET = msgspec.structs.replace(vehicle(), day=TOMORROW, begins_ms=at(32), ends_ms=at(40))


def test_the_record_of_a_plan_says_what_it_was_made_from_and_what_each_order_costs_its_own_van() -> None:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    (planned,) = (decision for decision in hub.decisions() if decision.kind == "planned")
    assert [(looked_at.name, looked_at.value) for looked_at in planned.inputs] == [("orders", "2")]
    taken = planned.alternatives[planned.chosen]
    assert (taken.what, taken.cost_s, taken.driving_s) == ("after repair", 3600, 3600)
    assert "60 min of driving" in planned.sentence
    assert planned.about == ("van-1", "order-1", "order-2")


def test_a_refused_plan_of_another_day_leaves_the_vehicles_theirs() -> None:
    hub = Driven()
    hub.take(DepotsSaid((DEPOT,)), VehiclesSaid((SHORT,)), OrdersHanded((order(1),)))
    answer = hub.take(DayPlanAsked(TOMORROW, "anna", (AS_SET,))).answers[0]
    assert (answer.is_done, answer.why_not) == (False, f"no order waits to be planned for {TOMORROW}")
    assert hub.documents("vehicles", Vehicle) == {VAN: SHORT}


def test_a_plan_of_another_day_takes_its_vehicles_along() -> None:
    hub = Driven()
    hub.plan([order(1, window(9, 34))], [10.0])
    (wanted,) = hub.take(DayPlanAsked(TOMORROW, "anna", (AS_SET,))).jobs
    assert isinstance(wanted, PlanWanted)
    assert wanted.vehicles == (AS_SET,)
    assert [stop.stop_id for stop in wanted.stops] == ["stop-1"]
    assert hub.documents("stops", StopRecord)["stop-1"].state == "waiting"


def test_a_vehicle_a_person_named_for_the_day_is_planned_as_named() -> None:
    hub = Driven()
    hub.take(DepotsSaid((DEPOT,)), VehiclesSaid((SHORT,)), OrdersHanded((order(1),)))
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna", (vehicle(),))).jobs
    assert isinstance(wanted, PlanWanted)
    assert wanted.vehicles == (SHORT,)


def test_a_vehicle_that_is_still_out_is_not_planned_for_another_day() -> None:
    hub = Driven()
    hub.plan([order(1, window(9, 34))], [10.0])
    hub.say(ShiftChanged("begun"))
    answer = hub.take(DayPlanAsked(TOMORROW, "anna", (AS_SET,))).answers[0]
    assert "no vehicle" in answer.why_not
    assert hub.documents("vehicles", Vehicle)[VAN].day == DAY


WAITS = StopRecord(StopId("stop-1"), OrderId("order-1"))
AT_THE_DEPOT, UNDER_WAY = AgentRecord(VAN), AgentRecord(VAN, shift="begun")


def test_an_order_that_waits_says_why() -> None:
    assert "next plan" in why_waiting(WAITS, window(9, 17), [(vehicle(), AT_THE_DEPOT)])
    assert "after every shift within its slot had begun" in why_waiting(WAITS, window(9, 17), [(vehicle(), UNDER_WAY)])
    assert "no vehicle" in why_waiting(WAITS, window(20, 21), [(vehicle(), AT_THE_DEPOT)])


def test_the_reason_a_plan_gave_for_leaving_an_order_out_stays() -> None:
    left_out = msgspec.structs.replace(WAITS, why_waiting="no vehicle has room for it")
    assert why_waiting(left_out, window(9, 17), [(vehicle(), AT_THE_DEPOT)]) == "no vehicle has room for it"


def test_an_order_somebody_has_does_not_wait() -> None:
    assert why_waiting(msgspec.structs.replace(WAITS, state="planned"), window(9, 17), []) == ""


def test_a_plan_that_came_after_a_van_had_left_is_asked_for_anew() -> None:
    # Simulation seed 143: what it took from the other van for this one was nobody's, and the other way round.
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    hub.real_ms = 1_000
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    pushed = hub.documents("plans", Plan)[VAN].plan_version
    hub.say(ShiftChanged("begun"))
    made = hub.take(planned(wanted, [order(1)], [12.0], VAN))
    assert hub.documents("plans", Plan)[VAN].plan_version == pushed
    assert [type(job) for job in made.jobs] == []
    assert hub.core.counts["plans_overtaken"] == 1


def test_a_stop_that_another_plan_leaves_out_waits_and_is_nobodys() -> None:
    # Simulation seed 57: planned again for fewer vans, it stayed the work of one whose plan did not have it.
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    hub.real_ms = 1_000
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    hub.take(planned(wanted, [order(1)], [12.0], VAN))
    left_out = hub.documents("stops", StopRecord)["stop-2"]
    assert (left_out.state, left_out.agent) == ("waiting", "")
    assert "no vehicle that still waits" in left_out.why_waiting


def test_a_van_that_set_out_unheard_has_done_what_a_plan_left_out_meanwhile() -> None:
    # Simulation seed 47: its visit lay dead as nobody's work, and the order waited for another van.
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    hub.real_ms = 1_000
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    hub.take(planned(wanted, [order(1)], [12.0], VAN))
    hub.take(DayPlanAsked(DAY, "anna"))
    proof = Proof((), None, at(11))
    made = hub.say(Visited(Visit(StopId("stop-2"), Outcome.DELIVERED_TO_PERSON, at(11), at(11.1), proof)))
    done = hub.documents("stops", StopRecord)["stop-2"]
    assert (done.state, done.agent, done.why_waiting, len(done.visits)) == ("done", VAN, "", 1)
    assert hub.documents("dead_letters", DeadLetter) == {}
    (again,) = made.jobs
    assert isinstance(again, PlanWanted)
    assert [stop.stop_id for stop in again.stops] == ["stop-1"]
