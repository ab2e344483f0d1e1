"""Everything the hub is told before it starts, read once from one TOML file."""

import math
import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

import shared.costs
from cloud_hub.access.setting import AccessSetting, access_objections
from cloud_hub.events import Pace
from cloud_hub.fleet import Vehicle
from cloud_hub.nextstep import Locker, RedeliveryRule
from cloud_hub.notice_rules import NoticeRule
from cloud_hub.notices import NoticeSetting, notice_objections
from cloud_hub.promises import Rule
from shared.citymap import shipped_city
from shared.contracts import Rest
from shared.costs import Costs
from shared.mqtt import BrokerUrlWrong, broker_address
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.settings import SettingsWrong, read_settings
from shared.tls import Tls, TlsUnusable, tls_from
from shared.work import AgentId, Depot


class DepotSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A depot: its id, its name, where it stands and, when it stands outside the map, the way onto it.

    `gateway` is where its vans enter the map (default: the depot itself), `stem_s` the drive there in free flow.
    """

    id: str
    name: str
    position: tuple[float, float]
    gateway: tuple[float, float] | None = None
    stem_s: int = 0


class VehicleSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vehicle and its driver's day, in local time ("HH:MM").

    `agent` is the name its agent signs in with. The break lasts `break_min` (0 for none) and begins between
    `break_from` and `break_to`.
    """

    agent: str
    depot: str
    shift_from: str = "08:00"
    shift_to: str = "16:30"
    break_min: int = 30
    break_from: str = "11:30"
    break_to: str = "13:30"
    capacity_litres: int = 10_000


class LockerSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parcel locker: what its largest compartment holds, and how many compartments are ours each day."""

    id: str
    name: str
    position: tuple[float, float]
    most_litres: float = 60.0
    capacity: int = 10


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long people are remembered: a customer is forgotten `keep_days` after the last order ended, what the vans
    measured (their places among it: drivers' tracks) after `telemetry_days`, their places to more than a hundredth of
    a degree after `tracks_days`, sums by the minute and the hour, which have no places, after `minutes_days` and
    `hours_days`; 0 for never.
    """

    keep_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 90
    telemetry_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 30
    tracks_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 7
    minutes_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 400
    hours_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 0


class IngestSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who takes telemetry: with `own_lane` the hub does, alone or beside `cloud-hub ingest` processes; without it only
    they do, which needs a postgresql:// store.
    """

    own_lane: bool = True


class TlsSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the hub proves itself by at a broker of mqtts://, in PEM files: the authority the broker's certificate is
    believed for, and the hub's own certificate and key.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""


class HttpTlsSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files by which the hub's HTTP interface is served over TLS; none: it is not."""

    certificate: str = ""
    key: str = ""


class AuthoritySetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who vouches for agents: the authority's `folder` ("" for `authority` beside the hub's key), and the `broker`
    agents are told when they are enrolled, mqtts://HOST:PORT.
    """

    folder: str = ""
    broker: str = ""


class HubSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hub's settings.

    `region` names this hub's part of the topics. `broker` is mqtt://HOST:PORT. `store` is sqlite:///PATH or
    postgresql://USER@HOST/DB. `city` is a city bundle's folder, "" for the one shipped. `zone` is an IANA time zone.
    `day` (YYYY-MM-DD) is the day to plan, "" for today by the hub's clock. `http_names` are those under which people
    reach it. `webhook` is where the shop hears of notices, "" for nowhere; `[notices]` says how customers are told:
    while every channel is off, notices are kept. `key_file` holds the hub's signing key and is made when absent.
    `solver_s` is how long the first plan may search, `solver_seed` its seed. `most_body_bytes` bounds a request.
    `[promises]` are the bounds of telling customers, `[pace]` how many times as long stops and legs really take as
    orders and the map say. `[redelivery]` and `[[lockers]]` say how it goes on after a failed visit; `costs` is the
    file of prices, "" for the one shipped. `[access]` says who may come in over HTTP.
    """

    depots: tuple[DepotSetting, ...]
    vehicles: tuple[VehicleSetting, ...] = ()
    region: str = "main"
    broker: str = "mqtt://127.0.0.1:1883"
    store: str = "sqlite:///hub.db"
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    http_names: tuple[str, ...] = ()
    city: str = ""
    zone: str = "Europe/Helsinki"
    day: str = ""
    webhook: str = ""
    notices: NoticeSetting = NoticeSetting()
    key_file: str = "hub.key"
    solver_s: float = 5.0
    solver_seed: int = 1
    most_body_bytes: int = 20_000_000
    promises: Rule = Rule()
    pace: Pace = Pace()
    redelivery: RedeliveryRule = RedeliveryRule()
    lockers: tuple[LockerSetting, ...] = ()
    costs: str = ""
    privacy: Privacy = Privacy()
    ingest: IngestSetting = IngestSetting()
    access: AccessSetting = AccessSetting()
    tls: TlsSetting = TlsSetting()
    http_tls: HttpTlsSetting = HttpTlsSetting()
    authority: AuthoritySetting = AuthoritySetting()

    @property
    def notice_rule(self) -> NoticeRule:
        """By which channels, and at what hours, customers are told."""
        return self.notices.rule(self.webhook)

    @property
    def city_folder(self) -> Path:
        """The bundle's folder."""
        return Path(self.city) if self.city else shipped_city()


def read_hub_settings(path: Path) -> HubSettings:
    """The settings of a file, checked as far as they can be without opening anything. Raises SettingsWrong."""
    settings = read_settings(path, HubSettings)
    for objection in _objections(settings):
        raise SettingsWrong(f"{path}: {objection}; docs/settings.md lists every setting")
    costs_of(settings)
    return settings


def costs_of(settings: HubSettings) -> Costs:
    """The prices: of the file the settings name, else those shipped. Raises SettingsWrong."""
    path = Path(settings.costs) if settings.costs else Path(shared.costs.__file__).with_name("costs.toml")
    costs = read_settings(path, Costs)
    if not re.fullmatch("[A-Z]{3}", costs.currency):
        raise SettingsWrong(f"{path}: currency is '{costs.currency}', expected three letters such as EUR (ISO 4217)")
    for name, price in msgspec.structs.asdict(costs).items():
        if isinstance(price, float) and not math.isfinite(price):
            raise SettingsWrong(f"{path}: {name} is {price}, expected an amount of money")
    return costs


def lockers_of(settings: HubSettings) -> tuple[Locker, ...]:
    """The lockers as values."""
    return tuple(
        Locker(locker.id, locker.name, Position(*locker.position), locker.most_litres, locker.capacity)
        for locker in settings.lockers
    )


def authority_folder(settings: HubSettings) -> Path:
    """Where the authority's keys, certificates and register lie."""
    return Path(settings.authority.folder or Path(settings.key_file).with_name("authority"))


def tls_of(settings: HubSettings) -> Tls | None:
    """What the hub's links prove themselves by; None when the settings name nothing. Raises TlsUnusable."""
    return tls_from(settings.tls.ca, settings.tls.certificate, settings.tls.key)


def depots_of(settings: HubSettings) -> tuple[Depot, ...]:
    """The depots as values."""
    return tuple(
        Depot(
            depot.id,
            depot.name,
            Position(*depot.position),
            Position(*(depot.gateway or depot.position)),
            Seconds(depot.stem_s),
        )
        for depot in settings.depots
    )


def vehicle_of(setting: VehicleSetting, day: str, zone: str) -> Vehicle:
    """A vehicle's one day. Raises ValueError when a time is not HH:MM, the shift ends before it begins, or the zone
    is unknown.
    """

    def at(clock: str) -> EpochMs:
        try:
            moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M").replace(tzinfo=ZoneInfo(zone))
        except ValueError:
            raise ValueError(f"vehicle {setting.agent}: '{clock}' on {day} is no time, expected HH:MM") from None
        return EpochMs(int(moment.timestamp() * 1000))

    begins, ends = at(setting.shift_from), at(setting.shift_to)
    if ends <= begins:
        raise ValueError(f"vehicle {setting.agent}: the shift begins {setting.shift_from}, ends {setting.shift_to}")
    rest = None
    if setting.break_min:
        window = TimeWindow(at(setting.break_from), at(setting.break_to))
        if not begins <= window.opens_ms <= window.closes_ms <= ends or setting.break_min < 0:
            raise ValueError(
                f"vehicle {setting.agent}: a break of {setting.break_min} min beginning {setting.break_from} to "
                f"{setting.break_to} does not lie in the shift from {setting.shift_from} to {setting.shift_to}"
            )
        rest = Rest(Seconds(setting.break_min * 60), window)
    return Vehicle(AgentId(setting.agent), setting.depot, day, begins, ends, rest, setting.capacity_litres)


def today(now_ms: int, zone: str) -> str:
    """The local date of an instant, YYYY-MM-DD."""
    return datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone)).date().isoformat()


def _objections(settings: HubSettings) -> list[str]:
    found = []
    try:
        ZoneInfo(settings.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return [f"zone is '{settings.zone}', expected an IANA time zone such as Europe/Helsinki"]
    if settings.day:
        try:
            date.fromisoformat(settings.day)
        except ValueError:
            return [f"day is '{settings.day}', expected YYYY-MM-DD"]
    depots = [depot.id for depot in settings.depots]
    if not depots:
        found.append("no depot is named, expected at least one [[depots]]")
    agents = [vehicle.agent for vehicle in settings.vehicles]
    lockers = [locker.id for locker in settings.lockers]
    for name, ids in (("depot", depots), ("vehicle", agents), ("locker", lockers)):
        found += [f"{name} '{twice}' is named twice" for twice in sorted({one for one in ids if ids.count(one) > 1})]
    for depot in settings.depots:
        for place in (depot.position, depot.gateway or depot.position):
            if not (-90 <= place[0] <= 90 and -180 <= place[1] <= 180):
                found.append(f"depot '{depot.id}' stands at {place}, expected latitude and longitude in degrees")
        if not 0 <= depot.stem_s <= 4 * 3600:
            found.append(f"depot '{depot.id}' has a stem of {depot.stem_s} s, expected 0 to 14,400")
    for locker in settings.lockers:
        found += _locker_objections(locker)
    for vehicle in settings.vehicles:
        found += vehicle_objections(vehicle, depots, settings.day or "2000-01-03", settings.zone)
    found += access_objections(settings.access, settings.http_host)
    found += notice_objections(settings.notices, settings.webhook)
    if not 0.1 <= settings.solver_s <= 3600:
        found.append(f"solver_s is {settings.solver_s}, expected 0.1 to 3600")
    if not 0 <= settings.http_port <= 65_535:
        found.append(f"http_port is {settings.http_port}, expected 0 to 65535")
    found += _tls_objections(settings)
    if not settings.ingest.own_lane and settings.store.startswith("sqlite:"):
        found.append("[ingest] own_lane is false with a sqlite:// store: nobody else can take telemetry into a file")
    if not settings.region or any(sign in settings.region for sign in "/+#"):
        found.append(f"region is '{settings.region}', expected a name without / + #")
    return found


def _tls_objections(settings: HubSettings) -> list[str]:
    found = []
    try:
        for broker in (settings.broker, settings.authority.broker):
            if broker:
                broker_address(broker)
        is_tls = broker_address(settings.broker).is_tls
        if is_tls and tls_of(settings) is None:
            found.append(f"broker is '{settings.broker}', expected [tls] with ca, certificate and key")
    except (BrokerUrlWrong, TlsUnusable) as wrong:
        found.append(str(wrong))
    if bool(settings.http_tls.certificate) != bool(settings.http_tls.key):
        found.append("[http_tls] names one of certificate and key, expected both or neither")
    return found


def _locker_objections(locker: LockerSetting) -> list[str]:
    found = []
    if not re.fullmatch(r"[\w.-]{1,40}", locker.id):
        found.append(f"locker '{locker.id[:40]}', expected an id of 1 to 40 letters, digits, dots, dashes")
    if not (-90 <= locker.position[0] <= 90 and -180 <= locker.position[1] <= 180):
        found.append(f"locker '{locker.id}' stands at {locker.position}, expected latitude and longitude in degrees")
    if not 0 < locker.most_litres <= 10_000 or not 0 <= locker.capacity <= 10_000:
        found.append(
            f"locker '{locker.id}' has {locker.capacity} compartments of {locker.most_litres} litres, expected 0 to "
            "10,000 of more than 0"
        )
    return found


def vehicle_objections(vehicle: VehicleSetting, depots: list[str], day: str, zone: str) -> list[str]:
    """What is wrong with a vehicle, in words; empty when nothing is."""
    found = []
    # A broker ends the connection of who speaks on a topic with a NUL in it: the hub's own, again and again.
    is_topic_level = 0 < len(vehicle.agent) <= 64 and not any(sign in vehicle.agent for sign in "/+#")
    if not is_topic_level or not vehicle.agent.isprintable() or vehicle.agent == "hub":
        name = ascii(vehicle.agent[:64])
        found.append(f"vehicle {name}, expected a name of 1 to 64 printed characters without / + #, not 'hub'")
    if vehicle.depot not in depots:
        found.append(f"vehicle '{vehicle.agent}' loads at '{vehicle.depot}', expected one of {', '.join(depots)}")
    if vehicle.capacity_litres <= 0:
        found.append(f"vehicle '{vehicle.agent}' holds {vehicle.capacity_litres} litres, expected more than 0")
    try:
        vehicle_of(vehicle, day, zone)
    except ValueError as wrong:
        found.append(str(wrong))
    return found
