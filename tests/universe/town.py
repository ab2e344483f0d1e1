"""What every day of one town shares, loaded once: streets, addresses, models, and how work and luck are drawn."""

import io
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgspec

from cloud_hub.fleet import Order, Vehicle
from cloud_hub.geocode import Geocoder
from cloud_hub.intake import Desk, take_csv, to_stop
from cloud_hub.planning import FleetProblem
from cloud_hub.roads import Roads
from cloud_hub.solver import SolverAnswer, SolverTask, search
from deploy.days.make_orders import write_orders
from edge_agent.inference import TRAINED_FOLDER
from edge_agent.outlook import Improve, Improved, orders_beyond
from edge_agent.workshop import Workshop
from firmware_sim.city import Traffic, World
from firmware_sim.days import day_luck, midnight_of, town_luck, world_of
from firmware_sim.ground import HOUR_MS, LocalTime
from firmware_sim.luck import Luck
from shared.citymap import CityMap, shipped_city
from shared.contracts import Rest
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.resequence import resequence
from shared.work import AgentId, Depot

ZONE = "Etc/GMT-2"
"""UTC+2 the whole year, as the simulator's local time has it."""
LOCAL = timezone(timedelta(hours=2))

VANS = ("van-1", "van-2", "van-3")
SHIFT = (7.5, 15.0)
BREAK = (10.75, 12.75)
BREAK_MIN = 30
STEM_S = 900
DEPOT_BEARING = Position(0.115, 0.085)
"""From the gateway to a depot on the ring road, as in the demo."""

SOLVER_ITERATIONS = 400
KERNEL_ITERATIONS = 6_000
"""Looks the kernel gets where the van's computer would give it 50 ms; counted, so that a seed repeats."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something that befalls a van (None: all of them) at an instant, in our day and in the twin's alike.

    `kind` is "slow" (`amount`: how many times as long all driving takes from now on), "hold" (minutes) or "close" (the
    way of a street that closes).
    """

    at_ms: int
    van: str | None
    kind: str
    amount: float


class SteadySolver:
    """PyVRP here and now, by iterations instead of by the clock."""

    limit_s = 600.0
    kills = 0

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def solve(self, problem: FleetProblem, iterations: int = SOLVER_ITERATIONS) -> SolverAnswer:
        """The routes found."""
        return search(SolverTask(problem, self.limit_s, iterations, self.seed))


class SteadyWorkshop(Workshop):
    """The van's models and kernel, the kernel by iterations instead of by the clock."""

    def _improve(self, job: Improve, began_ns: int) -> Improved:
        found = resequence(job.problem, iterations=KERNEL_ITERATIONS, seed=job.seed)
        foreseen = None
        if found.improved:
            beyond = orders_beyond(job.bearing)
            head = job.bearing.order[: len(job.bearing.order) - len(beyond)]
            foreseen = self._foresee(job.bearing, head + tuple(beyond[node - 1] for node in found.order))
        return Improved(job.need, found.order, found.iterations_used, foreseen)


class Town:
    """Helsinki as it ships, with everything that is the same on every day."""

    def __init__(self) -> None:
        self.city = CityMap.load(shipped_city())
        self.roads = Roads(self.city)
        self.geocoder = Geocoder(self.city.addresses)
        self.workshop = SteadyWorkshop(TRAINED_FOLDER)
        self.local = LocalTime()
        self._world = world_of(self.city, 0, self.local)
        self.depot = self._depot()

    def world(self, seed: int) -> World:
        """The true town on this day, nothing closed yet."""
        return self._world.on_another_day(Traffic(self.city, town_luck(self.city), day_luck(self.city, seed)))

    def luck(self, seed: int) -> Luck:
        """The luck of this day."""
        return day_luck(self.city, seed)

    def midnight_ms(self, seed: int) -> int:
        """The local midnight this day begins with."""
        return midnight_of(seed)

    def at(self, seed: int, hour: float) -> EpochMs:
        """An instant so many hours into the day."""
        return EpochMs(self.midnight_ms(seed) + round(hour * HOUR_MS))

    def day(self, seed: int) -> str:
        """The day's date, YYYY-MM-DD."""
        return datetime.fromtimestamp(self.midnight_ms(seed) / 1000, LOCAL).date().isoformat()

    def orders(self, seed: int) -> tuple[Order, ...]:
        """A day of orders as a shop hands them in, geocoded by the hub's own intake; doubtful ones are left out."""
        text = io.StringIO()
        write_orders(self.city, seed, text)
        desk = Desk(self.geocoder, ZONE, date.fromisoformat(self.day(seed)))
        taken = take_csv(text.getvalue().encode(), desk)
        found = []
        for each in taken.accepted:
            stop = to_stop(each, each.slot)
            found.append(
                Order(
                    each.order_id, "accepted", self.at(seed, 6), "{}", each.fingerprint, stop,
                    customer_ref=each.customer_ref,
                )
            )  # fmt: skip
        return tuple(found)

    def vehicles(self, seed: int) -> tuple[Vehicle, ...]:
        """Three vans with the demo's shift and break."""
        rest = Rest(Seconds(BREAK_MIN * 60), TimeWindow(self.at(seed, BREAK[0]), self.at(seed, BREAK[1])))
        begins_ms, ends_ms = self.at(seed, SHIFT[0]), self.at(seed, SHIFT[1])
        return tuple(
            Vehicle(AgentId(van), self.depot.depot_id, self.day(seed), begins_ms, ends_ms, rest) for van in VANS
        )

    def mishaps(self, seed: int) -> list[Mishap]:
        """What goes wrong on this day beside its traffic: slow hours, and lorries in the way."""
        luck = self.luck(seed).of("mishaps")
        found: list[Mishap] = []
        if luck.chance("slow", 0.35):
            factor, at = luck.uniform("factor", 1.2, 1.6), luck.uniform("slow at", 8.0, 11.5)
            lasts = luck.uniform("slow for", 1.0, 2.5)
            found += [
                Mishap(self.at(seed, at), None, "slow", factor),
                Mishap(self.at(seed, at + lasts), None, "slow", 1 / factor),
            ]
        for van in VANS:
            own = luck.of(van)
            if own.chance("hold", 0.4):
                found.append(
                    Mishap(self.at(seed, own.uniform("at", 8.25, 12.5)), van, "hold", own.uniform("minutes", 10, 30))
                )
        return sorted(found, key=lambda mishap: mishap.at_ms)

    def closing_hour(self, seed: int) -> tuple[float, str] | None:
        """When a street closes on this day, and on the planned way of which van; None on two days of three."""
        luck = self.luck(seed).of("mishaps", "street")
        if not luck.chance("closes", 0.34):
            return None
        return luck.uniform("at", 8.5, 11.0), luck.pick("van", VANS)

    def _depot(self) -> Depot:
        _, west, north, east = self.city.bounds
        core = self.city.edge_from[self.city.edge_core]
        squared = (self.city.node_lat[core] - north) ** 2 + ((self.city.node_lon[core] - (west + east) / 2) * 0.5) ** 2
        node = core[int(squared.argmin())]
        edge = Position(float(self.city.node_lat[node]), float(self.city.node_lon[node]))
        gateway = self.city.snap(edge).position
        there = Position(gateway.lat + DEPOT_BEARING.lat, gateway.lon + DEPOT_BEARING.lon)
        return Depot("depot", "Depot on the ring road", there, gateway, Seconds(STEM_S))


def clock_face(instant_ms: int) -> str:
    """HH:MM in the town's time."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(LOCAL).strftime("%H:%M")


def hour_of(instant_ms: int) -> int:
    """The local hour."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(LOCAL).hour


def as_said(body: dict[str, Any], kind: type[Any]) -> Any:
    """A page report's body as the agent's own value, whatever else the body holds."""
    return msgspec.convert(body, type=kind)
