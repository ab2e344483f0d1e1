"""What is promised, each promise with its checker: the docstring is the promise.

A checker watches every step of every process, so that a promise broken for a moment is seen even when the day ends
well, and looks at all disks once everything has healed.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cloud_hub import ledgers
from cloud_hub.events import Notice, NoticeWanted, Planned
from cloud_hub.fleet import AgentRecord, Chain, Closures, DeadLetter, Order, StopRecord
from cloud_hub.hub import HubCore
from cloud_hub.planning import with_told
from cloud_hub.promises import Promise as Told
from cloud_hub.storage import DecisionsAsked
from cloud_hub.storage.embedded import EmbeddedStore
from edge_agent.agent import AgentCore
from edge_agent.dialogue import OutcomeSaid, Reply, Said
from edge_agent.memory import Books, Day
from edge_agent.telemetry import Account
from shared import wire
from shared.contracts import Plan
from shared.ledger import Decision
from shared.messages import (
    Ack,
    AmendmentTaken,
    Numbered,
    PlanPushed,
    PlanRefused,
    PlanTaken,
    Resequenced,
    TooLate,
    WorkAmended,
)
from shared.quantities import TimeWindow
from shared.steps import Consequences, Envelope, Row
from shared.topics import HUB
from shared.work import AgentId
from tests.simulation.disks import Disk
from tests.simulation.town import RISES_MS, Household

if TYPE_CHECKING:
    from tests.simulation.machines import AgentMachine, Machine
    from tests.simulation.universe import Universe


class Broken(BaseException):
    """A promise was broken. Not an Exception: no process of the universe may catch it and live on."""

    def __init__(self, promise: "Promise", words: str) -> None:
        super().__init__(words)
        self.promise = type(promise).__name__
        self.sentence = " ".join((type(promise).__doc__ or "").split())


class Facts:
    """What checkers share: who there is, and how the day ended."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.homes: list[Household] = []
        self.agents: Mapping[AgentId, AgentMachine] = {}
        self.hub_kept: Any = None
        self.forgotten: list[Household] = []
        self.did_converge = False
        self.left_over: dict[str, Any] = {}
        self.acting_hub = ""
        self.said_ms: dict[str, int] = {}
        self.now_ms: Callable[[], int] = lambda: 0


class Promise:
    """A promise; each method sees one kind of thing that happens."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def breaks(self, words: str) -> None:
        """Say how the promise was broken. Raises Broken."""
        raise Broken(self, words)

    def woken(self, machine: "Machine") -> None:
        """A process has read its disk, and has not taken its first step."""

    def taking(self, machine: "Machine", events: Sequence[Any]) -> None:
        """A step begins."""

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        """Rows are on the disk; `machine.kept` has them."""

    def taken(self, machine: "Machine", events: Sequence[Any], made: Consequences) -> None:
        """A step is committed."""

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        """This is about to be said."""

    def replied(self, van: str, key: str, said: Said, reply: Any) -> None:
        """A driver is answered."""

    def notified(self, wanted: NoticeWanted) -> None:
        """The post office takes a notice."""

    def ended_running(self, universe: "Universe") -> None:
        """Everything has healed and is still running."""

    def ended(self, universe: "Universe") -> None:
        """All processes are gone; the disks are left."""


class Converges(Promise):
    """Once everything has healed, everything said is heard, everything asked is done, and nothing waits any more."""

    def ended_running(self, universe: "Universe") -> None:
        if not self.facts.did_converge:
            self.breaks(f"still waiting: {self.facts.left_over}")


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


class NothingUndated(Promise):
    """Nothing leaves a van under a date that was not: a clock that is wrong is put right before anybody hears of it."""

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        if not envelope.topic.endswith("/up/events"):
            return
        said_ms = wire.decode_numbered(envelope.payload).said_ms
        if not RISES_MS <= said_ms <= machine.clock.now_ms:
            self.breaks(f"{machine.name} says at {machine.clock.now_ms} what it dates {said_ms}")


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


class VisitsOnce(Promise):
    """Every visit a driver was told is recorded is at the hub, once, with the same outcome and at the right time."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._recorded: dict[tuple[str, str], str] = {}
        self._when: dict[tuple[str, str], tuple[int, int]] = {}

    def replied(self, van: str, key: str, said: Said, reply: Any) -> None:
        if isinstance(said, OutcomeSaid) and isinstance(reply, Reply) and reply.status == 200:
            former = self._recorded.get((van, said.stop_id))
            if former is not None and former != said.outcome.value:
                self.breaks(f"{van} recorded {said.stop_id} as {former}, then as {said.outcome.value}")
            self._recorded[van, said.stop_id] = said.outcome.value
            spoken_ms = self.facts.said_ms.get(key, self.facts.now_ms())
            self._when.setdefault((van, said.stop_id), (spoken_ms, self.facts.now_ms()))

    def ended(self, universe: "Universe") -> None:
        room = universe.facts.hub_kept.room("stops")
        records = {key: msgspec.json.decode(doc, type=StopRecord) for key, doc in room.items()}
        letters = _dead_letters(universe)
        for (van, stop_id), outcome in sorted(self._recorded.items()):
            record = records.get(stop_id)
            if record is None and _is_forgotten(universe, stop_id):
                continue
            found = () if record is None else record.visits
            same = [visit for visit in found if visit.outcome.value == outcome]
            buried = [each for each in letters if each.sender == van and f'"{stop_id}"' in each.payload]
            if len(same) != 1 and not buried:
                self.breaks(f"{van} recorded {stop_id} as {outcome}, the hub has {[v.outcome.value for v in found]}")
            if buried:
                continue  # Another van has it by the books: whose visit counts a person has to say.
            first_ms, last_ms = self._when[van, stop_id]
            # How long a machine was off between two lives that did not know the time nobody can find out.
            unknown_ms = universe.agents[AgentId(van)].never_known_ms
            for visit in same:
                if not first_ms - unknown_ms <= visit.left_ms <= last_ms + unknown_ms:
                    self.breaks(f"{van} left {stop_id} at {first_ms} to {last_ms}, the hub has {visit.left_ms}")
        for stop_id, record in sorted(records.items()):
            if len(record.visits) != len({visit.arrived_ms for visit in record.visits}):
                self.breaks(f"the hub has a visit of {stop_id} twice")


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


class SamePlan(Promise):
    """Agent and hub hold the same plan version, the same stops to come, and the same windows told."""

    def ended(self, universe: "Universe") -> None:
        hub = universe.facts.hub_kept
        plans = {key: msgspec.json.decode(doc, type=Plan) for key, doc in hub.room("plans").items()}
        records = {key: msgspec.json.decode(doc, type=StopRecord) for key, doc in hub.room("stops").items()}
        told = {key: msgspec.json.decode(doc, type=Told) for key, doc in hub.room("promises").items()}
        for name, machine in universe.agents.items():
            kept = machine.kept.room("plan").get("plan")
            own = None if kept is None else msgspec.json.decode(kept, type=Plan)
            theirs = plans.get(name)
            versions = tuple(0 if plan is None else plan.plan_version for plan in (own, theirs))
            if versions[0] != versions[1]:
                self.breaks(f"{name} drives plan {versions[0]}, the hub believes {versions[1]}")
            if own is None:
                continue
            day = msgspec.json.decode(machine.kept.room("day").get("day", b"{}"), type=Day)
            to_come = set(day.shown)
            believed = {key for key, record in records.items() if record.agent == name and record.state != "done"}
            if day.shift != "ended" and to_come != believed:
                self.breaks(f"{name} has {sorted(to_come)} to come, the hub believes {sorted(believed)}")
            self._same_windows(name, machine, own, told, to_come & believed)

    def _same_windows(
        self, name: str, machine: "AgentMachine", plan: Plan, told: Mapping[str, Told], stops: set[Any]
    ) -> None:
        later = machine.kept.room("told")
        for stop in plan.stops:
            if stop.stop_id not in stops or stop.stop_id not in told:
                continue
            newer = later.get(stop.stop_id)
            window = stop.told if newer is None else msgspec.json.decode(newer, type=TimeWindow)
            promised = told[stop.stop_id].told
            if window not in (promised, with_told(stop, promised).told):
                self.breaks(f"{name} holds {stop.stop_id} to {window}, the customer was told {promised}")


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
                self.breaks(f"{name} knows other '{part}' than its disk: {_difference(running[part], recovered[part])}")


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


class DecisionsHold(Promise):
    """Every decision chain verifies from its first record to its last, and has no break."""

    def ended(self, universe: "Universe") -> None:
        store = _hub_store(universe)
        chains = {key: msgspec.json.decode(doc, type=Chain) for key, doc in store.documents("chains")}
        verdict = ledgers.verified(store.chained(), chains)
        store.close()
        bad = [chain for chain in verdict.chains if chain.wrong]
        if bad or not verdict.holds:
            self.breaks(f"{bad[0].node}: {bad[0].first_bad}: {bad[0].wrong}")
        broken = [chain.node for chain in chains.values() if chain.breaks]
        if broken:
            self.breaks(f"the chain of {broken[0]} is broken")
        for name, machine in universe.agents.items():
            books = machine.kept.room("agent").get("books")
            own = Books() if books is None else msgspec.json.decode(books, type=Books)
            kept = chains.get(name, Chain(name))
            if (kept.count, kept.link) != (own.decisions, own.link):
                self.breaks(f"{name} made {own.decisions} decisions, the hub has {kept.count} of them")


class NoticesOncePerId(Promise):
    """A notice reaches its customer once per id: every copy says the same, none was unknown to the disk, and one that
    is called delivered was.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._given: dict[str, Notice] = {}
        self._known: set[str] = set()

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        # Not only what is due now: a hub that stalled gives what the one that replaced it has settled meanwhile.
        self._known.update(row.key for row in rows if row.room == "notices_due" and row.value is not None)

    def notified(self, wanted: NoticeWanted) -> None:
        notice, before = wanted.notice, self._given.get(wanted.need)
        if wanted.need not in self._known:
            self.breaks(f"notice {wanted.need} was sent and was never on the disk")
        said = (notice.told, notice.kind, notice.next_step, notice.place)
        if before is not None and (before.told, before.kind, before.next_step, before.place) != said:
            self.breaks(f"notice {wanted.need} said {before.kind} {before.told}, and then {notice.kind} {notice.told}")
        self._given[wanted.need] = notice

    def ended(self, universe: "Universe") -> None:
        store = _hub_store(universe)
        for key, doc in store.documents("notices"):
            if msgspec.json.decode(doc)["state"] == "delivered" and key not in self._given:
                self.breaks(f"notice {key} is called delivered and nobody was given it")
        store.close()


class ForgottenNowhere(Promise):
    """Who is forgotten is nowhere: not in a row, not in a log, not in a free page of any disk; in a van, once it has
    left the door.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._gone: set[str] = set()

    def committed(self, machine: Any, rows: Sequence[Row]) -> None:
        if machine.name in self.facts.agents:
            return
        for row in rows:
            if row.room == "orders" and row.value is not None and b'"is_forgotten":true' in row.value:
                self._gone_at_once(machine, row.key)

    def _gone_at_once(self, hub: Any, order_id: str) -> None:
        """The commit that forgets leaves nothing at the hub: not even what waits to be said."""
        if order_id in self._gone:
            return
        self._gone.add(order_id)
        secrets = [secret for home in self.facts.homes if home.order.order_id == order_id for secret in home.secrets]
        for room, docs in sorted(hub.kept.rooms.items()):
            for key, doc in docs.items():
                if any(secret.encode() in doc for secret in secrets):
                    self.breaks(f"{order_id} is forgotten and still in {hub.name}'s {room}/{key}: {doc[:300]!r}")

    def ended(self, universe: "Universe") -> None:
        orders = {
            key: msgspec.json.decode(doc, type=Order) for key, doc in universe.facts.hub_kept.room("orders").items()
        }
        for home in self.facts.forgotten:
            if not orders[home.order.order_id].is_forgotten:
                self.breaks(f"{home.order.order_id} was to be forgotten and is not")
        gone = [home for home in self.facts.homes if home.order.order_id in orders
                and orders[home.order.order_id].is_forgotten]  # fmt: skip
        if not gone:
            return
        disks: list[tuple[str, Disk, tuple[Any, ...]]] = [("hub", universe.hub.disk, ())]
        for name, machine in universe.agents.items():
            day = msgspec.json.decode(machine.kept.room("day").get("day", b"{}"), type=Day)
            disks.append((name, machine.disk, day.forgetting))
        for owner, disk, not_left in disks:
            at_the_door = {stop_id.partition(".")[0] for stop_id in not_left}
            left = [home for home in gone if home.order.stop is None or home.order.stop.stop_id not in at_the_door]
            for file in disk.files():
                content = file.read_bytes()
                for home, secret in ((one, secret) for one in left for secret in one.secrets):
                    found = content.find(secret.encode())
                    if found >= 0:
                        near = content[max(0, found - 60) : found + 60]
                        self.breaks(f"'{secret}' of {home.order.order_id} is in {owner}'s {file.name}: {near!r}")


class ToldInsideSlot(Promise):
    """A window told never leaves the slot that was sold, unless a decision calls that a breach."""

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        if machine.name in self.facts.agents:
            return
        decided = None
        for row in rows:
            if row.room != "promises" or row.value is None:
                continue
            promise = msgspec.json.decode(row.value, type=Told)
            if promise.told.within(promise.slot) or promise.is_breached:
                continue
            if decided is None:
                decided = [each.key for each in rows if each.room == "decisions"]
            self.breaks(f"{promise.stop_id} is told {promise.told} outside {promise.slot} and is no breach")

    def ended(self, universe: "Universe") -> None:
        store = _hub_store(universe)
        kinds = {
            decision.decision_id: decision.kind
            for decision in (_decision_of(row.doc) for row in store.decisions(DecisionsAsked(most=100_000)))
        }
        for _, doc in store.documents("promises"):
            for telling in msgspec.json.decode(doc, type=Told).tellings:
                kind = kinds.get(telling.decision_id)
                if telling.kind == "breach" and kind not in ("promise_breached", "change_came_too_late"):
                    self.breaks(f"a breach was told by decision {telling.decision_id}, which is {kind}")
        store.close()


class NoLetterWithoutReason(Promise):
    """What was taken and not acted upon is kept as a dead letter with its reason."""

    def ended(self, universe: "Universe") -> None:
        for letter in _dead_letters(universe):
            if not letter.why:
                self.breaks(f"number {letter.seq} of {letter.sender} lies dead without a reason")


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


class RoadsKnown(Promise):
    """When all is quiet every van on the road drives by leg times that know the closed streets."""

    def ended(self, universe: "Universe") -> None:
        hub = universe.facts.hub_kept
        version = max((msgspec.json.decode(d, type=Closures).version for d in hub.room("roads").values()), default=0)
        for name, machine in universe.agents.items():
            record = msgspec.json.decode(hub.room("agents")[name], type=AgentRecord)
            plan = machine.kept.room("plan")
            if record.shift == "ended" or "plan" not in plan:
                continue
            if msgspec.json.decode(plan["plan"], type=Plan).shift_end_ms < universe.clock.now_ms:
                continue  # Other leg times are of no use behind the shift's end.
            legs = msgspec.json.decode(plan["plan"], type=Plan).legs.roads_version
            if "legs" in plan:
                legs = max(legs, msgspec.json.decode(plan["legs"])["roads_version"])
            if legs != version:
                self.breaks(f"{name} drives by roads {legs}, closed streets are at {version}")


class HeadStays(Promise):
    """A re-sequence never takes away the stop the van heads for or stands at."""

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        if machine.name not in self.facts.agents:
            return
        for row in rows:
            if row.room != "outbox" or row.value is None or b'"resequenced"' not in row.value:
                continue
            message = wire.decode_numbered(row.value).message
            if isinstance(message, Resequenced):
                day = msgspec.json.decode(machine.kept.room("day")["day"], type=Day)
                head = day.at_stop or day.heading_to
                if head is not None and message.after[:1] != (head,) and head in message.before:
                    self.breaks(f"{machine.name} puts {message.after[:1]} before {head}, where it is under way")


class PresenceTrue(Promise):
    """When all is quiet the hub knows who is there, and in which life."""

    def ended_running(self, universe: "Universe") -> None:
        for name, machine in universe.agents.items():
            record = msgspec.json.decode(universe.facts.hub_kept.room("agents")[name], type=AgentRecord)
            life = machine.identity().life
            if not record.is_there or record.life != life:
                self.breaks(f"{name} is there as {life}, the hub believes {record.is_there} as {record.life}")


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


# Where things are.


def _hub_store(universe: "Universe") -> EmbeddedStore:
    return EmbeddedStore(universe.hub.disk.at / "hub.db")


def _dead_letters(universe: "Universe") -> list[DeadLetter]:
    store = _hub_store(universe)
    try:
        return [msgspec.json.decode(doc, type=DeadLetter) for _, doc in store.documents("dead_letters")]
    finally:
        store.close()


def _is_forgotten(universe: "Universe", stop_id: str) -> bool:
    for doc in universe.facts.hub_kept.room("orders").values():
        order = msgspec.json.decode(doc, type=Order)
        if stop_id in order.visits:
            return order.is_forgotten
    return False


def _decision_of(doc: bytes) -> Decision:
    return msgspec.json.decode(msgspec.json.decode(doc, type=_Kept).decision, type=Decision)


class _Kept(msgspec.Struct, frozen=True):
    decision: msgspec.Raw


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return ", ".join(f"{key}: {one.get(key)} against {other.get(key)}" for key in keys[:3])
    return f"{one} against {other}"


ALL: tuple[type[Promise], ...] = (
    OneHubActs, NothingUndated, CommitBeforeSpeak, AckAfterCommit, CommandsOnce, AnswersOnce, OldAnswersUnused,
    NobodySpins, HeadStays, ToldInsideSlot, NoticesOncePerId, EventsOnceInOrder, Converges, MemoryEqualsDisk,
    PresenceTrue, VisitsOnce, SamplesAddUp, SamePlan, DecisionsHold, ForgottenNowhere, NoLetterWithoutReason,
    RoadsKnown,
)  # fmt: skip
