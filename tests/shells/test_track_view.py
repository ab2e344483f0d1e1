"""What the tracking page is made from, read from a real store that holds what the core has decided."""

from pathlib import Path

import pytest

from cloud_hub.events import OrdersHanded
from cloud_hub.fleet import Order
from cloud_hub.sayings import DoorCode, Neighbour, SafePlace, Wish, WishSaid
from cloud_hub.storage.embedded import EmbeddedStore, EmbeddedTelemetry
from cloud_hub.undone import PATIENCE_MS
from cloud_hub.web.picture import Picture
from cloud_hub.web.track.view import View, still_holds, view
from shared.messages import AmendmentTaken, HeadingTo, ShiftChanged, WorkAmended
from shared.steps import Row
from shared.work import OrderId, StopId
from tests.unit.hub_cases import HOUR, Driven, at, order, window

ONE = StopId("stop-1")


def shown(hub: Driven, folder: Path) -> View:
    """The first order's page, from a store with the hub's rows in it."""
    store, telemetry = EmbeddedStore(folder / "hub.db"), EmbeddedTelemetry(folder / "telemetry.db")
    rooms = ("orders", "stops", "promises", "agents", "said_wishes", "estimates", "customers")
    store.commit([Row(room, key, doc) for room in rooms for key, doc in hub.rooms.get(room, {}).items()])
    return view(Picture(store, telemetry), OrderId("order-1"), at(hub.hour))


def a_day() -> Driven:
    hub = Driven()
    hub.take(OrdersHanded((order(1),)))
    hub.plan([order(1)], [10.0])
    hub.hour = 9.0
    hub.say(ShiftChanged("begun"))
    return hub


def test_who_was_never_reached_sees_that_and_the_other_day(tmp_path: Path) -> None:
    hub = a_day()
    hub.hour = 16.5
    hub.say(ShiftChanged("ended"))
    hub.hour += PATIENCE_MS / HOUR
    hub.take()
    page = shown(hub, tmp_path)
    assert (page.phase, page.window, page.is_open) == ("waiting", window(24 + 9, 24 + 17), True)
    assert [attempt.outcome for attempt in page.earlier] == ["not_reached"]


@pytest.mark.parametrize("wish", [SafePlace("shed"), Neighbour("Aino"), DoorCode("12")])
def test_a_word_for_the_door_the_van_did_not_take_holds_no_longer(wish: Wish, tmp_path: Path) -> None:
    hub = a_day()
    hub.take(WishSaid(OrderId("order-1"), wish))
    (change,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    (said,) = shown(hub, tmp_path).said
    visit = hub.documents("orders", Order)["order-1"].stop_named(ONE)
    assert still_holds(said, visit)
    hub.say(HeadingTo(ONE), AmendmentTaken(change.plan_version, (), ((ONE, "under way"),), (ONE,)))
    assert not still_holds(said, hub.documents("orders", Order)["order-1"].stop_named(ONE))
