"""`cloud-hub`: bring the hub up from its settings, and introduce its core to its shells."""

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
import uvicorn

from cloud_hub.access.opening import PURPOSE as SESSIONS
from cloud_hub.access.opening import make_first_key, open_access, provider_of
from cloud_hub.channels import SecretMissing
from cloud_hub.channels.smtp import HeaderWrong
from cloud_hub.door import Door
from cloud_hub.events import DepotsSaid, VehiclesSaid
from cloud_hub.fleet import Vehicle
from cloud_hub.geocode import Geocoder
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.jobs import Jobs
from cloud_hub.links import PURPOSE as LINKS
from cloud_hub.links import Links
from cloud_hub.metrics import Counts, registry_of
from cloud_hub.notices import Notifier
from cloud_hub.roads import Roads
from cloud_hub.settings import HubSettings, costs_of, depots_of, lockers_of, read_hub_settings, today, vehicle_of
from cloud_hub.solver import Solver
from cloud_hub.storage import StoreUnknown, StoreUnreadable, open_stores
from cloud_hub.telemetry import FastLane
from cloud_hub.web.app import Desk, make_app
from cloud_hub.web.feed import Feed, ShownStore
from cloud_hub.web.picture import Picture
from shared import topics
from shared.citymap import BundleUnreadable, CityMap
from shared.clock import SETTING, Clock, ClockSettingWrong
from shared.logs import log
from shared.mqtt import BrokerUrlWrong, Heard, Link, LinkDown, LinkEvent
from shared.runner import Runner
from shared.settings import SettingsWrong
from shared.signing import KeyUnreadable, Signer

JOB_WORKERS = 6
"""One for the plan, one for leg times, four for notices that wait for a slow receiver."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # A crash must not print orders into the log.
    help="The hub: orders in, plans out, promises kept.",
)

SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings file (docs/settings.md).")]


class Hub:
    """One hub, all parts introduced to each other. `open` starts them, `close` stops them in order."""

    def __init__(self, settings: HubSettings, clock: Clock) -> None:
        """Raises StoreUnknown, StoreUnreadable, BundleUnreadable, KeyUnreadable or BrokerUrlWrong."""
        self.settings = settings
        self._clock = clock
        self._store, self._telemetry_store = open_stores(settings.store)
        signer = Signer.from_file(Path(settings.key_file))
        roads = Roads(CityMap.load(settings.city_folder))
        feed = Feed()
        shown = ShownStore(self._store, feed)
        secret = signer.secret_for("people")
        self._core = HubCore(_identity(settings, secret), shown.saved())
        self._door = Door(settings.region)
        links = Links(signer.secret_for(LINKS), _tracking_url(settings))
        self._notifier = Notifier(
            settings.notices, settings.webhook, settings.region, settings.zone, links, clock.now_ms
        )
        self._solver = Solver(settings.solver_s, settings.solver_seed)
        jobs = Jobs(roads, self._solver, self._notifier.send)
        heard = [topic for topic in topics.heard_by_hub(settings.region) if not topic.endswith("/telemetry")]
        self._link = Link(
            settings.broker,
            f"hub-{settings.region}",
            heard,
            self._hear,
            will=self._core.presence(False),
            sign=signer.sign,
        )
        self._runner = Runner(self._core, shown, clock, self._link.publish, jobs.do, workers=JOB_WORKERS)
        self._lane = FastLane(
            settings.broker, settings.region, self._telemetry_store, self._core.knows,
            settings.privacy.telemetry_days, clock.now_ms,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._runner.run_or_die, name="core", daemon=True)
        geocoder = Geocoder(roads.city.addresses)
        registry = registry_of(self._counts())
        self._access = open_access(
            settings.access, provider_of(settings.access), self._store, signer.secret_for(SESSIONS), self._runner.ask,
            registry,
        )  # fmt: skip
        desk = Desk(
            settings, self._store, self._telemetry_store, self._runner.ask, feed, roads, geocoder, clock, links,
            registry, self._why_not_ready, secret, self._access,
        )  # fmt: skip
        self.web = make_app(desk)

    def open(self) -> None:
        """Recover, and begin to listen."""
        self._solver.warm_up()
        make_first_key(self.settings.access, self._runner.ask)
        self._thread.start()
        self._runner.post(DepotsSaid(depots_of(self.settings)))
        named = self._vehicles_to_name()
        if named:
            self._runner.post(VehiclesSaid(named))
        self._lane.open()
        self._link.open()

    def close(self) -> None:
        """Say goodbye, finish the step under way, and let go of everything."""
        self._access.journal.close()
        self._link.publish(self._core.presence(False))
        # Each link takes up to a second to say goodbye.
        lane = threading.Thread(target=self._lane.close)
        lane.start()
        self._link.close()
        lane.join(timeout=5)
        self._runner.stop()
        self._thread.join(timeout=5)
        self._solver.kill()
        self._notifier.close()
        self._store.close()
        self._telemetry_store.close()

    def _vehicles_to_name(self) -> tuple[Vehicle, ...]:
        """The vehicles of the settings; those named for this very day before stay as a person may have changed them."""
        day = self.settings.day or today(self._clock.now_ms(), self.settings.zone)
        known = Picture(self._store, self._telemetry_store).all("vehicles", Vehicle)
        return tuple(
            vehicle_of(setting, day, self.settings.zone)
            for setting in self.settings.vehicles
            if setting.agent not in known or known[setting.agent].day != day
        )

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, Heard):
            read = self._door.read(event)
            if read is not None:
                self._runner.post(read)
            return
        if isinstance(event, LinkDown):
            log("link_down", broker=self.settings.broker, why=event.why)
        else:
            log("link_up", broker=self.settings.broker)
        self._runner.post(event)

    def _why_not_ready(self) -> str:
        if not self._thread.is_alive():
            return "the core has stopped"
        if not self._lane.is_alive:
            return "the telemetry thread has stopped: no reading is kept, start the hub again"
        if not self._link.is_up:
            return f"the broker at {self.settings.broker} is out of reach"
        return ""

    def _counts(self) -> Counts:
        return Counts(
            {
                "events": ("What the core took and made of it.", self._core.counts),
                "refused": ("What was refused at the door, by name.", self._door.refused),
                "telemetry": ("Telemetry batches taken, repeated and dropped.", self._lane.counts),
                "telemetry_refused": ("Telemetry refused, by name.", self._lane.refused),
                "publish_refused": ("Messages the broker did not take, by reason.", self._link.refused),
            },
            {
                "backlog": ("Commands that wait for an agent's acknowledgement.", self._core.backlogs),
                "link_up": ("Whether the broker is within reach.", lambda: {"broker": float(self._link.is_up)}),
                "solver_kills": ("How often the solver had to be killed.", lambda: {"solver": self._solver.kills}),
            },
        )


@app.command()
def run(settings: SettingsFile = Path("hub.toml")) -> None:
    """Run the hub until it is told to stop (SIGTERM or Ctrl-C)."""
    try:
        read = read_hub_settings(settings)
        clock = Clock.from_setting(os.environ.get(SETTING))
        listening = _listen(read.http_host, read.http_port)
        hub = Hub(read, clock)
    except _CANNOT_START as wrong:
        raise _refusal(wrong) from None
    hub.open()
    if (read.notices.email.is_on or read.notices.sms.is_on) and not read.notices.tracking_url:
        log("tracking_url_missing", links=_tracking_url(read), then="customers elsewhere cannot open their links")
    host, port = listening.getsockname()[:2]
    log("hub_up", url=f"http://{host}:{port}", region=read.region, store=read.store, pid=os.getpid())
    server = _Server(
        # Its report of a failed request repeats the error's words, which may be somebody's: the hub logs its own.
        uvicorn.Config(
            hub.web, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=2,
            forwarded_allow_ips=list(read.access.trusted_proxies),
        )  # fmt: skip
    )
    try:
        server.run(sockets=[listening])
    finally:
        hub.close()
        log("hub_down", region=read.region)


@app.command()
def key(settings: SettingsFile = Path("hub.toml")) -> None:
    """Print the public key agents verify the hub's commands with; makes the key when there is none."""
    try:
        print(Signer.from_file(Path(read_hub_settings(settings).key_file)).public_hex())
    except _CANNOT_START as wrong:
        raise _refusal(wrong) from None


class _Server(uvicorn.Server):
    """uvicorn's own way ends by raising the signal again, and the process would die before the hub has closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask the server to end, and nothing else."""
        former = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


_CANNOT_START = (
    SettingsWrong, SecretMissing, HeaderWrong, ClockSettingWrong, StoreUnknown, StoreUnreadable, BundleUnreadable,
    KeyUnreadable, BrokerUrlWrong, OSError,
)  # fmt: skip


def _refusal(wrong: Exception) -> typer.Exit:
    log("hub_refuses_to_start", why=wrong)
    return typer.Exit(2)


def _identity(settings: HubSettings, secret: bytes) -> HubIdentity:
    zone = ZoneInfo(settings.zone)

    def clock_face(instant_ms: int) -> str:
        return datetime.fromtimestamp(instant_ms / 1000, zone).strftime("%H:%M")

    return HubIdentity(
        region=settings.region,
        life=secrets.token_hex(8),
        new_boot=secrets.token_hex(8),
        zone=settings.zone,
        clock_face=clock_face,
        notices=settings.notice_rule,
        rule=settings.promises,
        pace=settings.pace,
        redelivery=settings.redelivery,
        lockers=lockers_of(settings),
        costs=costs_of(settings),
        secret=secret,
        keep_days=settings.privacy.keep_days,
    )


def _tracking_url(settings: HubSettings) -> str:
    """Where customers' phones find the tracking page: the address the settings give, or the hub's own."""
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    return settings.notices.tracking_url or f"http://{host}:{settings.http_port}"


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as taken:
        raise OSError(f"cannot listen on {host}:{port}: {taken.strerror}; give another http_port") from None
    return listening


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
