"""A hub's web with its real core, its real store and no wire: asked in this process, answered after a real commit."""

import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client.registry import CollectorRegistry

from cloud_hub.access.asked import KeyAsked
from cloud_hub.access.identity import new_key
from cloud_hub.access.opening import open_access, provider_of
from cloud_hub.access.setting import AccessSetting
from cloud_hub.events import DepotsSaid, VehiclesSaid
from cloud_hub.geocode import Geocoder
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.links import Links
from cloud_hub.roads import Roads
from cloud_hub.settings import DepotSetting, HubSettings, VehicleSetting, depots_of, vehicle_of
from cloud_hub.storage import open_stores
from cloud_hub.web.app import Desk, make_app
from cloud_hub.web.feed import Feed, ShownStore
from shared.citymap import CityMap, shipped_city
from shared.clock import Clock
from shared.steps import Now, step
from tests.shells.hub_parts import DAY, EIGHT_MS, ZONE

with warnings.catch_warnings():
    # It would rather have another HTTP library than the one the hub has.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

SECRET = b"s" * 32
OUTSIDE = ("203.0.113.5", 50_000)
"""An address for documents (RFC 5737): nobody's loopback."""

DEPOTS = tuple(DepotSetting(name, name.title(), (60.29, 25.03), (60.18, 24.945), 900) for name in ("north", "south"))
VEHICLES = (VehicleSetting("van-n", "north"), VehicleSetting("van-s", "south"))


CLOSED = AccessSetting()


@cache
def the_roads() -> Roads:
    return Roads(CityMap.load(shipped_city()))


@cache
def the_geocoder() -> Geocoder:
    return Geocoder(the_roads().city.addresses)


class House:
    """The hub's core and web around a store in a folder."""

    def __init__(self, folder: Path, access: AccessSetting = CLOSED, url: str = "", **settings: Any) -> None:
        """`url` is that of the store, a file in the folder unless given."""
        self.settings = HubSettings(
            depots=DEPOTS, vehicles=VEHICLES, day=DAY, zone=ZONE, access=access, key_file=str(folder / "hub.key"),
            **settings,
        )  # fmt: skip
        self.store, self.telemetry = open_stores(url or f"sqlite:///{folder / 'hub.db'}")
        assert self.store.act("main", "the test")
        self.feed = Feed()
        self._shown = ShownStore(self.store, self.feed)
        self.core = HubCore(
            HubIdentity("main", "life", "boot", ZONE, lambda ms: f"{ms}", secret=SECRET), self._shown.saved()
        )
        self.clock = Clock.starting(EIGHT_MS - 3_600_000, 1.0)
        self.registry = CollectorRegistry()
        self.ask(DepotsSaid(depots_of(self.settings)))
        self.ask(VehiclesSaid(tuple(vehicle_of(one, DAY, ZONE) for one in VEHICLES)))
        self.access = open_access(access, provider_of(access), self.store, SECRET, self.ask, self.registry)
        self.desk = Desk(
            self.settings, self.store, self.telemetry, self.ask, self.feed, the_roads(), the_geocoder(), self.clock,
            Links(SECRET, "http://hub.example"), self.registry, lambda: "", SECRET, self.access,
        )  # fmt: skip
        self.app = make_app(self.desk)

    def ask(self, event: Any) -> "Future[Any]":
        """One step with this event; its answer, after the commit."""
        made, _ = step(self.core, self._shown, [event], Now(self.clock.now_ms(), 0))
        answer: Future[Any] = Future()
        answer.set_result(made.answers.get(0))
        return answer

    def key(self, role: str, **fields: Any) -> str:
        """A key of this role, made through the core."""
        key, record = new_key(**{"kind": "key", "name": f"the {role}", "role": role} | fields)
        assert self.ask(KeyAsked(record, "the test")).result().is_done
        return key

    def client(self, key: str = "", address: tuple[str, int] = OUTSIDE, **headers: str) -> TestClient:
        """Somebody at an address, with a key or without."""
        known = {"Authorization": f"Bearer {key}"} if key else {}
        return TestClient(
            self.app, "http://hub.local", client=address, headers={**known, **headers}, follow_redirects=False,
            raise_server_exceptions=False,
        )  # fmt: skip

    def as_role(self, role: str, **fields: Any) -> TestClient:
        """Somebody with a key of this role."""
        return self.client(self.key(role, **fields))

    def close(self) -> None:
        self.access.journal.close()
        self.store.close()
        self.telemetry.close()


@contextmanager
def a_house(folder: Path, access: AccessSetting = CLOSED, url: str = "", **settings: Any) -> Iterator[House]:
    """A house that is closed afterwards."""
    house = House(folder, access, url, **settings)
    try:
        yield house
    finally:
        house.close()
