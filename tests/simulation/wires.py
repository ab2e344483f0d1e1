"""A broker and the lines to it that lose, repeat, delay, reorder and are cut, each way and for each party apart.

A message crosses two hops: from its sender to the broker, from there to everybody who subscribed. A hop that is cut
holds what it carries until it is whole again, as TCP would, unless the connection is given up first: then what it held
is lost. Presences keep their order within a connection, for nothing but the connection's end takes them out of it;
whatever a stream numbers may be lost, said twice or overtaken at any hop, whatever its quality of service.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.mqtt import Heard, LinkEvent
from shared.steps import Envelope, LinkDown, LinkUp
from tests.simulation.clockwork import Clockwork
from tests.simulation.luck import Luck, Weather

GIVEN_UP_AFTER_MS = 15_000
"""One and a half times the keep-alive: so long the broker waits for a client it does not hear."""
NOTICED_AFTER_MS = 20_000
"""So long a client waits for a broker it does not hear."""
LEAST_HOP_MS = 1
MOST_KEPT = 200
"""What a broker that keeps sessions holds for a client that is away."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message on its way, with the signature it bears."""

    envelope: Envelope
    signature: str | None


class Wires:
    """The broker, all lines, and the weather between them."""

    def __init__(self, clock: Clockwork, luck: Luck, weather: Weather) -> None:
        self.clock = clock
        self.weather = weather
        self._luck = luck.of("wires")
        self._is_up = True
        self._lines: list[Line] = []
        self._retained: dict[str, Letter] = {}
        self._latest: dict[str, Line] = {}
        self._kept: dict[str, list[Letter]] = {}
        self._is_fair = False
        self.on_their_way = 0
        """Messages that are somewhere between two parties."""

    def line(
        self, name: str, subscriptions: Sequence[str], hear: Callable[[LinkEvent], None], will: Envelope | None
    ) -> "Line":
        """A new line, not connected yet."""
        made = Line(self, name, subscriptions, hear, will)
        self._lines.append(made)
        self._latest[name] = made
        return made

    def clear(self) -> None:
        """From now on the weather is fair, and the broker is up."""
        self._is_fair = True
        self._is_up = True
        for line in self._lines:
            line.mend()

    def cut(self, name: str, direction: str, for_ms: int) -> None:
        """Nothing passes this way ("up" to the broker, "down" from it, or "both") for so long."""
        for line in self._lines:
            if line.name == name and not self._is_fair:
                line.cut(direction, for_ms)

    def garble(self, topic: str, payload: bytes) -> None:
        """Something nobody understands, or half of what somebody said, is published here."""
        if not self._is_fair:
            self.take(Letter(Envelope(topic, payload), None))

    def fall(self, away_ms: int) -> None:
        """The broker dies and comes back; unless it remembers, what was retained is forgotten."""
        if self._is_fair:
            return
        self._is_up = False
        if not self.weather.broker_remembers:
            self._retained.clear()
            self._kept.clear()
        for line in self._lines:
            line.broken("the broker is gone", self._luck.between(0, 1_500))
        self.clock.after(away_ms, self._rise)

    def _rise(self) -> None:
        self._is_up = True

    @property
    def is_up(self) -> bool:
        """Whether the broker takes connections."""
        return self._is_up

    # What lines ask.

    def carry(self, letter: Letter, may_be_mistreated: bool, arrive: Callable[[], None]) -> None:
        """One hop: `arrive` is called as often as the message arrives."""
        weather, luck = self.weather, self._luck
        if self._is_fair:
            self._deliver(luck.between(LEAST_HOP_MS, 5), arrive)
            return
        if not may_be_mistreated:
            self._deliver(LEAST_HOP_MS, arrive)
            return
        if luck.chance(weather.loses):
            return
        times = 2 if luck.chance(weather.repeats) else 1
        for _ in range(times):
            delay_ms = luck.between(LEAST_HOP_MS, 20)
            if luck.chance(weather.delays):
                delay_ms = luck.between(20, 4_000)
            if luck.chance(weather.lingers):
                delay_ms = luck.between(5_000, 600_000)
            self._deliver(delay_ms, arrive)

    def _deliver(self, delay_ms: int, arrive: Callable[[], None]) -> None:
        self.on_their_way += 1

        def arrived() -> None:
            self.on_their_way -= 1
            arrive()

        self.clock.after(delay_ms, arrived)

    def take(self, letter: Letter) -> None:
        """The broker has a message: keep it if it is to be kept, and pass it on."""
        if not self._is_up:
            return
        if letter.envelope.is_retained:
            self._retained[letter.envelope.topic] = letter
        for line in self._lines:
            if line.hears(letter.envelope.topic):
                line.down(letter)
        if self.weather.broker_keeps and not self._is_fair and not letter.envelope.is_retained:
            for name, line in self._latest.items():
                kept = self._kept.setdefault(name, [])
                if line.is_missed(letter.envelope.topic) and len(kept) < MOST_KEPT:
                    kept.append(letter)

    def greet(self, line: "Line") -> None:
        """What was retained, to who has just subscribed; and what came for him meanwhile, if the broker keeps that."""
        for topic, letter in list(self._retained.items()):
            if line.hears(topic):
                line.down(letter)
        for letter in self._kept.pop(line.name, ()):
            line.down(letter)


class Line:
    """One client's connection, as the client and as the broker see it: for some seconds the two may differ."""

    def __init__(
        self,
        wires: Wires,
        name: str,
        subscriptions: Sequence[str],
        hear: Callable[[LinkEvent], None],
        will: Envelope | None,
    ) -> None:
        self.name = name
        self._wires = wires
        self._clock = wires.clock
        self._luck = wires._luck.of(name)
        self._filters = [topic.split("/") for topic in subscriptions]
        self._hear = hear
        self._will = will
        self._is_wanted = False
        self._connection = 0
        """Grows with every connection: what belongs to a former one is lost."""
        self._client_up = False
        self._broker_up = False
        self._cut_until = {"up": 0, "down": 0}
        self._held: dict[str, list[Callable[[], None]]] = {"up": [], "down": []}

    @property
    def is_up(self) -> bool:
        """Whether the client believes to be connected."""
        return self._client_up

    def open(self) -> None:
        """Begin to connect."""
        self._is_wanted = True
        self._clock.after(self._luck.between(5, 400), self._connect)

    def die(self) -> None:
        """The client's process is gone: the broker finds out at once (a socket closed) or when it hears nothing."""
        self._is_wanted = False
        self._client_up = False
        connection = self._connection
        for held in self._held.values():
            held.clear()
        notices_ms = self._luck.pick((1, 5, 50, GIVEN_UP_AFTER_MS))
        self._clock.after(notices_ms, lambda: self._given_up(connection))

    def publish(self, letter: Letter) -> bool:
        """Hand a message to the network; False when there is none."""
        if not self._client_up:
            return False
        connection = self._connection
        may = not letter.envelope.topic.endswith("/presence")

        def arrive() -> None:
            if self._connection == connection and (self._broker_up or not self._is_wanted):
                self._pass("up", lambda: self._wires.take(letter))

        self._wires.carry(letter, may, arrive)
        return True

    def hears(self, topic: str) -> bool:
        """Whether the broker believes the client there and subscribed to this."""
        return self._broker_up and any(_fits(each, topic.split("/")) for each in self._filters)

    def is_missed(self, topic: str) -> bool:
        """Whether the client is away, as far as the broker knows, and wants to hear this when it comes back."""
        return not self._broker_up and any(_fits(each, topic.split("/")) for each in self._filters)

    def down(self, letter: Letter) -> None:
        """From the broker to the client."""
        connection = self._connection
        may = not letter.envelope.topic.endswith("/presence")
        envelope = letter.envelope

        def arrive() -> None:
            # What a broker kept for a client is handed over whichever connection it comes back on.
            if self._client_up and (self._connection == connection or may):
                self._pass("down", lambda: self._heard(Heard(envelope.topic, envelope.payload, letter.signature)))

        self._wires.carry(letter, may, arrive)

    def _heard(self, heard: Heard) -> None:
        if self._client_up:
            self._hear(heard)

    # Bad luck.

    def cut(self, direction: str, for_ms: int) -> None:
        """Hold what passes this way for so long; who hears nothing long enough gives the connection up."""
        until_ms = self._clock.now_ms + for_ms
        for way in ("up", "down") if direction == "both" else (direction,):
            self._cut_until[way] = max(self._cut_until[way], until_ms)
            self._clock.at(until_ms, lambda way=way: self._let_go(way))  # type: ignore[misc]  # bound now
        connection = self._connection
        if for_ms > GIVEN_UP_AFTER_MS:
            self._clock.after(GIVEN_UP_AFTER_MS, lambda: self._given_up(connection))
        if for_ms > NOTICED_AFTER_MS:
            self._clock.after(NOTICED_AFTER_MS, lambda: self._noticed(connection))

    def mend(self) -> None:
        """Nothing is cut any more."""
        for way in self._cut_until:
            self._cut_until[way] = 0
            self._let_go(way)

    def broken(self, why: str, noticed_in_ms: int) -> None:
        """The broker's end is gone at once, the client finds out in so long."""
        connection = self._connection
        self._broker_up = False
        self._clock.after(noticed_in_ms, lambda: self._noticed(connection, why))

    def _pass(self, way: str, go: Callable[[], None]) -> None:
        if self._cut_until[way] > self._clock.now_ms:
            self._held[way].append(go)
        else:
            go()

    def _let_go(self, way: str) -> None:
        if self._cut_until[way] <= self._clock.now_ms:
            held, self._held[way] = self._held[way], []
            for go in held:
                go()

    def _given_up(self, connection: int) -> None:
        """The broker has not heard of the client for too long: its will is said."""
        if connection != self._connection or not self._broker_up:
            return
        self._broker_up = False
        self._held["up"].clear()
        if self._will is not None:
            self._wires.take(Letter(self._will, None))

    def _noticed(self, connection: int, why: str = "keep alive timeout") -> None:
        if connection != self._connection or not self._client_up:
            return
        self._client_up = False
        self._held["down"].clear()
        self._hear(LinkDown(why))
        self._clock.after(self._luck.between(1_000, 8_000), self._connect)

    def _connect(self) -> None:
        if not self._is_wanted or self._client_up:
            return
        now_ms = self._clock.now_ms
        if not self._wires.is_up or max(self._cut_until.values()) > now_ms:
            self._clock.after(self._luck.between(1_000, 8_000), self._connect)
            return
        if self._broker_up and self._will is not None:
            # The broker still believed in the former connection; taken over, its will is said.
            self._broker_up = False
            self._wires.take(Letter(self._will, None))
        self._connection += 1
        self._client_up = self._broker_up = True
        self._hear(LinkUp())
        self._wires.greet(self)


def _fits(filtered: Sequence[str], topic: Sequence[str]) -> bool:
    return len(filtered) == len(topic) and all(a in ("+", b) for a, b in zip(filtered, topic, strict=True))
