"""What the tracking page is made from, read from a real store that holds what the core has decided."""

from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cloud_hub.events import AmendedLegTimesWanted, LockerLegTimesWanted, OrdersHanded
from cloud_hub.fleet import Order
from cloud_hub.sayings import DoorCode, Neighbour, SafePlace, Wish, WishSaid
from cloud_hub.storage.embedded import EmbeddedStore, EmbeddedTelemetry
from cloud_hub.undone import PATIENCE_MS
from cloud_hub.web.needs import waiting_for_people
from cloud_hub.web.picture import Picture
from cloud_hub.web.track import view as view_module
from cloud_hub.web.track.view import View, still_holds, view
from cloud_hub.web.track.words import Words
from shared.messages import AmendmentTaken, HeadingTo, PlanTaken, ShiftChanged, WorkAmended
from shared.steps import Row
from shared.work import OrderId, Outcome, StopId
from tests.unit.hub_cases import HOUR, Driven, at, order, window
from tests.unit.test_redelivery import KIOSK, legs_for, visit

TEMPLATES = Path(view_module.__file__).parent / "templates"
ONE = StopId("stop-1")
TO_LOCKER = StopId("stop-1.2")


def picture_of(hub: Driven, folder: Path) -> Picture:
    """A store with the hub's rows in it."""
    folder.mkdir(exist_ok=True)
    store, telemetry = EmbeddedStore(folder / "hub.db"), EmbeddedTelemetry(folder / "telemetry.db")
    rooms = ("orders", "stops", "promises", "agents", "said_wishes", "estimates", "customers")
    store.commit([Row(room, key, doc) for room in rooms for key, doc in hub.rooms.get(room, {}).items()])
    return Picture(store, telemetry)


def shown(hub: Driven, folder: Path) -> View:
    """The first order's page."""
    return view(picture_of(hub, folder), OrderId("order-1"), at(hub.hour))


def drawn(page: View) -> str:
    """The part of the page that changes by itself, in English."""
    layouts = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    words = Words("en", ZoneInfo("Europe/Helsinki"), at(10))
    return layouts.get_template("live.html").render(w=words, v=page, map="", attribution="")


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


def test_where_the_page_says_somebody_looks_at_it_a_person_finds_it_in_the_list(tmp_path: Path) -> None:
    hub = Driven()
    sold = order(1)
    assert sold.stop is not None
    fetched = msgspec.structs.replace(sold, stop=msgspec.structs.replace(sold.stop, service="collection"))
    hub.take(OrdersHanded((fetched,)))
    hub.plan([fetched], [10.0])
    hub.hour = 10.0
    hub.say(PlanTaken(1), ShiftChanged("begun"))
    assert waiting_for_people(picture_of(hub, tmp_path / "before")) == []
    hub.say(visit(ONE, Outcome.REFUSED))
    page = shown(hub, tmp_path / "after")
    assert (page.phase, page.next_step) == ("missed", "person")
    assert "Somebody is looking at it" in drawn(page)
    (waits,) = waiting_for_people(picture_of(hub, tmp_path / "list"))
    assert waits["order_id"] == "order-1"
    assert waits["why"].startswith("its last visit ended 'refused'")


def test_a_parcel_bound_for_a_locker_says_so_and_then_where_it_lies(tmp_path: Path) -> None:
    hub = Driven(lockers=(KIOSK,))
    hub.take(OrdersHanded((order(1),)))
    hub.plan([order(1), order(2)], [10.0, 11.0])
    hub.hour = 10.0
    hub.say(PlanTaken(1), ShiftChanged("begun"))
    hub.say(visit(ONE))
    hub.take(legs_for(hub.wanted(LockerLegTimesWanted)[0]))
    hub.take(legs_for(hub.wanted(AmendedLegTimesWanted)[0]))
    (command,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    hub.say(AmendmentTaken(command.plan_version, (TO_LOCKER,), (), (StopId("stop-2"), TO_LOCKER)))
    before = shown(hub, tmp_path / "before")
    hub.say(visit(TO_LOCKER, Outcome.DELIVERED_TO_LOCKER))
    after = shown(hub, tmp_path)
    assert (before.phase, before.locker, before.stops_before, before.van) == ("planned", KIOSK.name, None, None)
    assert (before.tellings, after.tellings) == ((), ())
    assert (after.phase, after.locker, after.outcome) == ("done", KIOSK.name, "delivered_to_locker")
    assert "We take it to a parcel locker" in drawn(before)
    assert 'class="window"' not in drawn(before)
    assert "Ready to fetch" in drawn(after)
    assert f"Parcel locker: {KIOSK.name}" in drawn(after)


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
