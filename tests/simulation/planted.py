"""Deliberate faults, each put into the real code for one universe after the other, until some promise is seen broken.

A green simulation says nothing until its checkers have been seen to fail. Every fault here is a mistake somebody could
make in one line; none is in the code.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np

import edge_agent.agent
import edge_agent.memory
from cloud_hub import attempts, customers, dayplan, forgetting, mailbag, memory, post, promises
from cloud_hub import telemetry as lane
from cloud_hub.books import Book
from cloud_hub.storage import Taken, embedded, embedded_telemetry
from edge_agent import answers, chain, commands, dating, navigator, outbox, proofs, store, telemetry, uplink
from edge_agent import round as agent_round
from shared import steps, streams
from shared.ledger import FIRST_LINK
from shared.messages import PersonForgotten
from shared.steps import Row
from shared.streams import Take
from tests.simulation import disks, town
from tests.simulation.promises import Broken
from tests.simulation.universe import Stage

Patch = tuple[Any, str, Any]


class Fault(NamedTuple):
    """A mistake in words, and what it replaces: object, name, and what stands there instead."""

    name: str
    patches: Callable[[], Sequence[Patch]]


FAULTS: list[Fault] = []


def fault(name: str) -> Callable[[Callable[[], Sequence[Patch]]], Callable[[], Sequence[Patch]]]:
    """Plant a fault of this name."""

    def planted(patches: Callable[[], Sequence[Patch]]) -> Callable[[], Sequence[Patch]]:
        FAULTS.append(Fault(name, patches))
        return patches

    return planted


@contextmanager
def planted(one: Fault) -> Iterator[None]:
    """The world with this fault in it."""
    with ExitStack() as stack:
        for holder, name, instead in one.patches():
            stack.enter_context(patch.object(holder, name, instead))
        yield


# Steps and stores.


@fault("speak before the commit")
def _speak_first() -> Sequence[Patch]:
    def step(core: Any, store: Any, events: Any, now: Any, at: Any = steps.nothing) -> Any:
        waiting = store.__dict__.setdefault("not_committed", [])
        if waiting:
            rows, store.not_committed = list(waiting), []
            store.commit(rows)
        made = core.handle(events, now)
        at("decided")
        store.not_committed = list(made.rows)
        at("committed")
        return made, [*made.envelopes, *core.due(now)]

    return [(steps, "step", step)]


@fault("acknowledge before the commit")
def _ack_first() -> Sequence[Patch]:
    def step(core: Any, store: Any, events: Any, now: Any, at: Any = steps.nothing) -> Any:
        made = core.handle(events, now)
        for each in [each for each in made.envelopes if each.topic.endswith("/acks")]:
            store.send(each)
        at("decided")
        if made.rows:
            store.commit(made.rows)
        at("committed")
        return made, [*(each for each in made.envelopes if not each.topic.endswith("/acks")), *core.due(now)]

    return [(steps, "step", step)]


@fault("a commit in two halves")
def _two_halves() -> Sequence[Patch]:
    def halved(real: Any) -> Any:
        def commit(self: Any, rows: Sequence[Row]) -> None:
            middle = len(rows) // 2
            if middle:
                real(self, rows[:middle])
            real(self, rows[middle:])

        return commit

    return [
        (embedded.EmbeddedStore, "commit", halved(embedded.EmbeddedStore.commit)),
        (store.SqliteStore, "commit", halved(store.SqliteStore.commit)),
    ]


@fault("the fence is not checked")
def _no_fence() -> Sequence[Patch]:
    return [(disks.HubStoreOnDisk, "checks_fence", lambda self: None)]


@fault("a book forgets that it changed")
def _book() -> Sequence[Patch]:
    def put(self: Any, key: str, value: Any) -> Any:
        if key not in self._pages:
            self._changed[key] = None
        self._pages[key] = value
        return value

    return [(Book, "put", put)]


@fault("a changed part is not written down")
def _parts() -> Sequence[Patch]:
    real = edge_agent.memory.changed_rows

    def changed_rows(written: Any, now: Any) -> list[Row]:
        return [row for row in real(written, now) if (row.room, row.key) != ("day", "day") or len(row.value or b"") % 5]

    return [(edge_agent.agent, "changed_rows", changed_rows)]


# Streams: the sender.


@fault("the outbox row is not written")
def _no_outbox() -> Sequence[Patch]:
    real = streams.Sender.say

    def say(self: Any, write: Any) -> list[Row]:
        return [row for row in real(self, write) if row.room != "outbox"]

    return [(streams.Sender, "say", say)]


@fault("the counter is not written, numbers are used again")
def _no_counter() -> Sequence[Patch]:
    real = streams.Sender.say

    def say(self: Any, write: Any) -> list[Row]:
        return [row for row in real(self, write) if row.room != "counters"]

    return [(streams.Sender, "say", say)]


@fault("trimmed when sent instead of when acknowledged")
def _trim_on_send() -> Sequence[Patch]:
    real = streams.Sender.due

    def due(self: Any, real_ms: int) -> list[bytes]:
        found: list[bytes] = real(self, real_ms)
        for seq in [seq for seq, flight in self._flights.items() if flight.times_sent]:
            self._waiting.pop(seq, None)
            self._flights.pop(seq, None)
        return found

    return [(streams.Sender, "due", due)]


@fault("an ack is taken for everything sent")
def _ack_all() -> Sequence[Patch]:
    real = streams.Sender.acked

    def acked(self: Any, ack: Any) -> list[Row]:
        return real(self, msgspec.structs.replace(ack, upto=max(self._waiting, default=ack.upto)))

    return [(streams.Sender, "acked", acked)]


@fault("an ack of one stream trims another")
def _wrong_stream() -> Sequence[Patch]:
    real = outbox.Outbox.acked

    def acked(self: Any, ack: Any) -> list[Row]:
        rows = real(self, ack)
        if ack.stream == "telemetry":
            rows = [*rows, *self._events.acked(msgspec.structs.replace(ack, stream="events", upto=1 << 40))]
        return rows

    return [(outbox.Outbox, "acked", acked)]


@fault("nothing is ever repeated")
def _no_repeat() -> Sequence[Patch]:
    return [
        (streams.Sender, "_patience_ms", lambda self, seq, times: 1 << 40),
        (streams.Sender, "repeat_all", lambda self: None),
    ]


@fault("boot is drawn anew at every start")
def _new_boot() -> Sequence[Patch]:
    real = disks.AgentStore.__init__
    starts: Counter[str] = Counter()

    def init(self: Any, path: Any, *others: Any) -> None:
        real(self, path, *others)
        name = path.parent.parent.name
        starts[name] += 1
        self.real.boot = f"{self.real.boot}.{starts[name]}"

    return [(disks.AgentStore, "__init__", init)]


@fault("a repeated number is said in other words")
def _other_words() -> Sequence[Patch]:
    real = streams.Sender.due

    def due(self: Any, real_ms: int) -> list[bytes]:
        again = {seq for seq, flight in self._flights.items() if flight.times_sent == 1 and self.stream == "events"}
        for seq in again:
            self._waiting[seq] = self._waiting[seq].replace(b'"said_ms":17', b'"said_ms":18', 1)
        found: list[bytes] = real(self, real_ms)
        return found

    return [(streams.Sender, "due", due)]


# Streams: the receiver.


@fault("the receiver accepts a gap")
def _gap() -> Sequence[Patch]:
    real = streams.Receiver.take

    def take(self: Any, numbered: Any, after: int = 0) -> Any:
        return real(self, numbered, max(after, numbered.seq - 1))

    return [(streams.Receiver, "take", take)]


@fault("the receiver forgets its mark")
def _no_mark() -> Sequence[Patch]:
    real = streams.Receiver.take

    def take(self: Any, numbered: Any, after: int = 0) -> Any:
        verdict, rows = real(self, numbered, after)
        return verdict, [] if numbered.seq % 4 == 0 else rows

    return [(streams.Receiver, "take", take)]


@fault("the receiver takes a repeat for new")
def _repeat_is_new() -> Sequence[Patch]:
    real = streams.Receiver.take

    def take(self: Any, numbered: Any, after: int = 0) -> Any:
        verdict, rows = real(self, numbered, after)
        return (Take.NEW if verdict is Take.REPEAT else verdict), rows

    return [(streams.Receiver, "take", take)]


@fault("a repeat is not acknowledged again")
def _silent_repeat() -> Sequence[Patch]:
    def is_news(self: Any, placed: Any) -> bool:
        if placed.sender not in self._memory.agents or placed.stream not in post.HEARD:
            return False
        taken, rows = self._receiver.take(placed)
        self._memory.keep(rows)
        if taken is Take.NEW:
            self._to_ack[placed.sender, placed.stream] = None
        return taken is Take.NEW

    return [(post.Post, "is_news", is_news)]


@fault("an ack names one more than was taken")
def _one_more() -> Sequence[Patch]:
    real = streams.Receiver.ack

    def ack(self: Any, sender: Any, stream: str) -> Any:
        found = real(self, sender, stream)
        return None if found is None else msgspec.structs.replace(found, upto=found.upto + 1)

    return [(streams.Receiver, "ack", ack)]


# Telemetry.


@fault("thinned samples are not declared")
def _undeclared() -> Sequence[Patch]:
    real = telemetry.encode_telemetry

    def encode(batch: Any) -> bytes:
        return real(msgspec.structs.replace(batch, thinned=0))

    return [(telemetry, "encode_telemetry", encode)]


@fault("the ledger row of a batch is missing")
def _no_ledger() -> Sequence[Patch]:
    real = embedded_telemetry._write_segments

    def write(connection: Any, segments: Any, are_new: Any) -> None:
        real(connection, segments, are_new)
        every_third = [(each.sender, each.boot, each.seq) for each in segments if each.seq % 3 == 0]
        connection.executemany("DELETE FROM ledger WHERE sender = ? AND boot = ? AND seq = ?", every_third)

    return [(embedded_telemetry, "_write_segments", write)]


@fault("a batch is stored each time it comes")
def _no_once() -> Sequence[Patch]:
    real = embedded_telemetry._write_segments

    def write(connection: Any, segments: Any, are_new: Any) -> None:
        known = [(each.sender, each.boot, each.seq) for each in segments]
        connection.executemany("DELETE FROM ledger WHERE sender = ? AND boot = ? AND seq = ?", known)
        real(connection, segments, are_new)

    return [(embedded_telemetry, "_write_segments", write)]


@fault("the lane acknowledges what it could not store")
def _lane_ack() -> Sequence[Patch]:
    def store_all(self: Any, segments: Any, letters: Any) -> Any:
        self._acknowledge(segments)
        self._store.commit(segments)
        return [], []

    return [(lane.FastLane, "_store_all", store_all)]


@fault("the lane believes in an unbroken run")
def _lane_run() -> Sequence[Patch]:
    real = embedded_telemetry.EmbeddedTelemetry.taken

    def taken(self: Any, sender: Any, boot: str) -> Taken:
        found = real(self, sender, boot)
        return Taken(max((found.upto, *found.beyond)), ())

    def take(self: Any, seqs: Sequence[int]) -> int:
        self._upto = max(self._upto, *seqs)
        return int(self._upto)

    return [(embedded_telemetry.EmbeddedTelemetry, "taken", taken), (lane._Run, "take", take)]


@fault("half of a batch is lost when it is handed over")
def _half_batch() -> Sequence[Patch]:
    real = telemetry.Collector.hand_over

    def hand_over(self: Any, seq: int) -> Any:
        handed = real(self, seq)
        if handed is None or seq % 3:
            return handed
        batch = telemetry.decode_telemetry(handed[0])
        columns = tuple(np.asarray(column[::2]) for column in batch.columns)
        return telemetry.encode_telemetry(
            msgspec.structs.replace(batch, at_ms=np.asarray(batch.at_ms[::2]), columns=columns)
        ), handed[1]

    return [(telemetry.Collector, "hand_over", hand_over)]


@fault("an event is thinned when room is short")
def _thin_event() -> Sequence[Patch]:
    real = outbox.Outbox.give_up_telemetry

    def give_up(self: Any) -> list[Row]:
        first = next(iter(self._events._waiting), None)
        if first is not None and len(self._events._waiting) > 2:
            del self._events._waiting[first]
            return [Row("outbox", self._events._key(first), None)]
        return real(self)

    return [(outbox.Outbox, "give_up_telemetry", give_up)]


# Commands.


@fault("the epoch of a command is not looked at")
def _no_epoch() -> Sequence[Patch]:
    real = commands.Commands.take
    return [(commands.Commands, "take", lambda self, command, epoch: real(self, command, 0))]


@fault("a command of an epoch that is over keeps its number")
def _takes_number() -> Sequence[Patch]:
    real = commands.Commands.take

    def take(self: Any, command: Any, epoch: int) -> Any:
        refusal, rows = real(self, command, 0)
        return ("EpochOver" if command.epoch < epoch else refusal), rows

    return [(commands.Commands, "take", take)]


@fault("the start-by time is ignored")
def _no_start_by() -> Sequence[Patch]:
    real = edge_agent.agent.AgentCore._take_command

    def take(self: Any, numbered: Any) -> None:
        real(self, msgspec.structs.replace(numbered, start_by_ms=None))

    return [(edge_agent.agent.AgentCore, "_take_command", take)]


@fault("a plan is taken twice")
def _plan_twice() -> Sequence[Patch]:
    real = agent_round.Round.take_plan

    def take_plan(self: Any, plan: Any) -> bool:
        real(self, plan)
        return real(self, plan)

    return [(agent_round.Round, "take_plan", take_plan)]


@fault("a window told is forgotten by a restart")
def _told_forgotten() -> Sequence[Patch]:
    return [(agent_round, "read_told", lambda room: {})]


@fault("the van is not told the window its customer is told")
def _van_untold() -> Sequence[Patch]:
    def speak(self: Any, promise: Any, agent: Any, sentence: str, now: Any, estimate: Any = None) -> None:
        self._memory.promises.put(promise.stop_id, promise)
        last = promise.tellings[-1]
        self._mailbag.put(promise, "changed", sentence, last.decision_id, now, why=last.why, estimate=estimate)

    return [(customers.Customers, "_speak", speak)]


@fault("nothing is repeated for a hub that has begun anew")
def _no_meet() -> Sequence[Patch]:
    return [
        (uplink.Uplink, "meet", lambda self, presence, real_ms: []),
        (uplink.Uplink, "hear_ingest", lambda self: None),
        (streams.Sender, "_patience_ms", lambda self, seq, times: 3_600_000),
    ]


@fault("the will of a life that is over is believed")
def _old_will() -> Sequence[Patch]:
    real = post.Post.presence_heard

    def heard(self: Any, event: Any, now: Any) -> None:
        record = self._memory.agents.get(event.agent)
        if record is not None and not event.presence.is_there:
            self._memory.change_agent(record, is_there=False, life=event.presence.life)
            return
        real(self, event, now)

    return [(post.Post, "presence_heard", heard)]


# People.


@fault("an answer to the page is given anew")
def _answer_twice() -> Sequence[Patch]:
    return [(answers.Answers, "before", lambda self, asked: None)]


@fault("an answer to the page is not kept")
def _answer_lost() -> Sequence[Patch]:
    real = answers.Answers.remember

    def remember(self: Any, asked: Any, reply: Any, now_ms: int) -> list[Row]:
        real(self, asked, reply, now_ms)
        return []

    return [(answers.Answers, "remember", remember)]


@fault("a re-sequence moves the stop that is under way")
def _head() -> Sequence[Patch]:
    real = navigator.change_by

    def change_by(verdict: Any, day: Any, *others: Any) -> Any:
        change = real(verdict, day, *others)
        return msgspec.structs.replace(change, after=(*change.after[1:], *change.after[:1]))

    return [(navigator, "change_by", change_by)]


@fault("the link of the chain is not kept")
def _link() -> Sequence[Patch]:
    real = chain.Chain.parts

    def parts(self: Any) -> Any:
        books = real(self)[("agent", "books")]
        return {("agent", "books"): msgspec.structs.replace(books, link=FIRST_LINK)}

    return [(chain.Chain, "parts", parts)]


@fault("what waits keeps the date of a clock that was wrong")
def _date_kept() -> Sequence[Patch]:
    return [(dating.Dating, "numbered", lambda self, numbered: numbered)]


@fault("visits keep the date of a clock that was wrong")
def _visit_shift() -> Sequence[Patch]:
    return [(dating.Dating, "visit", lambda self, visit: visit)]


@fault("a notice is sent before it is kept")
def _notice_first() -> Sequence[Patch]:
    real = mailbag.Mailbag._put

    def put(self: Any, notice: Any) -> Any:
        found = real(self, notice)
        self._memory.due_notices._changed.pop(notice.notice_id, None)
        return found

    return [(mailbag.Mailbag, "_put", put)]


@fault("a notice is called delivered when it failed")
def _notice_lost() -> Sequence[Patch]:
    real = mailbag.Mailbag.failed

    def failed(self: Any, event: Any, now: Any) -> None:
        if event.is_final:
            self.delivered(event, now)
        else:
            real(self, event, now)

    return [(mailbag.Mailbag, "failed", failed), (mailbag.Mailbag, "_keep_receipt", lambda self, n, e, now: None)]


@fault("forgetting leaves what waits in the outbox")
def _forget_outbox() -> Sequence[Patch]:
    return [(post.Post, "unsay", lambda self, renew: None)]


@fault("forgetting leaves the vans as they are")
def _forget_vans() -> Sequence[Patch]:
    real = post.Post.say

    def say(self: Any, agent: Any, command: Any, now: Any) -> None:
        if not isinstance(command, PersonForgotten):
            real(self, agent, command, now)

    return [(post.Post, "say", say)]


@fault("forgetting leaves the store's log")
def _forget_log() -> Sequence[Patch]:
    return [(store, "FORGOTTEN", "nobody")]


@fault("forgetting leaves the archives")
def _forget_archives() -> Sequence[Patch]:
    return [(forgetting.Forgetting, "_sweep", lambda self, traces: None)]


@fault("a breach is told and not called one")
def _no_breach() -> Sequence[Patch]:
    real = promises.told_again

    def told_again(promise: Any, told: Any, kind: Any, *others: Any) -> Any:
        return real(promise, told, "moved" if kind == "breach" else kind, *others)

    return [(promises, "told_again", told_again)]


@fault("a plan's answer is taken though nobody asks any more")
def _old_plan() -> Sequence[Patch]:
    real = dayplan.DayPlan.found

    def found(self: Any, event: Any, now: Any) -> None:
        need = self._memory.needs.get("plan")
        own = memory.PlanNeed(event.need, town.DAY, "x", now.domain_ms) if need is None else need
        self._memory.needs.put("plan", msgspec.structs.replace(own, need=event.need))
        real(self, event, now)

    return [(dayplan.DayPlan, "found", found)]


@fault("a plan is taken for vans that have left")
def _plan_overtaken() -> Sequence[Patch]:
    return [(dayplan.DayPlan, "_has_left", lambda self, agent: False)]


@fault("a need that failed is never tried again")
def _no_retry() -> Sequence[Patch]:
    real = attempts.Attempts.fail

    def fail(self: Any, need: str, real_ms: int) -> int:
        return real(self, need, 1 << 50)

    return [(attempts.Attempts, "fail", fail)]


@fault("a need that is over wakes the hub for ever")
def _spins() -> Sequence[Patch]:
    def next_at_ms(self: Any, real_ms: int) -> int | None:
        waiting = (tries.again_at_ms for tries in self._tries.values() if not tries.is_running and tries.failures)
        return min(waiting, default=None)

    return [(attempts.Attempts, "next_at_ms", next_at_ms)]


@fault("a picture is dropped when its first piece leaves")
def _picture() -> Sequence[Patch]:
    real = proofs.Proofs.next_part

    def next_part(self: Any) -> Any:
        handed = real(self)
        return None if handed is None else (handed[0], [])

    return [(proofs.Proofs, "next_part", next_part)]


class Caught(NamedTuple):
    """What became of a fault: which promises saw it broken, in how many seeds of how many."""

    name: str
    by: dict[str, int]
    seeds: int
    caught: int
    first_seed: int | None


def hunt(stage: Stage, one: Fault, seeds: Sequence[int], enough: int) -> Caught:
    """Play seeds with this fault until so many have caught it."""
    by: Counter[str] = Counter()
    played, first = 0, None
    with planted(one):
        for seed in seeds:
            played += 1
            try:
                stage.universe(seed).run()
                continue
            except Broken as broken:
                by[broken.promise] += 1
            except Exception as crash:  # noqa: BLE001 - as it says below.
                # A process that breaks its own rule dies aloud: that is a fault caught, too.
                by[f"crash: {type(crash).__name__}"] += 1
            first = seed if first is None else first
            if sum(by.values()) >= enough:
                break
    return Caught(one.name, dict(by.most_common()), played, sum(by.values()), first)
