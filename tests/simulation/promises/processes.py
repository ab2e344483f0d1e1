"""What a process promises of itself: what it knows and says, and that it sleeps when there is nothing to do."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_hub.fleet import AgentRecord
from cloud_hub.hub import HubCore
from edge_agent.agent import AgentCore
from shared import wire
from shared.messages import (
    Ack,
)
from shared.steps import Consequences, Envelope, Row
from shared.topics import HUB
from tests.simulation.promises.promise import Facts, Promise
from tests.simulation.town import RISES_MS

if TYPE_CHECKING:
    from tests.simulation.machines import Machine
    from tests.simulation.universe import Universe


class OneHubActs(Promise):
    """Only the hub that acts for the region commits, and its epochs grow."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._epoch = 0
        self._by = ""

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        if machine.name in self.facts.agents:
            return
        epoch = machine.core.epoch
        if epoch < self._epoch:
            self.breaks(f"{machine.name} commits under epoch {epoch}, {self._epoch} acts")
        by = f"{machine.name}.{machine.life}"
        if epoch == self._epoch and by != self._by:
            self.breaks(f"{by} and {self._by} both commit under epoch {epoch}")
        self._epoch, self._by = epoch, by
        self.facts.acting_hub = machine.name


class NothingUndated(Promise):
    """Nothing leaves a van under a date that was not: a clock that is wrong is put right before anybody hears of it."""

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        if not envelope.topic.endswith("/up/events"):
            return
        said_ms = wire.decode_numbered(envelope.payload).said_ms
        if not RISES_MS <= said_ms <= machine.clock.now_ms:
            self.breaks(f"{machine.name} says at {machine.clock.now_ms} what it dates {said_ms}")


class CommitBeforeSpeak(Promise):
    """Nothing is said that a plug pulled a moment later would make untrue: what is numbered is on the disk."""

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        carries = envelope.topic.rpartition("/")[2]
        if carries not in ("events", "commands", "objects", "telemetry"):
            return
        sender = wire.decode_telemetry(envelope.payload) if carries == "telemetry" else None
        placed = sender or wire.decode_numbered_heading(envelope.payload)
        to = envelope.topic.split("/")[2] if carries == "commands" else HUB
        key = f"{to}/{carries}/{placed.seq:012d}"
        kept = machine.kept.room("outbox").get(key)
        if kept is None and carries == "commands" and machine.name != self._acting_name():
            return  # An old hub that does not know yet that another acts repeats what that one has heard the ack for.
        if kept is None:
            self.breaks(f"{machine.name} says {key}, which is not in its outbox on the disk")
        elif kept != envelope.payload and machine.name in self.facts.agents:
            self.breaks(f"{machine.name} says {key} in other words than its outbox on the disk has")

    def _acting_name(self) -> str:
        return self.facts.acting_hub

    def taken(self, machine: "Machine", events: Sequence[Any], made: Consequences) -> None:
        for row in made.rows:
            if row.room in ("outbox", "counters", "taken", "visits", "answered"):
                kept = machine.kept.room(row.room).get(row.key)
                last = [each.value for each in made.rows if each.room == row.room and each.key == row.key][-1]
                if kept != (None if last is None else bytes(last)):
                    self.breaks(f"{machine.name} goes on although {row.room}/{row.key} is not on the disk")


class AckAfterCommit(Promise):
    """Only what is committed is acknowledged."""

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        if not envelope.topic.endswith("/acks"):
            return
        ack = wire.decode_ack(envelope.payload)
        if ack.stream == "telemetry":
            self._telemetry(machine, ack)
            return
        mark = machine.kept.room("taken").get(f"{ack.sender}/{ack.stream}")
        upto = 0 if mark is None else msgspec.json.decode(mark)["upto"]
        if ack.upto > upto:
            self.breaks(
                f"{machine.name} acknowledges {ack.sender}/{ack.stream} up to {ack.upto}, on its disk is {upto}"
            )

    def _telemetry(self, hub: Any, ack: Ack) -> None:
        connection = sqlite3.connect(hub.disk.at / "telemetry.db")
        try:
            known = {
                seq
                for (seq,) in connection.execute(
                    "SELECT seq FROM ledger WHERE sender = ? AND boot = ?", (ack.sender, ack.boot)
                )
            }
        finally:
            connection.close()
        missing = [seq for seq in (*range(1, ack.upto + 1), *ack.beyond) if seq not in known]
        if missing:
            self.breaks(f"{hub.name} acknowledges batches {missing[:5]} of {ack.sender} that its ledger does not have")


class NobodySpins(Promise):
    """A process with nothing to do sleeps: it wakes for no more than a hundred steps a minute that bring nothing."""

    MOST = 100

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._idle: dict[str, tuple[int, int]] = {}
        self._is_idle: dict[str, bool] = {}

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        if self._is_idle.pop(machine.name, False):
            minute, count = self._idle[machine.name]
            self._idle[machine.name] = (minute, count - 1)

    def taken(self, machine: "Machine", events: Sequence[Any], made: Consequences) -> None:
        self._is_idle[machine.name] = False
        if events or made.rows or made.jobs:
            return
        minute, count = machine.clock.now_ms // 60_000, 1
        before = self._idle.get(machine.name)
        if before is not None and before[0] == minute:
            count = before[1] + 1
        self._idle[machine.name] = (minute, count)
        self._is_idle[machine.name] = True
        if count > self.MOST:
            wake = machine.core.wake(machine.now())
            self.breaks(f"{machine.name} took {count} steps in a minute for nothing; it wants to wake at {wake}")


class Converges(Promise):
    """Once everything has healed, everything said is heard, everything asked is done, and nothing waits any more."""

    def ended_running(self, universe: "Universe") -> None:
        if not self.facts.did_converge:
            self.breaks(f"still waiting: {self.facts.left_over}")


class MemoryEqualsDisk(Promise):
    """What a process wakes up with is what it knew: memory equals disk, and a commit that returned is on the disk."""

    def woken(self, machine: "Machine") -> None:
        saved = {room: rows for room, rows in machine.store.saved().items() if rows and room != "corrections"}
        kept = {room: rows for room, rows in machine.kept.rooms.items() if rows and room != "corrections"}
        if saved != kept:
            rooms = sorted(room for room in {*saved, *kept} if saved.get(room) != kept.get(room))
            self.breaks(f"{machine.name} wakes up and {rooms} are not as they were committed")

    def ended_running(self, universe: "Universe") -> None:
        for machine in universe.agents.values():
            again = AgentCore(machine.identity(), machine.store.saved())
            self._compare(machine.name, agent_memory(machine.core), agent_memory(again))
        hub = universe.hub
        again_hub = HubCore(hub.identity(), hub.store.saved())
        self._compare(hub.name, hub_memory(hub.core), hub_memory(again_hub))

    def _compare(self, name: str, running: Mapping[str, Any], recovered: Mapping[str, Any]) -> None:
        for part in running:
            if running[part] != recovered[part]:
                self.breaks(f"{name} knows other '{part}' than its disk: {difference(running[part], recovered[part])}")


def agent_memory(core: AgentCore) -> dict[str, Any]:
    """What an agent must not forget."""
    found = dict(core.durable())
    parts = dict(found.pop("parts"))
    parts.pop(("agent", "place"), None)  # Up to a minute of metres driven may be forgotten.
    return {**found, **{"/".join(key): part for key, part in parts.items()}}


def hub_memory(core: HubCore) -> dict[str, Any]:
    """What the hub must not forget."""
    memory, post = core._memory, core._post
    found: dict[str, Any] = {book.room: dict(book.items()) for book in memory._books() if book.room != "hub"}
    found["senders"] = {name: (each.next_seq, sorted(each._waiting)) for name, each in post._senders.items()}
    found["marks"] = post._receiver._marks
    mailbag = core._mailbag
    found["mailbag"] = (
        sorted({*mailbag._ready, *mailbag._asleep}),
        {k: sorted(v) for k, v in mailbag._of_order.items()},
    )
    return found


def difference(one: Any, other: Any) -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return ", ".join(f"{key}: {one.get(key)} against {other.get(key)}" for key in keys[:3])
    return f"{one} against {other}"


class PresenceTrue(Promise):
    """When all is quiet the hub knows who is there, and in which life."""

    def ended_running(self, universe: "Universe") -> None:
        for name, machine in universe.agents.items():
            record = msgspec.json.decode(universe.facts.hub_kept.room("agents")[name], type=AgentRecord)
            life = machine.identity().life
            if not record.is_there or record.life != life:
                self.breaks(f"{name} is there as {life}, the hub believes {record.is_there} as {record.life}")
