"""A busy hour of a large fleet: a real simulated day of three vans, copied under other names as often as wanted.

Nothing plans 300 vans at once here, and a fleet of copies loads a hub as a fleet does: its books have as many orders,
stops and promises, and every message is one that a real core said on a real day. What is copied is everything the hub's
store held at the beginning of the hour, and everything the vans said during it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared import topics, wire
from shared.ledger import Decision
from shared.messages import Numbered
from shared.steps import Envelope, Row
from tests.universe.day import Universe
from tests.universe.town import VANS, Town

HOUR_MS = 3_600_000


@dataclass(slots=True)
class Hour:
    """What the hub's store held at `from_ms`, and what was said until `to_ms`: (instant, van, envelope)."""

    from_ms: int
    to_ms: int
    day: str
    vans: tuple[str, ...]
    rooms: dict[str, dict[str, bytes]] = field(default_factory=dict)
    up: list[tuple[int, str, Envelope]] = field(default_factory=list)
    down: list[tuple[int, Envelope]] = field(default_factory=list)


class RecordedDay(Universe):
    """A universe that remembers everything that crossed the wire, and the hub's store at one hour."""

    def __init__(
        self,
        town: Town,
        seed: int,
        from_hour: float = 11.0,
        to_hour: float = 12.0,
        vans: Sequence[str] = VANS,
        most_orders: int = 10_000,
    ) -> None:
        super().__init__(town, seed, vans=vans, most_orders=most_orders)
        self.hour = Hour(town.at(seed, from_hour), town.at(seed, to_hour), town.day(seed), tuple(vans))
        self.whole_day: list[tuple[int, str, str, Envelope]] = []
        """Instant, van ("" for everybody), "up" or "down", and what was said."""

    def _flush(self) -> None:
        if not self.hour.rooms and self.now_ms >= self.hour.from_ms:
            self.hour.rooms = {room: dict(rows) for room, rows in self.hub_store.rooms.items()}
        super()._flush()

    def _heard(self, cell: Any, envelope: Envelope) -> Any:
        self.whole_day.append((self.now_ms, cell.name, "up", envelope))
        if self.hour.rooms and self.now_ms < self.hour.to_ms:
            self.hour.up.append((self.now_ms, cell.name, envelope))
        return super()._heard(cell, envelope)

    def _deliver_down(self, envelope: Envelope) -> None:
        place = topics.read(envelope.topic)
        van = "" if place.carries == "presence" else place.party
        self.whole_day.append((self.now_ms, van, "down", envelope))
        super()._deliver_down(envelope)


class Copies:
    """The same hour for many vans: copy k of van-1 is van-1x<k>, its orders and stops are named alike."""

    def __init__(self, hour: Hour, vans: int) -> None:
        """`vans` is rounded up to whole copies of the recorded day."""
        self._hour = hour
        self.count = -(-vans // len(hour.vans))
        orders = hour.rooms.get("orders", {})
        stops = hour.rooms.get("stops", {})
        customers = hour.rooms.get("customers", {})
        names = sorted({*hour.vans, *orders, *stops, *customers}, key=len, reverse=True)
        self._pattern = re.compile("|".join(rf"\b{re.escape(name)}\b(?!x)" for name in names))

    @property
    def vans(self) -> list[str]:
        """Every van's name."""
        return [self._named(van, k) for k in range(self.count) for van in self._hour.vans]

    def rows(self) -> Iterator[Row]:
        """The hub's rows, for all copies. What is the hub's alone (its own record, closed streets) is there once."""
        for room, kept in sorted(self._hour.rooms.items()):
            for key, doc in sorted(kept.items()):
                text = doc.decode()
                if room == "decisions" or not (self._pattern.search(key) or self._pattern.search(text)):
                    continue
                for k in range(self.count):
                    yield Row(room, self._renamed(key, k), self._renamed(text, k).encode())
            for key, doc in sorted(kept.items()):
                if room != "decisions" and not (self._pattern.search(key) or self._pattern.search(doc.decode())):
                    yield Row(room, key, doc)

    def said(self) -> Iterator[tuple[int, str, Envelope]]:
        """Everything said during the hour, in time's order, every van's records chained anew."""
        links: dict[str, str] = {}
        for at_ms, van, envelope in self._hour.up:
            for k in range(self.count):
                yield at_ms, self._named(van, k), self._copied(envelope, self._named(van, k), k, links)

    def _copied(self, envelope: Envelope, van: str, k: int, links: dict[str, str]) -> Envelope:
        topic = self._renamed(envelope.topic, k)
        if topics.read(envelope.topic).carries == "telemetry":
            batch = msgspec.structs.replace(wire.decode_telemetry(envelope.payload), sender=van)
            return envelope._replace(topic=topic, payload=wire.encode_telemetry(batch))
        payload = self._renamed(envelope.payload.decode(), k).encode()
        if topics.read(envelope.topic).carries == "events":
            payload = wire.encode(_rechained(wire.decode_numbered(payload), van, links))
        return envelope._replace(topic=topic, payload=payload)

    def _renamed(self, text: str, k: int) -> str:
        return self._pattern.sub(lambda found: self._named(found.group(), k), text)

    def _named(self, name: str, k: int) -> str:
        return f"{name}x{k:03d}"


def _rechained(numbered: Numbered, van: str, links: dict[str, str]) -> Numbered:
    decision: Decision | None = getattr(numbered.message, "decision", None)
    if decision is None:
        return numbered
    if van in links:
        decision = msgspec.structs.replace(decision, previous=links[van])
    links[van] = decision.link()
    return msgspec.structs.replace(numbered, message=msgspec.structs.replace(numbered.message, decision=decision))


def record(town: Town, seed: int) -> RecordedDay:
    """Live one whole day and keep what crossed the wire."""
    day = RecordedDay(town, seed)
    day.run()
    return day
