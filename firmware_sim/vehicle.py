"""The truth of one van's day: it drives, looks for a place to stop, walks, waits, hands over, and leaves.

A `Van` is a stepping truth: told where to head, it plays the visit out to the end and says what happened, each
thing at its own instant, however coarse the steps are. It reads no clock and draws only named luck, so a seed is
a day. What it does not know, it finds out: a closed street when it stands before it, an absent customer when it
has rung.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from firmware_sim.ground import Course, Ground, Place, Unreachable
from firmware_sim.luck import Luck
from firmware_sim.person import Door, Driver, Errand, door
from firmware_sim.ride import Motion, Ride, lights_on, offset
from shared.quantities import Position, metres_between
from shared.work import Depot, Outcome

WALKED_M = 35.0
TURN_ROUND_S = 75.0
BACK_UP_S = 40.0
SLOWEST, FASTEST = 10.0, 0.2
NEVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Departed:
    """The driver set off to a stop (None: to the depot).

    `map_s` is the map's answer for this hour, `by_air_m` the straight line inside the town. At the `is_same_door` as
    the stop before, there is no leg at all.
    """

    at_ms: int
    stop_id: str | None
    map_s: float
    by_air_m: float
    is_stem: bool
    is_same_door: bool = False


@dataclass(frozen=True, slots=True)
class Arrived:
    """The van, or the driver on foot, is at the stop (None: at the depot)."""

    at_ms: int
    stop_id: str | None


@dataclass(frozen=True, slots=True)
class Scanned:
    """The driver scanned a label."""

    at_ms: int
    barcode: str


@dataclass(frozen=True, slots=True)
class Served:
    """A visit ended. `began_ms` is the arrival, or the opening of the slot when the driver was early."""

    at_ms: int
    errand: Errand
    outcome: Outcome
    reason: str
    arrived_ms: int
    began_ms: int
    same_door_index: int
    was_signed: bool
    was_photographed: bool
    age_checked: bool
    parcels_left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreetFoundClosed:
    """The driver stands before a closed street and turns round."""

    at_ms: int
    way: int


@dataclass(frozen=True, slots=True)
class Rested:
    """The break is over."""

    at_ms: int


Happening = Departed | Arrived | Scanned | Served | StreetFoundClosed | Rested


@dataclass(slots=True)
class Act:
    """Something that takes time: `passed_ms` of its own time is over at `anchor_ms` and goes on at `rate` then."""

    phase: str
    lasts_ms: float
    anchor_ms: int
    ride: Ride | None = None
    course: Course | None = None
    is_traffic: bool = False
    rate: float = 1.0
    passed_ms: float = 0.0

    def passed(self, now_ms: int) -> float:
        """The act's own time at this instant."""
        return min(self.lasts_ms, self.passed_ms + max(0, now_ms - self.anchor_ms) * self.rate)

    def ends_ms(self) -> int:
        """When it will be over, as things are."""
        return self.anchor_ms + max(0, -int(-(self.lasts_ms - self.passed_ms) // self.rate))

    def retime(self, now_ms: int, rate: float, held_ms: int = 0) -> None:
        """From this instant on, another rate, after standing still for `held_ms`."""
        waits_ms = max(held_ms, self.anchor_ms - now_ms)
        self.passed_ms = self.passed(now_ms)
        self.anchor_ms, self.rate = now_ms + waits_ms, rate


class Van:
    """One van and its driver between leaving and returning to the depot. No instant given may lie before the last."""

    def __init__(self, name: str, world: Ground, depot: Depot, who: Driver, day: Luck, now_ms: int) -> None:
        self.name, self.who = name, who
        self.phase = "depot"
        self.heading_to: str | None = None
        self.driven: list[str] = []
        self._world, self._depot, self._day = world, depot, day.of("van", name)
        self._town_luck = day
        self._now_ms = now_ms
        self._gateway = world.place(depot.gateway)
        self._at: Place | None = None  # None while at the depot
        self._parked = Motion(depot.position, 0.0, 0.0, 0.0)
        self._act: Act | None = None
        self._script: Iterator[Act] = iter(())
        self._happened: list[Happening] = []
        self._known_closed: frozenset[int] = frozenset()
        self._slow = 1.0
        self._forced_out: dict[str, int] = {}
        self._door_group, self._door_position = "", depot.position
        self._same_door_index, self._needs_parking = 0, True
        self._is_done = self._goes_home = False
        self._turns_before: int | None = None

    # What the driver decides.

    @property
    def is_free(self) -> bool:
        """Whether the driver can be told what to do next."""
        return self._act is None

    def head_to(self, errand: Errand, now_ms: int) -> None:
        """Set off to a stop and serve it."""
        self._begin(self._visit(errand), now_ms)
        self.heading_to = errand.stop_id if self._act is not None else None

    def drive_to(self, errand: Errand, now_ms: int) -> None:
        """Set off to a stop and stand before its door: whatever is done there is done by somebody else."""
        self._begin(self._trip(errand), now_ms)
        self.heading_to = errand.stop_id if self._act is not None else None

    def rest(self, duration_s: float, now_ms: int) -> None:
        """Take the break where the van stands."""
        self._begin(self._rest(duration_s), now_ms)

    def go_home(self, now_ms: int) -> None:
        """Drive back to the depot: the day is done."""
        self._goes_home = True
        self._begin(self._home(), now_ms)

    def turn_back(self, now_ms: int) -> bool:
        """Give up driving home, at the next corner or at once on the road outside the town; the van is free then.

        False when it is not driving home, or so near the town's edge that it cannot turn just now: ask again.
        """
        self.step(now_ms)
        act = self._act
        if not self._goes_home or act is None or act.ride is None or self._turns_before is not None:
            return False
        if act.course is None:
            self._turn_on_the_stem(act)
            return True
        behind_m = act.ride.metres_at(act.passed(now_ms))
        ahead = next(((way, at_m) for way, at_m in act.course.ways if at_m > behind_m), None)
        if ahead is None:
            return False
        self._turns_before = ahead[0]
        act.lasts_ms = max(act.passed(now_ms), act.ride.when_at(act.ride.share_of_metres(ahead[1])))
        return True

    def _turn_on_the_stem(self, act: Act) -> None:
        """Back to the gateway, which takes as long as it took to come here."""
        assert act.ride is not None
        passed_ms = act.passed(self._now_ms)
        self._parked = act.ride.motion(passed_ms, 0.0, self._parked.odometer_m)
        here, there = self._parked.position, self._gateway.position
        back = Ride([here.lat, there.lat], [here.lon, there.lon], [0.0, 1.0], passed_ms / 1000)
        self._script = iter(())
        self._act = Act("driving", back.lasts_ms, self._now_ms, back, is_traffic=True, rate=act.rate)
        self._stands_at(there)

    # What the world does to it.

    def close_way(self, way: int, now_ms: int) -> None:
        """A street closes in this van's world; the driver learns of it on arriving before it."""
        self.step(now_ms)
        self._world.closed.add(way)
        act = self._act
        if act is not None and act.ride is not None and act.course is not None:
            act.lasts_ms = self._until_blocked(act.ride, act.course, act.passed(now_ms))[0]

    def slow(self, factor: float, now_ms: int) -> None:
        """All driving takes this many times as long from now on, on top of what was said before."""
        self.step(now_ms)
        self._slow = min(SLOWEST, max(FASTEST, self._slow * factor))
        if self._act is not None and self._act.is_traffic:
            self._act.retime(now_ms, 1 / self._slow)

    def hold(self, held_ms: int, now_ms: int) -> None:
        """Whatever goes on stands still for so long."""
        self.step(now_ms)
        if self._act is None:
            self._begin(iter((Act("held", held_ms, now_ms),)), now_ms)
        else:
            self._act.retime(now_ms, self._act.rate, held_ms)

    def customer_out(self, stop_id: str, until_ms: int | None = None) -> None:
        """Nobody will answer at this stop's door before `until_ms`, or all day, unless it has been answered already."""
        self._forced_out[stop_id] = NEVER_MS if until_ms is None else until_ms

    # What can be seen.

    def next_ms(self) -> int:
        """When the next thing will happen by itself; far away when the van is free."""
        return self._act.ends_ms() if self._act is not None else NEVER_MS

    def step(self, now_ms: int) -> list[Happening]:
        """Let time pass up to this instant; what happened meanwhile, in order, each with its own instant."""
        assert now_ms >= self._now_ms, f"time ran backwards: {now_ms} after {self._now_ms}"
        while self._act is not None and self._act.ends_ms() <= now_ms:
            self._now_ms = self._act.ends_ms()
            self._end_act()
        self._now_ms = now_ms
        return self._happened

    def taken(self) -> list[Happening]:
        """What happened since this was last asked."""
        happened, self._happened = self._happened, []
        return happened

    def motion(self) -> Motion:
        """Where the van is and how it moves, at the last step."""
        act = self._act
        if act is None or act.ride is None:
            return self._parked
        moving = act.rate if self._now_ms >= act.anchor_ms else 0.0
        return act.ride.motion(act.passed(self._now_ms), moving, self._parked.odometer_m)

    def ways_ahead(self, towards: Errand | None = None) -> list[tuple[int, float]]:
        """The ways still to be driven, with the metres to each; when standing, those of the course to `towards`."""
        act, world = self._act, self._world
        if act is not None and act.course is not None and act.ride is not None:
            behind_m = act.ride.metres_at(act.passed(self._now_ms))
            return [(way, at - behind_m) for way, at in act.course.ways if at > behind_m]
        if towards is None:
            return []
        try:
            course = world.course(self._place(), world.place(towards.position), self._hour(), self._known_closed)
        except Unreachable:
            return []
        return list(course.ways)

    # The scripts: what the driver does, act by act.

    def _visit(self, errand: Errand) -> Iterator[Act]:
        luck = self._day_luck(errand)
        try:
            goal = self._world.place(errand.position)
            yield from self._get_to(errand, goal)
        except Unreachable:
            self._serve_ends(errand, Outcome.ATTEMPTED, "no street leads there", self._now_ms, self._now_ms)
            return
        arrived_ms = self._now_ms
        if self._now_ms < errand.slot.opens_ms:
            yield self._wait("at_door", (errand.slot.opens_ms - self._now_ms) / 1000)
        began_ms = self._now_ms
        work = self.who.handiness * self._world.work_factor
        if self._needs_parking:
            yield from self._park(luck)
        yield self._wait("at_door", work * _fetching_s(errand, luck))
        way_s = _walking_s(luck, self.who.walks_mps, self._needs_parking) * self._world.work_factor
        up_s = _climbing_s(errand, luck)
        yield self._wait("at_door", way_s + up_s)
        behind = door(
            errand,
            self._town_luck,
            self._now_ms,
            self._world.local.hour(self._now_ms),
            self._world.local.weekday(self._now_ms),
            self._now_ms < self._forced_out.get(errand.stop_id, 0),
        )
        outcome, reason = yield from self._at_the_door(errand, behind, luck, work)
        yield self._wait("at_door", 0.5 * up_s + 0.8 * way_s + work * 8)
        self._serve_ends(errand, outcome, reason, arrived_ms, began_ms, behind)

    def _trip(self, errand: Errand) -> Iterator[Act]:
        try:
            yield from self._get_to(errand, self._world.place(errand.position))
        except Unreachable:
            return
        self.driven.append(errand.stop_id)

    def _get_to(self, errand: Errand, goal: Place) -> Iterator[Act]:
        """To the door's parking place; on foot when the van stands there already, or near enough to leave it."""
        self._needs_parking = False
        if self._at is not None and errand.door_group == self._door_group != "":
            self._same_door_index += 1
            self._say(Departed(self._now_ms, errand.stop_id, 0.0, 0.0, is_stem=False, is_same_door=True))
        else:
            self._same_door_index = 0
            by_air_m = metres_between(self._door_position, errand.position)
            if self._at is not None and by_air_m < WALKED_M:
                course = self._world.course(self._at, goal, self._hour(), self._known_closed)
                self._say(Departed(self._now_ms, errand.stop_id, course.seconds, by_air_m, is_stem=False))
                yield self._wait("at_door", 5.0 + 1.3 * by_air_m / self.who.walks_mps)
            else:
                self._needs_parking = True
                yield from self._drive(errand.stop_id, goal)
        self._door_group, self._door_position = errand.door_group, errand.position
        self._say(Arrived(self._now_ms, errand.stop_id))

    def _drive(self, stop_id: str | None, goal: Place) -> Iterator[Act]:
        """To a place in the city, from the depot through the gateway when the van is there."""
        luck = self._day.of("leg", stop_id or "home")
        hour = self._hour()
        from_depot = self._at is None
        stem_s = self._world.stem_seconds(self._depot, hour) if from_depot or stop_id is None else 0.0
        course = self._world.course(self._place(), goal, hour, self._known_closed)
        by_air_m = metres_between(self._gateway.position if from_depot else self._door_position, goal.position)
        self._say(Departed(self._now_ms, stop_id, stem_s + course.seconds, by_air_m, is_stem=stem_s > 0))
        if from_depot:
            if stem_s:
                yield self._stem(luck, stem_s, outward=True)
            self._at = self._gateway
        tries = 0
        while True:
            course = self._world.course(self._place(), goal, hour, self._known_closed)
            blocked = yield from self._along(course, luck.of(tries))
            if blocked is None:
                self._at = goal
                return
            if self._turns_before is not None:
                self._at = self._world.before(course, blocked) or self._at
                return
            tries += 1
            self._known_closed |= {blocked}
            self._say(StreetFoundClosed(self._now_ms, blocked))
            yield self._wait("driving", TURN_ROUND_S)
            self._at = self._world.before(course, blocked) or self._at
            hour = self._hour()

    def _along(self, course: Course, luck: Luck) -> Generator[Act, None, int | None]:
        lights = lights_on(luck, course.metres)
        ratio = course.true_ratio * self._world.mood(self._now_ms) * self.who.pace
        seconds = course.seconds * ratio * luck.lognormal("leg", 0.97, 0.12) + 0.3 * sum(s for _, s in lights)
        ride = Ride(course.lat, course.lon, course.cumulative_s, seconds, lights)
        lasts_ms, _ = self._until_blocked(ride, course, 0.0)
        act = Act("driving", lasts_ms, self._now_ms, ride, course, is_traffic=True, rate=1 / self._slow)
        yield act
        if self._turns_before is not None:
            return self._turns_before
        if act.lasts_ms < ride.lasts_ms:
            return self._until_blocked(ride, course, act.lasts_ms - 2)[1]
        return None

    def _stem(self, luck: Luck, stem_s: float, outward: bool) -> Act:
        world = self._world
        ratio = world.day_factor * world.mood(self._now_ms) * self.who.pace * luck.lognormal("stem", 1.0, 0.07)
        ends = (self._depot.position, self._gateway.position)
        a, b = ends if outward else ends[::-1]
        lights = [(0.08, luck.uniform("red 1", 5, 40)), (0.9, luck.uniform("red 2", 5, 40))]
        ride = Ride([a.lat, b.lat], [a.lon, b.lon], [0.0, stem_s], stem_s * ratio, lights)
        return Act("driving", ride.lasts_ms, self._now_ms, ride, is_traffic=True, rate=1 / self._slow)

    def _park(self, luck: Luck) -> Iterator[Act]:
        """Stand, look round, and creep into a gap: forth and back over a van's length or two."""
        hour = self._world.local.hour(self._now_ms)
        searching_s = luck.lognormal("park", 30.0 if 9.5 <= hour < 16.5 else 20.0, 0.7)
        yield self._wait("parking", 8.0)
        here, heading = self._parked.position, self._parked.heading_deg
        there = offset(here, heading, luck.uniform("gap", 6, 14))
        ride = Ride(
            [here.lat, there.lat, here.lat], [here.lon, there.lon, here.lon], [0, 1, 2], min(searching_s, 400.0)
        )
        yield Act("parking", ride.lasts_ms, self._now_ms, ride)

    def _at_the_door(
        self, errand: Errand, behind: Door, luck: Luck, work: float
    ) -> Generator[Act, None, tuple[Outcome, str]]:
        """Ring, wait, hand over or not; gives back (outcome, reason)."""
        there = [code for code in errand.parcels if code not in behind.missing]
        if errand.parcels and not there and errand.service != "collection":
            yield self._wait("at_door", 60.0)
            return Outcome.MISSING_FROM_LOAD, "not found in the load"
        if behind.is_damaged and errand.service != "collection":
            yield self._wait("at_door", 90.0)
            return Outcome.DAMAGED, "the parcel is crushed"
        if errand.is_locker and not behind.missing:
            yield from self._scan(there, work)
            yield self._wait("at_door", work * luck.uniform("locker", 35, 90))
            return Outcome.DELIVERED_TO_LOCKER, ""
        is_left = errand.safe_place or not luck.chance("meets somebody", 0.2)
        if errand.may_be_left and not behind.missing and is_left:
            yield from self._scan(there, work)
            yield self._wait("at_door", work * luck.uniform("safe place", 15, 50))
            return Outcome.DELIVERED_TO_SAFE_PLACE, ""
        if behind.is_answered:
            yield self._wait("at_door", behind.answers_after_s)
            if behind.refuses:
                yield self._wait("at_door", 40.0)
                return Outcome.REFUSED, "the customer did not want it any more"
            yield from self._scan(there, work)
            yield self._wait("at_door", work * HAND_OVER_S[errand.service] * luck.lognormal("hand over", 1.0, 0.25))
            if errand.service == "collection":
                return Outcome.COLLECTED, ""
            if behind.missing:
                return Outcome.PART, f"{len(behind.missing)} of {len(errand.parcels)} not found in the load"
            return Outcome.DELIVERED_TO_PERSON, ""
        may_be_left = errand.service in ("leave_safe", "hand_over") and not behind.missing
        yield self._wait("at_door", luck.uniform("first ring", 55, 100))
        yield self._wait("at_door", luck.uniform("telephones", 40, 110))
        if may_be_left and behind.neighbour_takes:
            yield self._wait("at_door", behind.neighbour_after_s)
            yield from self._scan(there, work)
            yield self._wait("at_door", work * 25)
            return Outcome.DELIVERED_TO_NEIGHBOUR, ""
        yield self._wait("at_door", luck.uniform("leaves a card", 40, 90))
        return Outcome.ATTEMPTED, "closed" if errand.is_business else "nobody answered"

    def _scan(self, codes: list[str], work: float) -> Iterator[Act]:
        for code in codes:
            yield self._wait("at_door", work * 4.0)
            self._say(Scanned(self._now_ms, code))

    def _serve_ends(
        self,
        errand: Errand,
        outcome: Outcome,
        reason: str,
        arrived_ms: int,
        began_ms: int,
        behind: Door | None = None,
    ) -> None:
        self.driven.append(errand.stop_id)
        to_person = outcome is Outcome.DELIVERED_TO_PERSON
        left = () if outcome.is_delivery or outcome is Outcome.COLLECTED else errand.parcels
        if outcome is Outcome.PART and behind is not None:
            left = behind.missing
        self._say(
            Served(
                self._now_ms,
                errand,
                outcome,
                reason,
                arrived_ms,
                began_ms,
                self._same_door_index,
                was_signed=to_person and errand.service == "signature",
                was_photographed=outcome is Outcome.DELIVERED_TO_SAFE_PLACE,
                age_checked=to_person and errand.service == "age_check",
                parcels_left=left,
            )
        )

    def _rest(self, duration_s: float) -> Iterator[Act]:
        yield self._wait("break", duration_s)
        self._say(Rested(self._now_ms))

    def _home(self) -> Iterator[Act]:
        if self._at is not None:
            try:
                yield from self._drive(None, self._gateway)
            except Unreachable:
                # Shut in by closed streets: a barrier is lifted for a van that goes home, and its day ends.
                self._at = self._gateway
            if self._turns_before is not None:
                self._turns_before = None
                self._stands_at(self._parked.position)
                return
            hour = self._hour()
            luck = self._day.of("leg", "home")
            if self._depot.stem_s:
                yield self._stem(luck, self._world.stem_seconds(self._depot, hour), outward=False)
        self._say(Arrived(self._now_ms, None))
        self._is_done = True

    def _stands_at(self, position: Position) -> None:
        """No longer at any door, and not on the way home."""
        self._goes_home = False
        self._door_group, self._door_position = "", position

    # How acts follow one another.

    def _wait(self, phase: str, seconds: float) -> Act:
        return Act(phase, max(1, round(seconds * 1000)), self._now_ms)

    def _begin(self, script: Iterator[Act], now_ms: int) -> None:
        self.step(now_ms)
        assert self._act is None, f"{self.name} is {self.phase} and cannot be told anything else"
        self._script = script
        self._next_act()

    def _end_act(self) -> None:
        act = self._act
        assert act is not None
        if act.ride is not None:
            motion = act.ride.motion(act.lasts_ms, 0.0, self._parked.odometer_m)
            self._parked = Motion(motion.position, 0.0, motion.heading_deg, motion.odometer_m)
        self._next_act()

    def _next_act(self) -> None:
        self._act = next(self._script, None)
        if self._act is not None:
            self.phase = self._act.phase
        else:
            self.phase = "done" if self._is_done else "free"
            self.heading_to = None

    def _until_blocked(self, ride: Ride, course: Course, passed_ms: float) -> tuple[float, int | None]:
        """How long the ride goes on: to its end, or to the first closed way that lies ahead; and which way that is."""
        if not self._world.closed:
            return ride.lasts_ms, None
        behind_m = ride.metres_at(passed_ms)
        for way, at_m in course.ways:
            if way in self._world.closed and at_m >= behind_m:
                return max(passed_ms, ride.when_at(ride.share_of_metres(at_m))), way
        return ride.lasts_ms, None

    def _place(self) -> Place:
        return self._at or self._gateway

    def _hour(self) -> int:
        return int(self._world.local.hour(self._now_ms))

    def _day_luck(self, errand: Errand) -> Luck:
        return self._town_luck.of("visit", errand.stop_id)

    def _say(self, happening: Happening) -> None:
        self._happened.append(happening)


HAND_OVER_S = {"hand_over": 22.0, "leave_safe": 22.0, "signature": 42.0, "age_check": 55.0, "collection": 70.0}


def _fetching_s(errand: Errand, luck: Luck) -> float:
    """Finding the parcels in the van and loading them on arm or trolley."""
    count = max(1, len(errand.parcels))
    litres = errand.litres or sum(luck.lognormal(f"litres {k}", 11.0, 0.7) for k in range(count))
    return (10 + 7 * count + 0.3 * litres) * luck.lognormal("fetching", 1.0, 0.3)


def _walking_s(luck: Luck, walks_mps: float, has_just_parked: bool) -> float:
    metres = luck.lognormal("walk", 26.0 if has_just_parked else 18.0, 0.55)
    return min(metres, 250.0) / walks_mps


def _climbing_s(errand: Errand, luck: Luck) -> float:
    floors = max(0, errand.floor)
    if floors == 0:
        return luck.uniform("hall", 3, 12)
    if errand.has_lift:
        return luck.uniform("lift", 5, 50) + 3.0 * floors
    return 13.0 * floors
