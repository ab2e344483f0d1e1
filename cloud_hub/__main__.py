"""`cloud-hub`: bring the hub up from its settings, and introduce its core to its shells."""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
import uvicorn

from cloud_hub.access.opening import PURPOSE as SESSIONS
from cloud_hub.access.opening import make_first_key, open_access, provider_of
from cloud_hub.acting import (
    TEMPORARY,
    TRY_S,
    CommitFailed,
    Lease,
    WatchedStore,
    end_process,
    opened_stores,
    own_name,
)
from cloud_hub.channels import SecretMissing
from cloud_hub.channels.smtp import HeaderWrong
from cloud_hub.door import Door
from cloud_hub.enrolment import Enrolment
from cloud_hub.events import DepotsSaid, VehiclesSaid
from cloud_hub.fleet import Vehicle
from cloud_hub.geocode import Geocoder
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.ingest import ingest
from cloud_hub.jobs import Jobs
from cloud_hub.links import PURPOSE as LINKS
from cloud_hub.links import Links
from cloud_hub.metrics import (
    Counts,
    Looked,
    certificate_days,
    commit_seconds,
    lane_levels,
    metrics_page,
    registry_of,
    store_levels,
)
from cloud_hub.notices import Notifier
from cloud_hub.roads import Roads
from cloud_hub.settings import (
    HubSettings,
    costs_of,
    depots_of,
    lockers_of,
    read_hub_settings,
    tls_of,
    today,
    vehicle_of,
)  # fmt: skip
from cloud_hub.solver import Solver
from cloud_hub.storage import (
    Fenced,
    HubStore,
    StoreAway,
    StoreUnknown,
    StoreUnreadable,
    TelemetryStore,
    is_postgres,
    shown_url,
)  # fmt: skip
from cloud_hub.telemetry import FastLane
from cloud_hub.upkeep import Upkeep
from cloud_hub.web.app import Desk, make_app
from cloud_hub.web.connections import Patient
from cloud_hub.web.feed import Feed, ShownStore
from cloud_hub.web.front import Front
from cloud_hub.web.picture import Picture
from shared import topics
from shared.citymap import BundleUnreadable, CityMap
from shared.clock import SETTING, Clock, ClockSettingWrong
from shared.logs import log, told
from shared.mqtt import BrokerUrlWrong, Heard, Link, LinkDown, LinkEvent, broker_address
from shared.runner import Runner
from shared.settings import SettingsWrong
from shared.signing import KeyUnreadable, Signer
from shared.steps import Row
from shared.tls import TlsUnusable, check_served

JOB_WORKERS = 6
"""One for the plan, one for leg times, four for notices that wait for a slow receiver."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # A crash must not print orders into the log.
    help="The hub: orders in, plans out, promises kept.",
)

SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings file (docs/settings.md).")]


class StoreTaken(ValueError):
    """Another hub works on the same file; one file is for one hub."""


class Hub:
    """One hub, all parts introduced to each other. `open` starts them, `close` stops them in order.

    What takes long is loaded at once. The core is made when this process is the one that acts for its region, from
    everything the store holds then; until then `web` says who does.
    """

    def __init__(self, settings: HubSettings, clock: Clock) -> None:
        """Raises BundleUnreadable, KeyUnreadable, BrokerUrlWrong, SecretMissing or HeaderWrong."""
        broker_address(settings.broker)
        self.settings = settings
        self._clock = clock
        self._signer = Signer.from_file(Path(settings.key_file))
        self._roads = Roads(CityMap.load(settings.city_folder))
        self._geocoder = Geocoder(self._roads.city.addresses)
        self._links = Links(self._signer.secret_for(LINKS), _tracking_url(settings))
        self._notifier = Notifier(
            settings.notices, settings.webhook, settings.region, settings.zone, self._links, clock.now_ms
        )
        self._solver = Solver(settings.solver_s, settings.solver_seed)
        self._provider = provider_of(settings.access)
        self._stop = threading.Event()
        self._lease: Lease | None = None
        self._stores: tuple[HubStore, TelemetryStore] | None = None
        self._is_acting = False
        self._registry = registry_of(Counts({}, {"acting": ("Whether this hub acts, or stands by.", self._acts)}))
        self._commit_s = commit_seconds(self._registry)
        self.web = Front(metrics_page(self._registry))

    def open(self) -> None:
        """Wait for the database if need be, and for the right to act; then recover, and begin to listen.

        Returns when the hub acts, or was told to close before. Raises StoreUnknown, StoreUnreadable or StoreTaken.
        """
        self._solver.warm_up()
        self.web.why_not = "starting: the database is not there yet"
        self._stores = opened_stores(self.settings.store, self._stop)
        if self._stores is None:
            return
        store, telemetry = self._stores
        self._load(store, telemetry)
        self._lease = Lease(store, self.settings.region, own_name(), runs_out=is_postgres(self.settings.store))
        if self._waited_to_act(store, self._lease):
            self._begin(store, telemetry, self._lease)

    def _waited_to_act(self, store: HubStore, lease: Lease) -> bool:
        """Stand by until this is the hub that acts; False when told to close before."""
        is_told = False
        while not self._stop.is_set():
            try:
                if lease.take():
                    return True
                holder = store.acting(self.settings.region)
            except StoreAway as away:
                self.web.why_not, holder = f"standby: the database is away ({away})", ""
            if holder:
                self.web.why_not = f"standby: {holder} acts"
            if self.settings.store.startswith("sqlite:"):
                raise StoreTaken(
                    f"another hub works on {self.settings.store} ({holder or 'its name is unknown'}): stop it first; "
                    "two hubs, one standing by, need a postgresql:// store"
                )
            if not is_told:
                log("hub_stands_by", region=self.settings.region, acts=holder or "unknown")
                is_told = True
            self._stop.wait(TRY_S)
        return False

    def _load(self, store: HubStore, telemetry: TelemetryStore) -> None:
        """Make everything that needs no right to act: a standby that takes over loses no second with it."""
        settings = self.settings
        enrolment = Enrolment(settings, self._signer.public_hex())
        self._feed = Feed()
        self._door = Door(settings.region, enrolment.is_revoked, time.monotonic)
        self._lane = FastLane(
            settings.broker, settings.region, telemetry,
            lambda agent: self._core.knows(agent) and not enrolment.is_revoked(agent),
            settings.privacy.telemetry_days, self._clock.now_ms,
            is_shared=is_postgres(settings.store), tls=tls_of(settings),
        )  # fmt: skip
        self._access = open_access(
            settings.access, self._provider, store, self._signer.secret_for(SESSIONS), self._ask, self._registry
        )
        desk = Desk(
            settings, store, telemetry, self._ask, self._feed, self._roads, self._geocoder, self._clock, self._links,
            self._registry, self._why_not_ready, self._signer.secret_for("people"), self._access, enrolment,
        )  # fmt: skip
        self._app = make_app(desk)

    def _ask(self, event: Any) -> "Future[Any]":
        return self._runner.ask(event)

    def _begin(self, store: HubStore, telemetry: TelemetryStore, lease: Lease) -> None:
        """Recover from what the store holds now, and begin to listen."""
        settings = self.settings
        watched = WatchedStore(ShownStore(store, self._feed), self._commit_s.observe)
        self._core = HubCore(_identity(settings, self._signer.secret_for("people")), watched.saved())
        jobs = Jobs(self._roads, self._solver, self._notifier.send, telemetry.taken)
        heard = [topic for topic in topics.heard_by_hub(settings.region) if not topic.endswith("/telemetry")]
        self._link = Link(
            settings.broker,
            # Of this process alone: two hubs under one name would take the link from each other for ever.
            f"hub-{settings.region}-{secrets.token_hex(4)}",
            heard,
            self._hear,
            will=self._core.presence(False),
            sign=self._signer.sign,
            tls=tls_of(settings),
        )
        self._runner = Runner(self._core, watched, self._clock, self._link.publish, jobs.do, workers=JOB_WORKERS)
        self._thread = threading.Thread(target=self._run_core, name="core", daemon=True)
        self._registry.register(self._counts(lease, store, telemetry))
        make_first_key(settings.access, self._ask)
        self._thread.start()
        self._link.open()
        self._runner.post(DepotsSaid(depots_of(settings)))
        named = self._vehicles_to_name(store, telemetry)
        if named:
            self._runner.post(VehiclesSaid(named))
        self._heard = telemetry.changes(self._feed.hear)
        self._upkeep = Upkeep(
            telemetry, settings.privacy, self._clock.now_ms, is_real_time=self._clock.speed == 1 and not settings.day
        )
        self._upkeep.open()
        if settings.ingest.own_lane:
            self._lane.open()
        self._is_acting = True
        self.web.show(self._app)

    def close(self) -> None:
        """Say goodbye, finish the step under way, and let go of everything."""
        self._stop.set()
        if self._is_acting:
            self._access.journal.close()
            self._upkeep.close()
            self._heard.close()
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
        if self._lease is not None:
            self._lease.stop()
        for store in self._stores or ():
            store.close()

    @property
    def acts(self) -> bool:
        """Whether this hub acts for its region."""
        return self._is_acting

    def _acts(self) -> dict[str, float]:
        return {self.settings.region: float(self._is_acting)}

    def _run_core(self) -> None:
        """Take steps; when the core breaks, the whole process ends, and the exit code says whether by its own fault."""
        try:
            self._runner.run()
        except (Fenced, CommitFailed) as wrong:
            end_process(str(wrong))
        except BaseException:  # noqa: BLE001 - nothing may be caught and lived with here.
            self._suspect()
            os._exit(70)  # EX_SOFTWARE of sysexits.h.

    def _suspect(self) -> None:
        """Note the message on which the core broke: one that breaks it again and again is put aside."""
        if self._stores is None or self._core.under_way is None:
            return
        key, times = self._core.under_way
        with suppress(Exception):  # The process ends either way.
            self._stores[0].commit([Row("suspects", key, b"%d" % times)])

    def _vehicles_to_name(self, store: HubStore, telemetry: TelemetryStore) -> tuple[Vehicle, ...]:
        """The vehicles of the settings; those named for this very day before stay as a person may have changed them."""
        day = self.settings.day or today(self._clock.now_ms(), self.settings.zone)
        known = Picture(store, telemetry).all("vehicles", Vehicle)
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
        if self.settings.ingest.own_lane and not self._lane.is_alive:
            return "the telemetry thread has stopped: no reading is kept, start the hub again"
        if not self._link.is_up or (self.settings.ingest.own_lane and not self._lane.is_up):
            return f"the broker at {self.settings.broker} is out of reach"
        return ""

    def _counts(self, lease: Lease, store: HubStore, telemetry: TelemetryStore) -> Counts:
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
                "epoch": ("How often a hub began to act with this store.", lambda: {"hub": self._core.epoch}),
                "lease_age_seconds": (
                    "How long ago the right to act was confirmed.", lambda: {self.settings.region: lease.age_s}
                ),
                **lane_levels(self._lane),
                **store_levels(store, telemetry),
                "certificate_days": (
                    "Days until a certificate ends; of agents the one that ends first.",
                    Looked(lambda: certificate_days(self.settings)),
                ),
            },
        )  # fmt: skip


@app.command()
def run(settings: SettingsFile = Path("hub.toml")) -> None:
    """Run the hub until it is told to stop (SIGTERM or Ctrl-C)."""
    try:
        read = read_hub_settings(settings)
        check_served(read.http_tls.certificate, read.http_tls.key)
        clock = Clock.from_setting(os.environ.get(SETTING))
        listening = _listen(read.http_host, read.http_port)
        hub = Hub(read, clock)
    except _CANNOT_START as wrong:
        raise _refusal(wrong) from None
    host, port = listening.getsockname()[:2]
    server = _Server(
        # Its report of a failed request repeats the error's words, which may be somebody's: the hub logs its own.
        uvicorn.Config(
            hub.web,
            http=Patient,
            log_level="critical",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            forwarded_allow_ips=list(read.access.trusted_proxies),
            ssl_certfile=read.http_tls.certificate or None,
            ssl_keyfile=read.http_tls.key or None,
        )
    )
    scheme = "https" if read.http_tls.certificate else "http"
    refusals: list[Exception] = []
    bringing_up = threading.Thread(
        target=_bring_up, args=(hub, f"{scheme}://{host}:{port}", server, refusals), name="bring-up", daemon=True
    )
    bringing_up.start()
    try:
        server.run(sockets=[listening])
    finally:
        hub.close()
        log("hub_down", region=read.region)
    if refusals:
        raise _refusal(refusals[0])


def _bring_up(hub: Hub, url: str, server: uvicorn.Server, refusals: list[Exception]) -> None:
    """Open the hub while its door answers already; what refuses ends the server."""
    try:
        hub.open()
    except _CANNOT_START as wrong:
        refusals.append(wrong)
        server.should_exit = True
        return
    except BaseException as broken:  # noqa: BLE001 - a hub that is half open must not look alive.
        log("hub_broken", error=told(broken), then="the process ends and wakes from disk")
        os._exit(TEMPORARY if isinstance(broken, StoreAway) else 70)  # EX_SOFTWARE of sysexits.h.
    if hub.acts:
        read = hub.settings
        if (read.notices.email.is_on or read.notices.sms.is_on) and not read.notices.tracking_url:
            log("tracking_url_missing", links=_tracking_url(read), then="customers elsewhere cannot open their links")
        log("hub_up", url=url, region=read.region, store=shown_url(read.store), pid=os.getpid())


@app.command()
def key(settings: SettingsFile = Path("hub.toml")) -> None:
    """Print the public key agents verify the hub's commands with; makes the key when there is none."""
    try:
        print(Signer.from_file(Path(read_hub_settings(settings).key_file)).public_hex())
    except _CANNOT_START as wrong:
        raise _refusal(wrong) from None


app.command()(ingest)


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
    SettingsWrong, SecretMissing, HeaderWrong, ClockSettingWrong, StoreUnknown, StoreUnreadable, StoreTaken,
    BundleUnreadable, KeyUnreadable, BrokerUrlWrong, TlsUnusable, OSError,
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
