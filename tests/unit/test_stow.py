"""What is delivered first is at hand, and what belongs together lies together."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.fleet import Order
from cloud_hub.planning import SHELVES, stowed
from shared.contracts import Plan
from shared.work import Parcel, Service, Stop
from tests.unit.hub_cases import VAN, Driven, order


def stop(number: int, *litres: float, stow: str = "", service: Service = "hand_over") -> Stop:
    sold = order(number).stop
    assert sold is not None
    parcels = tuple(Parcel(f"P{number}-{k}", litres=each, stow=stow) for k, each in enumerate(litres))
    return msgspec.structs.replace(sold, parcels=parcels, service=service)


def places(*stops: Stop, capacity: int = 600) -> list[list[str]]:
    return [[parcel.stow for parcel in each.parcels] for each in stowed(stops, capacity)]


def test_shelves_are_filled_from_the_door_in_the_order_of_the_stops() -> None:
    assert places(stop(1, 40, 40), stop(2, 15), stop(3, 60), stop(4, 30)) == [["A1", "A2"], ["A3"], ["B1"], ["B2"]]


def test_the_parcels_of_one_stop_lie_on_one_shelf() -> None:
    assert places(stop(1, 70), stop(2, 20, 20), stop(3, 50)) == [["A1"], ["B1", "B2"], ["B3"]]


def test_the_last_shelf_takes_what_is_left() -> None:
    assert places(*(stop(k, 90) for k in range(8)))[-3:] == [["F1"], ["F2"], ["F3"]]


def test_a_place_the_order_names_is_kept_and_given_to_nobody_else() -> None:
    assert places(stop(1, 10), stop(2, 10, stow="A2"), stop(3, 10)) == [["A1"], ["A2"], ["A3"]]


def test_what_is_to_be_collected_has_no_place_yet() -> None:
    assert places(stop(1, 10), stop(2, 10, service="collection")) == [["A1"], [""]]


def test_a_plan_is_pushed_with_a_place_for_every_parcel() -> None:
    hub = Driven()
    sold = [order(1), order(2)]
    orders: list[Order] = [
        msgspec.structs.replace(each, stop=stop(k, 1_000, 900)) for k, each in enumerate(sold, start=1)
    ]
    hub.plan(orders, [10.0, 11.0])
    plan = hub.documents("plans", Plan)[VAN]
    assert [[parcel.stow for parcel in each.parcels] for each in plan.stops] == [["A1", "A2"], ["B1", "B2"]]


@given(st.lists(st.lists(st.floats(0.1, 2_000), max_size=4), max_size=40), st.integers(1, 20_000))
def test_every_parcel_has_one_place_of_its_own_and_shelves_follow_the_order(
    load: list[list[float]], capacity: int
) -> None:
    found = places(*(stop(k, *litres) for k, litres in enumerate(load)), capacity=capacity)
    taken = [place for own in found for place in own]
    assert len(set(taken)) == len(taken)
    assert all(place[0] in SHELVES and int(place[1:]) > 0 for place in taken)
    assert [place[0] for place in taken] == sorted(place[0] for place in taken)
    assert all(len({place[0] for place in own}) <= 1 for own in found)
