"""What is said is taken once: events, commands, samples, answers."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cloud_hub.events import Planned
from cloud_hub.fleet import AgentRecord
from edge_agent.dialogue import Reply, Said
from edge_agent.memory import Books
from edge_agent.telemetry import Account
from shared import wire
from shared.messages import (
    AmendmentTaken,
    Numbered,
    PlanPushed,
    PlanRefused,
    PlanTaken,
    TooLate,
    WorkAmended,
)
from shared.steps import Consequences, Row
from tests.simulation.promises.promise import Facts, Promise, dead_letters

if TYPE_CHECKING:
    from tests.simulation.machines import Machine
    from tests.simulation.universe import Universe


class EventsOnceInOrder(Promise):
    """Every event an agent said is taken by the hub exactly once and in its order."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._said: dict[tuple[str, str, int], bytes] = {}
        self._marks: dict[str, int] = {}

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        if machine.name in self.facts.agents:
            self._note_said(machine, rows)
            return
        for row in rows:
            if row.room == "taken" and row.value is not None:
                upto, before = msgspec.json.decode(row.value)["upto"], self._marks.get(row.key, 0)
                # Several of one batch share a commit, each with its own row.
                if upto != before + 1:
                    self.breaks(f"{row.key} goes from {before} to {upto}")
                self._marks[row.key] = upto

    def _note_said(self, machine: "Machine", rows: Sequence[Row]) -> None:
        for row in rows:
            if row.room != "outbox" or row.value is None:
                continue
            _, stream, number = row.key.split("/")
            key = (machine.name, stream, int(number))
            if key in self._said and self._said[key] != row.value and stream != "objects":
                self._said_anew(key, row.value)
            self._said[key] = bytes(row.value)

    def _said_anew(self, key: tuple[str, str, int], value: bytes) -> None:
        if key[1] == "telemetry":
            batch = wire.decode_telemetry(value)
            if len(batch.at_ms) or not batch.thinned:
                self.breaks(f"batch {key[2]} of {key[0]} was other samples before")
            return
        before, now = wire.decode_numbered(self._said[key]), wire.decode_numbered(value)
        if type(before.message) is not type(now.message):
            self.breaks(f"number {key[2]} of {key[0]} was {type(before.message).__name__} before")

    def ended(self, universe: "Universe") -> None:
        for name, machine in universe.agents.items():
            counters = machine.kept.room("counters")
            for stream in ("events", "objects"):
                said = sum(key[0] == name and key[1] == stream for key in self._said)
                numbered = int(counters.get(f"hub/{stream}/", b"1")) - 1
                if said != numbered:
                    self.breaks(f"{name} numbered {numbered} {stream} and kept {said}")
                upto = self._marks.get(f"{name}/{stream}", 0)
                if upto != said:
                    self.breaks(f"{name} said {said} {stream}, the hub took {upto}")
            record = msgspec.json.decode(universe.facts.hub_kept.room("agents")[name], type=AgentRecord)
            events = sum(key[0] == name and key[1] == "events" for key in self._said)
            if record.events_taken != events:
                self.breaks(f"{name} said {events} events, the hub acted on {record.events_taken}")


class CommandsOnce(Promise):
    """No command is obeyed twice, after its start-by time, or under an epoch that is over; and none is left out."""

    WORK = ("plan", "told", "visits")

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._before: dict[str, Any] = {}
        self._pushed: dict[tuple[str, int], Numbered] = {}
        self._amended: Counter[str] = Counter()
        self._pushes: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._counted: set[tuple[str, str]] = set()

    def taking(self, machine: Any, events: Sequence[Any]) -> None:
        if machine.name not in self.facts.agents:
            return
        commands = [event for event in events if isinstance(event, Numbered)]
        if len(commands) != 1 or len(events) != 1:
            self._before.pop(machine.name, None)
            return
        command = commands[0]
        mark = machine.kept.room("taken").get("hub/commands")
        upto = 0 if mark is None else msgspec.json.decode(mark)["upto"]
        books = machine.kept.room("agent").get("books")
        epoch = 0 if books is None else msgspec.json.decode(books, type=Books).epoch
        start_by = command.start_by_ms
        if isinstance(command.message, PlanPushed):
            start_by = command.message.start_by_ms
        why = ""
        if command.seq <= upto:
            why = f"it is a repeat, {upto} were taken"
        elif command.epoch < epoch:
            why = f"it is of epoch {command.epoch}, {epoch} acts"
        elif start_by is not None and machine.now().domain_ms > start_by and machine.behind_ms is None:
            why = f"it was to be begun by {start_by}, now is {machine.now().domain_ms}"
        is_over = command.epoch < epoch
        self._before[machine.name] = (command, why, self._work(machine, is_over), is_over) if why else None

    def taken(self, machine: "Machine", events: Sequence[Any], made: Consequences) -> None:
        before = self._before.pop(machine.name, None)
        if before is not None and before[2] != self._work(machine, before[3]):
            command, why, _, _ = before
            self.breaks(f"{machine.name} obeys {type(command.message).__name__} {command.seq} although {why}")

    def _work(self, machine: "Machine", is_over: bool) -> Any:
        rooms = (*self.WORK, "taken") if is_over else self.WORK
        return {room: dict(machine.kept.room(room)) for room in rooms}

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        is_agent = machine.name in self.facts.agents
        for row in rows:
            if row.room != "outbox" or row.value is None:
                continue
            if is_agent and "/events/" in row.key and (machine.name, row.key) not in self._counted:
                self._counted.add((machine.name, row.key))
                self._count_answer(machine.name, wire.decode_numbered(row.value).message)
            elif not is_agent:
                self._note_command(row)

    def _count_answer(self, name: str, message: Any) -> None:
        if isinstance(message, PlanTaken | PlanRefused):
            self._answers[name, "plan"] += 1
        elif isinstance(message, AmendmentTaken) or (
            isinstance(message, TooLate) and message.command == "work_amended"
        ):
            self._answers[name, "amendment"] += 1

    def _note_command(self, row: Row) -> None:
        to, _, number = row.key.split("/")
        if (to, int(number)) in self._pushed:
            return
        assert row.value is not None
        said = wire.decode_numbered(row.value)
        self._pushed[to, int(number)] = said
        self._pushes[to] += isinstance(said.message, PlanPushed)
        self._amended[to] += isinstance(said.message, WorkAmended)

    def ended(self, universe: "Universe") -> None:
        for name in universe.agents:
            if self._answers[name, "plan"] != self._pushes[name]:
                self.breaks(f"{name} was sent {self._pushes[name]} plans and answered {self._answers[name, 'plan']}")
            if self._answers[name, "amendment"] < self._amended[name]:
                self.breaks(
                    f"{name} was sent {self._amended[name]} amendments and answered {self._answers[name, 'amendment']}"
                )
            mark = universe.agents[name].kept.room("taken").get("hub/commands")
            upto = 0 if mark is None else msgspec.json.decode(mark)["upto"]
            said = sum(key[0] == name for key in self._pushed)
            if upto != said:
                self.breaks(f"{name} was sent {said} commands and took {upto}")


class SamplesAddUp(Promise):
    """Every sample that was kept is stored, or thinned and declared; none is lost and none is stored twice."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._kept: dict[str, set[int]] = {}
        self._were_undated: set[str] = set()

    def committed(self, machine: Any, rows: Sequence[Row]) -> None:
        if machine.name not in self.facts.agents:
            return
        if machine.behind_ms is not None:
            self._were_undated.add(machine.name)
        for row in rows:
            is_batch = row.room == "telemetry" and row.key.isdigit()
            if row.value is not None and (is_batch or (row.room == "outbox" and "/telemetry/" in row.key)):
                at_ms = wire.decode_telemetry(row.value).at_ms.tolist()
                self._kept.setdefault(machine.name, set()).update(at_ms)

    def ended(self, universe: "Universe") -> None:
        connection = sqlite3.connect(universe.hub.disk.at / "telemetry.db")
        for name in universe.agents:
            rows = connection.execute("SELECT payload FROM segments WHERE sender = ?", (name,)).fetchall()
            batches = [wire.decode_telemetry(payload) for (payload,) in rows]
            stored = np.concatenate([np.zeros(0, np.int64), *(batch.at_ms for batch in batches)])
            places = Counter((batch.boot, batch.seq) for batch in batches)
            if len(places) != len(batches):
                self.breaks(f"the hub has batch {places.most_common(1)[0][0][1]} of {name} twice")
            declared = connection.execute(
                "SELECT COALESCE(SUM(thinned), 0) FROM ledger WHERE sender = ?", (name,)
            ).fetchone()[0]
            thinned = universe.agents[name].kept.room("telemetry").get("thinned")
            account = Account() if thinned is None else msgspec.json.decode(thinned, type=Account)
            kept, waiting = self._kept.get(name, set()), account.not_yet_declared
            if account.made < len(kept) and name not in self._were_undated:
                self.breaks(f"{name} says it made {account.made} samples, {len(kept)} were in its batches")
            if len(stored) + declared + waiting != account.made:
                self.breaks(
                    f"{name} made {account.made} samples: {len(stored)} are stored, {declared} declared thinned, "
                    f"{waiting} to be declared, {account.made - len(stored) - declared - waiting} lost"
                )
            if not set(stored.tolist()) <= kept:
                self.breaks(f"the hub has samples {name} never kept: {sorted(set(stored.tolist()) - kept)[:3]}")
        connection.close()


class AnswersOnce(Promise):
    """The same words under the same key are done once, and answered the same."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._answers: dict[str, Reply] = {}

    def replied(self, van: str, key: str, said: Said, reply: Any) -> None:
        former = self._answers.get(key)
        if former is not None and former.status < 300 and (reply.status, reply.title) != (former.status, former.title):
            self.breaks(f"{key} was answered {former.status}, and then {reply.status} {reply.title}")
        if former is None or former.status >= 300:
            self._answers[key] = reply


class OldAnswersUnused(Promise):
    """A job's answer to a question no longer asked changes nothing."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._before: dict[str, Any] = {}

    def taking(self, machine: "Machine", events: Sequence[Any]) -> None:
        self._before.pop(machine.name, None)
        if machine.name in self.facts.agents or len(events) != 1 or not isinstance(events[0], Planned):
            return
        need = machine.kept.room("needs").get("plan")
        if need is None or msgspec.json.decode(need)["need"] != events[0].need:
            self._before[machine.name] = dict(machine.kept.room("plans"))

    def taken(self, machine: "Machine", events: Sequence[Any], made: Consequences) -> None:
        before = self._before.pop(machine.name, None)
        if before is not None and before != machine.kept.room("plans"):
            self.breaks(f"{machine.name} takes a plan nobody asks for any more")


class NoLetterWithoutReason(Promise):
    """What was taken and not acted upon is kept as a dead letter with its reason."""

    def ended(self, universe: "Universe") -> None:
        for letter in dead_letters(universe):
            if not letter.why:
                self.breaks(f"number {letter.seq} of {letter.sender} lies dead without a reason")
