"""Drivers, customers and dispatchers: they press twice, change their minds, and say again what nobody answered."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from cloud_hub import sayings
from cloud_hub.events import (
    Answer,
    ClosuresAsked,
    DayPlanAsked,
    ForgetAsked,
    NoticeDelivered,
    NoticeFailed,
    NoticeWanted,
    OptOutSaid,
    OrdersHanded,
    WindowAsked,
)
from edge_agent.dialogue import (
    Asked,
    ChangeSaid,
    HeadingSaid,
    ObjectSaid,
    OutcomeSaid,
    OverrideSaid,
    Reply,
    Said,
    ShiftSaid,
)
from edge_agent.sensing import Fix, Scan
from shared.quantities import EpochMs, Position, TimeWindow, metres_between
from shared.work import Outcome, Stop
from tests.simulation.clockwork import Clockwork
from tests.simulation.luck import Luck, Weather
from tests.simulation.machines import AgentMachine
from tests.simulation.town import DAY, DEPARTS_MS, DEPOT, MINUTE_MS, MPS, Household, at, place

PATIENCE_MS = 8_000
FIX_EVERY_MS = 40_000


class ShownStop(msgspec.Struct, frozen=True):
    """A stop as the page shows it."""

    stop_id: str


class ShownChange(msgspec.Struct, frozen=True):
    """A change of order the page asks about."""

    change_id: str


class ShownDay(msgspec.Struct, frozen=True):
    """As much of the page as a driver reads."""

    shift: Literal["waiting", "under_way", "on_break", "ended"] = "waiting"
    stops: tuple[ShownStop, ...] = ()
    change: ShownChange | None = None
    question: ShownStop | None = None


class Driver:
    """One driver with his van and his page. What he was told is done is a fact he will swear to."""

    def __init__(
        self,
        machine: AgentMachine,
        stops: Callable[[str], Stop | None],
        told: Callable[[str, str, Said, Reply], None],
        clock: Clockwork,
        luck: Luck,
        seed: int,
    ) -> None:
        self._machine = machine
        self._stops = stops
        self._told = told
        self._clock = clock
        self._luck = luck.of("driver", machine.name)
        self._seed = seed
        self._keys = 0
        self.said_ms: dict[str, int] = {}
        self._here = DEPOT.position
        self._goal: Position | None = None
        self._is_done = False
        self._handiness = self._luck.share(0.6, 1.5)
        self._strays = self._luck.pick((0.0, 0.1, 0.4))
        self._refuses = self._luck.pick((0.0, 0.2, 0.6))
        self._tells_time = self._luck.chance(0.5)
        self.begins_ms = DEPARTS_MS + self._luck.between(-10, 10) * MINUTE_MS
        """When the shift is to begin."""
        self._ends_early = self._luck.chance(0.2)

    def rise(self) -> None:
        """Come to work."""
        self._clock.at(self.begins_ms, self._begin)
        self._clock.at(DEPARTS_MS - 12 * MINUTE_MS, self._fix)

    def stop(self) -> None:
        """The day is over for the simulation: the van stays where it is."""
        self._is_done = True

    def _page(self) -> ShownDay | None:
        return msgspec.json.decode(self._machine.page, type=ShownDay) if self._machine.page else None

    # The van.

    def _fix(self) -> None:
        if self._is_done:
            return
        speed_mps = 0.0
        if self._goal is not None:
            metres = metres_between(self._here, self._goal)
            share = min(1.0, MPS * FIX_EVERY_MS / 1000 / max(metres, 1.0))
            self._here = Position(
                self._here.lat + (self._goal.lat - self._here.lat) * share,
                self._here.lon + (self._goal.lon - self._here.lon) * share,
            )
            speed_mps = MPS if share < 1.0 else 0.0
            if share == 1.0:
                self._goal = None
        jitter = place(self._luck.share(-4, 4), self._luck.share(-4, 4))
        centre = place(0, 0)
        seen = Position(self._here.lat + jitter.lat - centre.lat, self._here.lon + jitter.lon - centre.lon)
        # A device's word is dated by the machine's clock; some receivers say the time, too.
        utc_ms = EpochMs(self._clock.now_ms) if self._tells_time else None
        for _ in range(2 if self._luck.chance(0.2) else 1):
            self._machine.post(Fix(self._machine.now().domain_ms, seen, speed_mps, utc_ms=utc_ms))
        self._clock.after(FIX_EVERY_MS if self._luck.chance(0.8) else 7_000, self._fix)

    # The page.

    def _say(self, said: Said, then: Callable[[Reply], None], scans: tuple[str, ...] = ()) -> None:
        """Say it until it is answered, under one key; press twice now and then."""
        self._keys += 1
        key = f"{self._machine.name}/{self._keys}"
        self.said_ms[key] = self._clock.now_ms
        is_answered = False

        def hear(reply: Any) -> None:
            nonlocal is_answered
            self._told(self._machine.name, key, said, reply)
            if not is_answered:
                is_answered = True
                self._clock.after(self._luck.between(200, 3_000), lambda: then(reply))

        def press() -> None:
            for code in scans:
                self._machine.post(Scan(self._machine.now().domain_ms, code))
            self._machine.post(Asked(key, said), hear)

        def insist() -> None:
            if is_answered or self._is_done:
                return
            press()
            if self._luck.chance(0.15):
                press()
            self._clock.after(PATIENCE_MS, insist)

        insist()

    def _begin(self) -> None:
        day = self._page()
        if self._is_done:
            return
        if day is None or not day.stops:
            self._clock.after(30_000, self._begin)
            return
        self._say(ShiftSaid("begun"), lambda _: self._next())

    def _next(self) -> None:
        day = self._page()
        if self._is_done:
            return
        if day is None:
            self._clock.after(5_000, self._next)
            return
        if day.change is not None:
            answer: Literal["seen", "refused"] = "refused" if self._luck.chance(self._refuses) else "seen"
            self._say(
                ChangeSaid(day.change.change_id, answer, "no" if answer == "refused" else ""), lambda _: self._next()
            )
            return
        if day.question is not None and self._luck.chance(0.7):
            self._say(OverrideSaid(day.question.stop_id, self._luck.pick(("road", "other"))), lambda _: self._next())
            return
        if day.shift == "on_break":
            self._say(ShiftSaid("off_break"), lambda _: self._next())
            return
        if not day.stops:
            self._wait_for_more(day)
            return
        if self._luck.chance(0.05):
            self._say(
                ShiftSaid("on_break"), lambda _: self._clock.after(self._luck.between(2, 9) * MINUTE_MS, self._next)
            )
            return
        stop_id = self._luck.pick(day.stops).stop_id if self._luck.chance(self._strays) else day.stops[0].stop_id
        self._say(HeadingSaid(stop_id), lambda reply: self._drive(stop_id, reply))

    def _wait_for_more(self, day: ShownDay) -> None:
        if day.shift == "under_way" and self._ends_early:
            self._ends_early = False
            self._say(ShiftSaid("ended"), lambda _: None)
        elif day.shift != "ended":
            self._clock.after(2 * MINUTE_MS, self._next)

    def _drive(self, stop_id: str, reply: Reply) -> None:
        stop = self._stops(stop_id)
        if reply.status >= 300 or stop is None:
            self._clock.after(self._luck.between(1_000, 20_000), self._next)
            return
        self._goal = stop.position
        takes_s = metres_between(self._here, stop.position) / MPS * self._luck.share(1.0, 2.5)
        if self._luck.chance(0.05):
            takes_s += 900
        self._clock.after(round(takes_s * 1000) + 5_000, lambda: self._serve(stop))

    def _serve(self, stop: Stop) -> None:
        if self._is_done:
            return
        self._here, self._goal = stop.position, None
        spent_ms = round(stop.service_s * 1000 * self._handiness * self._luck.share(0.5, 2.0))
        self._clock.after(spent_ms, lambda: self._hand_over(stop))

    def _hand_over(self, stop: Stop) -> None:
        if self._is_done:
            return
        draw = self._luck.share(0, 1)
        if draw < 0.12:
            self._end(stop, OutcomeSaid(stop.stop_id, Outcome.ATTEMPTED, reason="nobody answered"))
        elif draw < 0.16:
            self._end(stop, OutcomeSaid(stop.stop_id, Outcome.REFUSED, reason="not wanted"))
        elif draw < 0.19:
            self._end(stop, OutcomeSaid(stop.stop_id, Outcome.MISSING_FROM_LOAD))
        elif stop.service == "collection":
            self._end(stop, OutcomeSaid(stop.stop_id, Outcome.COLLECTED))
        elif stop.service == "signature":
            content = b"\x89PNG\r\n\x1a\n" + f"signature of {stop.address}".encode()
            said = ObjectSaid("signature", stop.stop_id, "image/png", content)
            outcome = OutcomeSaid(stop.stop_id, Outcome.DELIVERED_TO_PERSON, signature=said.digest)
            self._say(said, lambda _: self._end(stop, outcome))
        elif stop.service == "leave_safe":
            self._end(stop, OutcomeSaid(stop.stop_id, Outcome.DELIVERED_TO_SAFE_PLACE))
        else:
            self._end(stop, OutcomeSaid(stop.stop_id, Outcome.DELIVERED_TO_PERSON))

    def _end(self, stop: Stop, said: OutcomeSaid) -> None:
        codes = tuple(parcel.barcode for parcel in stop.parcels)
        self._say(said, lambda _: self._next(), codes)


class PostOffice:
    """Where notices go: it takes each id once, fails now and then, and remembers what it was given."""

    def __init__(self, luck: Luck, weather: Weather, given: Callable[[NoticeWanted], None]) -> None:
        self._luck = luck.of("post office")
        self._weather = weather
        self._given = given
        self.is_fair = False

    def send(self, wanted: NoticeWanted) -> NoticeDelivered | NoticeFailed:
        """One attempt."""
        draw = self._luck.share(0, 1)
        if self.is_fair or draw > self._weather.notices_fail:
            self._given(wanted)
            return NoticeDelivered(wanted.need, "ok")
        if draw < 0.02:
            self._given(wanted)  # It was taken, and the answer was lost.
        return NoticeFailed(wanted.need, "not now", is_final=draw > 0.9 * self._weather.notices_fail)


class Townspeople:
    """Everybody who speaks to the hub over the web."""

    def __init__(
        self,
        ask: Callable[[Any, Callable[[Any], None]], None],
        homes: list[Household],
        clock: Clockwork,
        luck: Luck,
        forgot: Callable[[Household], None],
    ) -> None:
        self._ask_hub = ask
        self._homes = homes
        self._clock = clock
        self._luck = luck.of("people")
        self._forgot = forgot
        self._is_done = False

    def rise(self, ends_ms: int) -> None:
        """Draw who says what, and when."""
        luck, begins_ms = self._luck, DEPARTS_MS - 15 * MINUTE_MS
        for number in range(luck.between(0, 8)):
            own = luck.of("wish", number)
            self._clock.at(own.between(begins_ms, ends_ms), lambda own=own: self._wish(own))  # type: ignore[misc]
        for number in range(luck.between(0, 3)):
            own = luck.of("street", number)
            self._clock.at(own.between(begins_ms, ends_ms), lambda own=own, way=number + 1: self._close(own, way))  # type: ignore[misc]
        for number in range(luck.between(0, 2)):
            own = luck.of("window", number)
            self._clock.at(own.between(begins_ms, ends_ms), lambda own=own: self._another_window(own))  # type: ignore[misc]
        for number in range(luck.between(0, 2)):
            own = luck.of("forget", number)
            self._clock.at(own.between(begins_ms, ends_ms), lambda own=own: self._forget(own))  # type: ignore[misc]
        for number in range(luck.between(0, 2)):
            own = luck.of("again", number)
            again = DayPlanAsked(DAY, "Dora Dispatcher")
            self._clock.at(own.between(begins_ms, DEPARTS_MS + 5 * MINUTE_MS), lambda again=again: self.insist(again))  # type: ignore[misc]
        for number in range(luck.between(0, 2)):
            own = luck.of("opt out", number)
            self._clock.at(own.between(begins_ms, ends_ms), lambda own=own: self._opt_out(own))  # type: ignore[misc]
        late = luck.of("late")
        if late.chance(0.4):
            home = late.pick(self._homes)
            handed = OrdersHanded((home.order,), (home.customer,))
            self._clock.at(late.between(begins_ms, ends_ms), lambda: self.insist(handed))

    def stop(self) -> None:
        """Nobody says anything new."""
        self._is_done = True

    def insist(self, said: Any, then: Callable[[Answer], None] = lambda _: None) -> None:
        """Say it to the hub until it is answered."""
        is_answered = False

        def hear(answer: Any) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                then(answer)

        def again() -> None:
            if not is_answered:
                self._ask_hub(said, hear)
                self._clock.after(PATIENCE_MS, again)

        again()

    def _wish(self, luck: Luck) -> None:
        if self._is_done:
            return
        home = luck.pick(self._homes)
        word = home.secrets[0]
        wish = luck.pick((
            sayings.NotHomeUntil(EpochMs(self._clock.now_ms + luck.between(10, 60) * MINUTE_MS)),
            sayings.SafePlace(f"behind the {word}", luck.chance(0.5)),
            sayings.Neighbour(f"Mrs {word}", luck.chance(0.5)),
            sayings.DoorCode(f"w{word}"),
            sayings.OnItsWay(luck.chance(0.7)),
            sayings.OtherDay("2026-11-24", TimeWindow(at(32), at(36))),
        ))  # fmt: skip
        self.insist(sayings.WishSaid(home.order.order_id, wish))

    def _close(self, luck: Luck, way: int) -> None:
        if self._is_done:
            return
        self.insist(ClosuresAsked((way,), True, "Long street", "roadworks", "Dora Dispatcher"))
        if luck.chance(0.5):
            opened = ClosuresAsked((way,), False, "Long street", "done", "Dora Dispatcher")
            self._clock.after(luck.between(1, 20) * MINUTE_MS, lambda: None if self._is_done else self.insist(opened))

    def _another_window(self, luck: Luck) -> None:
        if self._is_done:
            return
        home = luck.pick(self._homes)
        assert home.order.stop is not None
        slot = home.order.stop.slot
        opens = EpochMs(slot.opens_ms + luck.between(0, 60) * MINUTE_MS)
        self.insist(WindowAsked(home.order.order_id, TimeWindow(opens, slot.closes_ms), "Dora Dispatcher"))

    def tell_many(self, luck: Luck) -> None:
        """Several customers are told another window at once."""
        for home in luck.shuffled(self._homes)[:6]:
            if not self._is_done and home.order.stop is not None:
                slot = home.order.stop.slot
                opens = EpochMs(slot.opens_ms + luck.between(0, 40) * MINUTE_MS)
                self.insist(WindowAsked(home.order.order_id, TimeWindow(opens, slot.closes_ms), "Dora Dispatcher"))

    def wish_and_be_forgotten(self, home: Household, luck: Luck) -> None:
        """Something is wished that the van must know, and then somebody wants to be forgotten."""
        if self._is_done:
            return
        word = home.secrets[0]
        if luck.chance(0.7):
            self.insist(sayings.WishSaid(home.order.order_id, sayings.SafePlace(f"behind the {word}", True)))
        self._clock.after(luck.between(10, 120) * 1_000, lambda: self._forget_home(home))

    def _opt_out(self, luck: Luck) -> None:
        if not self._is_done:
            self.insist(OptOutSaid(luck.pick(self._homes).order.order_id, is_out=luck.chance(0.7)))

    def _forget(self, luck: Luck) -> None:
        if self._is_done:
            return
        self._forget_home(luck.pick(self._homes))

    def _forget_home(self, home: Household) -> None:
        def heard(answer: Answer) -> None:
            if answer.is_done:
                self._forgot(home)
            elif not self._is_done and "no such customer" not in answer.why_not:
                self._clock.after(5 * MINUTE_MS, lambda: self._forget_again(home, heard))

        self._forget_again(home, heard)

    def _forget_again(self, home: Household, heard: Callable[[Answer], None]) -> None:
        if not self._is_done:
            self.insist(ForgetAsked(home.customer.customer_ref, "Dora Dispatcher", even_open=True), heard)


__all__ = ["Driver", "PostOffice", "Townspeople"]
