"""A failed visit on real streets, and over the real wire with the hub killed in the middle."""

from pathlib import Path

import msgspec

from cloud_hub.events import DayPlanAsked, DepotsSaid, OrdersHanded, Planned, VehiclesSaid
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.jobs import Jobs
from cloud_hub.nextstep import Locker
from cloud_hub.roads import Roads
from cloud_hub.solver import Solver
from deploy.stack import Stack
from edge_agent.amending import amend
from edge_agent.assignment import Assignment
from shared.citymap import shipped_city
from shared.contracts import Plan
from shared.messages import AmendmentTaken, HeadingTo, ShiftChanged, Visited, WorkAmended
from shared.quantities import EpochMs, Position, Seconds, metres_between
from shared.steps import Consequences
from shared.work import OrderId, Outcome, Parcel, Proof, Stop, StopId, Visit
from tests.shells.hub_parts import HubProcess, StandInAgent, some_orders, start_broker
from tests.unit.hub_cases import DAY, DEPOT, MINUTE, VAN, Driven, at, vehicle, window

ROADS = Roads(shipped_city())
DOORS = [address.position for address in ROADS.city.addresses[40::60]][:12]


class Town:
    """A hub's core whose jobs are done at once, on the streets of the shipped city."""

    def __init__(self, lockers: tuple[Locker, ...] = ()) -> None:
        self.hub = Driven(lockers=lockers)
        self.solver = Solver(0.2)
        self._jobs = Jobs(ROADS, self.solver, lambda _: None)
        self.amended: list[WorkAmended] = []

    def take(self, *events: object) -> None:
        """One step, and those that follow from the answers of its jobs."""
        self._follow(self.hub.take(*events))

    def say(self, *events: object) -> None:
        """What the van says, and what follows from it."""
        self.take(*(self.hub.spoken(event) for event in events))  # type: ignore[arg-type]  # Events of agents.

    def _follow(self, made: Consequences) -> None:
        self.amended += [command for command in self.hub.commands() if isinstance(command, WorkAmended)]
        for job in made.jobs:
            answer = self._jobs.do(job)
            if isinstance(answer, Planned):
                assert answer.unserved == ()
            self._follow(self.hub.take(answer))

    @property
    def plan(self) -> Plan:
        """The plan as the hub keeps it."""
        found = self.hub.documents("plans", Plan)[VAN]
        assert isinstance(found, Plan)
        assert found.objections() == []
        return found


def order_at(number: int, position: Position) -> Order:
    """The last of them are expected late in the day, so that the van has time between."""
    slot = window(15, 16.3) if number >= 10 else window(9, 16)
    stop = Stop(
        StopId(f"stop-{number:02d}"), OrderId(f"order-{number:02d}"), "Somewhere", position, slot, slot, Seconds(240),
        (Parcel(f"P{number}", litres=20),),
    )  # fmt: skip
    return Order(stop.order_id, "accepted", at(6), "", f"print-{number}", stop)


def town(lockers: tuple[Locker, ...] = ()) -> Town:
    """A town with one van that has met nobody at its first door."""
    made = Town(lockers)
    orders = tuple(order_at(number, position) for number, position in enumerate(DOORS))
    made.take(DepotsSaid((DEPOT,)), VehiclesSaid((vehicle(),)), OrdersHanded(orders))
    made.take(DayPlanAsked(DAY, "anna"))
    made.solver.kill()
    made.hub.hour = 9.1
    first = made.plan.stops[0].stop_id
    proof = Proof((), None, at(9.1))
    visit = Visit(first, Outcome.ATTEMPTED, at(9.1), EpochMs(at(9.1) + 3 * MINUTE), proof, "nobody")
    made.say(ShiftChanged("begun"), HeadingTo(first), Visited(visit))
    return made


def test_a_retry_on_real_streets_is_taken_by_a_real_agent() -> None:
    made = town()
    failed = made.plan.stops[0]
    assert made.hub.documents("stops", StopRecord)[failed.stop_id].next_step == "today"
    decision = next(one for one in made.hub.decisions() if one.kind == "redelivery")
    assert 0 <= decision.alternatives[0].driving_s < 1_800
    (command,) = made.amended
    (stop,) = command.stops
    assert stop.position == failed.position
    assert [parcel.stow for parcel in stop.parcels] == [parcel.stow for parcel in failed.parcels]
    taken = amend(_work_of(made), command, None, {failed.stop_id})
    assert (taken.refused, taken.added) == ((), (stop.stop_id,))


def test_a_locker_on_real_streets_is_asked_priced_and_taken_by_a_real_agent() -> None:
    probe = town().plan.stops[0]
    kiosk = Locker("kiosk", "Kiosk", _doors_near(probe.position))
    made = town((kiosk,))
    failed = made.plan.stops[0]
    record = made.hub.documents("stops", StopRecord)[failed.stop_id]
    decision = next(one for one in made.hub.decisions() if one.kind == "redelivery")
    assert decision.alternatives[2].what.startswith("into locker kiosk: ")
    assert record.next_step == "locker"
    (command,) = made.amended
    assert command.legs is not None
    row = command.legs.places.index(StopId(f"{failed.stop_id}.2")) + 1
    own = command.legs.places.index(failed.stop_id) + 1
    assert 0 < command.legs.matrix()[:, own, row].max() < 900
    taken = amend(_work_of(made), command, None, {failed.stop_id})
    assert (taken.refused, taken.added) == ((), (f"{failed.stop_id}.2",))


def _doors_near(position: Position) -> Position:
    """An address some hundred metres away."""
    return next(
        address.position for address in ROADS.city.addresses if 150 < metres_between(address.position, position) < 400
    )


def _work_of(made: Town) -> Assignment:
    """The work as the van has it: the plan that was pushed."""
    pushed = made.hub.rooms["plan_history"][f"{VAN}/{DAY}/000001"]
    return Assignment(msgspec.json.decode(pushed, type=Plan))


def test_a_hub_killed_with_a_failed_visit_on_its_way_still_sends_the_van_again(tmp_path: Path) -> None:
    with Stack(tmp_path / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), tmp_path)
        lockers = '[[lockers]]\nid = "kiosk"\nname = "Kiosk"\nposition = [60.1655, 24.9395]\n'
        hub.settings.write_text(hub.settings.read_text() + lockers)
        hub.kill()
        hub.start_again()
        hub.plan_day(some_orders(6))
        with StandInAgent(hub) as van:
            first = van.wait_plan().stops[0].stop_id
            now_ms = EpochMs(hub.clock.now_ms())
            visit = Visit(first, Outcome.ATTEMPTED, now_ms, now_ms, Proof((), None, now_ms), "nobody")
            van.say(ShiftChanged("begun"), HeadingTo(first), Visited(visit))
            hub.kill()
            hub.start_again()
            van.wait(lambda: van.of(WorkAmended) != [], "the amendment has come")
            (command,) = van.of(WorkAmended)
            (stop,) = command.stops
            van.say(AmendmentTaken(1, (stop.stop_id,), (), (stop.stop_id,)))
            van.wait_acked()
        story = hub.get(f"/api/orders/{stop.order_id}/why")
        assert [one["kind"] for one in story["decisions"]].count("redelivery") == 1
