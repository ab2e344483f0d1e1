"""The fast lane: raw readings from the broker to the store, past the core.

Batches are taken in any order. Everything that waits is committed together, and only then acknowledged to who sent it;
a batch that comes twice finds its ledger row and changes nothing. So any number of processes may take them together. A
database that is away is tried again and again, and nothing is acknowledged meanwhile. Readings older than the settings
allow are erased at the start and once a day, a slice between two commits at a time.
"""

import queue
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from cloud_hub.door import LONGEST_NAME, MOST_COUNTED, RegionWrong, SenderWrong
from cloud_hub.storage import Segment, Taken, TelemetryLetter, TelemetryStore
from shared import topics, wire
from shared.logs import log, told
from shared.messages import Ack, Presence
from shared.mqtt import Heard, Link, LinkDown, LinkEvent, LinkUp
from shared.quantities import EpochMs
from shared.steps import Envelope
from shared.tls import Tls
from shared.wire import BatchHeading, Refused, TelemetryPlace
from shared.work import AgentId

GROUP = "$share/ingest/"
"""The shared subscription of all processes that take telemetry into one database."""

MOST_WAITING_BYTES = 32 << 20
"""What may wait for a commit: five seconds of 4,000 batches. What comes on top is dropped and, being unacknowledged,
sent again.
"""
MOST_TOGETHER_BYTES = 1 << 20
"""What one commit takes: 70,000 rows of one channel, of which PostgreSQL stores a million in a second."""
COST_BYTES = 200
"""What a batch costs in memory beside its payload."""
GATHER_S = 0.008
"""Between two commits more may come: a commit costs about as much as storing forty batches does."""
LOOK_AGAIN_S = 0.0015
"""Under load, between two looks at the broker: at 4,000 batches a second each finds about six."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
"""Between two tries of a database that is away: what waits is to be stored within two seconds of its return."""

DAY_MS = 24 * 3_600_000
SWEPT_AT_ONCE = 512
LOOK_S = 30.0
"""How often a lane on which nothing comes looks whether a day has passed."""

MOST_BEYOND = 256
"""Numbers beyond the unbroken run that one acknowledgement names; for more there are more acknowledgements."""
MOST_KEPT_BEYOND = 4_096
MOST_TOPICS = 10_000
MOST_AGENTS = 10_000
"""Of agents' names and what was taken of them so many are remembered; a name forgotten is looked up again."""
MOST_KEPT_OF_A_LETTER = 4_096
LONGEST_CHANNEL = 64
MOST_CHANNELS = 100
"""Of one batch; our own have eight."""

FARTHEST_MS = 400 * DAY_MS
"""A batch dated further from our own time is kept as a letter: no agent was away so long, what is to come would never
be old enough to be forgotten, and every day gets a table at the word of agents.
"""
LIVES_OF_ONE = 4
"""Lives of one agent's store whose numbers are remembered; of an older one they are looked up again."""

STREAM = "telemetry"
_LAST = None

Waiting = list[Heard] | None


class FastLane:
    """One link of its own and one thread that commits."""

    def __init__(
        self,
        url: str,
        region: str,
        store: TelemetryStore,
        is_known: Callable[[AgentId], bool],
        keep_days: int = 0,
        now_ms: Callable[[], int] = lambda: 0,
        *,
        is_shared: bool = False,
        tls: Tls | None = None,
    ) -> None:
        """`is_known` says whether this agent is ours: readings of strangers are refused. Readings are kept for
        `keep_days` before `now_ms()`, 0 for ever; those dated far from it are refused, none when it is 0. `is_shared`
        takes only our share of what comes, when several processes write to one database. Raises mqtt.BrokerUrlWrong.
        """
        self._region = region
        self._store = store
        self._door = _Door(region, is_known)
        self._keep_ms = keep_days * DAY_MS
        self._now_ms = now_ms
        self._next_sweep_ms = 0
        self._waiting: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._next_commit_s = 0.0
        self._runs: dict[AgentId, dict[str, _Run]] = {}
        self._is_shared = is_shared
        self.counts: Counter[str] = Counter()
        self.lag_s = 0.0
        """How old the newest sample of the last commit was when it was committed, in domain time."""
        self.refused = self._door.refused
        own = secrets.token_hex(4)
        self._life = own
        topic = topics.up(region, AgentId("+"), "telemetry")
        self._link = Link(
            url,
            f"hub-{region}-ingest-{own}" if is_shared else f"hub-{region}-telemetry",
            [GROUP + topic if is_shared else topic],
            self._hear,
            hear_all=self._hear_all,
            gather_s=LOOK_AGAIN_S,
            tls=tls,
        )
        self._thread = threading.Thread(target=self._commit_for_ever, name="telemetry", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether readings are being committed."""
        return self._thread.is_alive()

    @property
    def is_up(self) -> bool:
        """Whether the broker is within reach."""
        return self._link.is_up

    @property
    def waiting_bytes(self) -> int:
        """What has come and waits for its commit."""
        return self._waiting_bytes

    def open(self) -> None:
        """Begin to listen and to commit."""
        self._thread.start()
        self._link.open()

    def close(self) -> None:
        """Stop listening, commit what waits unless the database is away, and stop. Nothing when it was never opened."""
        if self._thread.ident is None:
            return
        self._link.close()
        self._closing.set()
        self._waiting.put(_LAST)
        self._thread.join(timeout=5)

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            # What was on its way to a process that died, or came while nobody listened, is not to wait for its turn to
            # be repeated: agents repeat all they have when they hear of one that begins.
            self._life = secrets.token_hex(4)
            presence = Presence(topics.HUB, True, self._life)
            topic = topics.ingest_presence(self._region)
            self._link.publish(Envelope(topic, wire.encode(presence), topics.QOS[topics.INGEST]))
            log("ingest_listens", region=self._region, shared=self._is_shared)
        elif isinstance(event, LinkDown):
            log("ingest_cut_off", region=self._region, why=event.why)

    def _hear_all(self, heard: list[Heard]) -> None:
        size = sum(len(one.payload) for one in heard) + COST_BYTES * len(heard)
        with self._counting:
            if self._waiting_bytes + size > MOST_WAITING_BYTES:
                self.counts["dropped"] += len(heard)
                return
            self._waiting_bytes += size
        self._waiting.put(heard)

    def _commit_for_ever(self) -> None:
        is_last = False
        while not is_last:
            is_old_left = self._sweep()
            heard, is_last = self._gathered(0 if is_old_left else LOOK_S)
            if heard:
                self._take(heard)

    def _gathered(self, patience_s: float) -> tuple[list[Heard], bool]:
        """What waits, at most so many bytes, and whether it is the last."""
        try:
            piece = self._waiting.get(timeout=patience_s)
        except queue.Empty:
            return [], False
        if piece is not _LAST and (early_s := self._next_commit_s - time.monotonic()) > 0:
            self._closing.wait(early_s)
        heard: list[Heard] = []
        size = 0
        while piece is not _LAST:
            heard += piece
            size += sum(len(one.payload) + COST_BYTES for one in piece)
            if size >= MOST_TOGETHER_BYTES or self._waiting.empty():
                break
            piece = self._waiting.get()
        with self._counting:
            self._waiting_bytes -= size
        return heard, piece is _LAST

    def _take(self, heard: Sequence[Heard]) -> None:
        """Store what came and acknowledge it; tries until the database takes it or the lane is closed."""
        segments, letters = self._door.read_all(heard, self._now_ms())
        pause_s = FIRST_PAUSE_S
        while segments or letters:
            try:
                segments, letters = self._store_all(segments, letters)
            except Exception as broken:  # noqa: BLE001 - the outermost loop of a thread: whatever refuses is retried.
                self.counts["commit_failed"] += 1
                if pause_s == FIRST_PAUSE_S:
                    log("telemetry_commit_failed", batches=len(segments), error=told(broken), then="tried again")
                if self._closing.wait(pause_s * (0.5 + random.random())):
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                if pause_s > FIRST_PAUSE_S:
                    log("telemetry_commits_again", waiting_bytes=self._waiting_bytes)
                pause_s = FIRST_PAUSE_S
        self._next_commit_s = time.monotonic() + GATHER_S

    def _store_all(
        self, segments: list[Segment], letters: list[TelemetryLetter]
    ) -> tuple[list[Segment], list[TelemetryLetter]]:
        """Commit and acknowledge; what is left to do. Of what can never be stored the guilty one is found by halves."""
        if letters:
            self._store.bury(letters)
            self.counts["dead_letters"] += len(letters)
            self._acknowledge([TelemetryPlace(one.sender, one.boot, one.seq) for one in letters])
        if not segments:
            return [], []
        try:
            are_new = self._store.commit(segments)
        except Exception as broken:
            if not _is_hopeless(broken):
                raise
            if len(segments) > 1:
                middle = len(segments) // 2
                left = [self._store_all(half, []) for half in (segments[:middle], segments[middle:])]
                return [], [letter for _, poison in left for letter in poison]
            return [], [_letter(segments[0], self._now_ms(), told(broken), segments[0].payload)]
        for segment, is_new in zip(segments, are_new, strict=True):
            self.counts["taken" if is_new else "repeated"] += 1
            self.counts["samples"] += segment.samples if is_new else 0
        self.counts["commits"] += 1
        self.lag_s = max(0.0, (self._now_ms() - max(segment.to_ms for segment in segments)) / 1000)
        self._acknowledge(segments)
        return [], []

    def _acknowledge(self, places: Sequence[Segment | TelemetryPlace]) -> None:
        done: dict[tuple[AgentId, str], list[int]] = {}
        for place in places:
            done.setdefault((place.sender, place.boot), []).append(place.seq)
        envelopes = []
        for (sender, boot), seqs in done.items():
            upto = 0
            if not self._is_shared:
                upto = self._run(sender, boot).take(seqs)
            beyond = [seq for seq in seqs if seq > upto]
            topic = topics.down(self._region, sender, "acks")
            for first in range(0, max(1, len(beyond)), MOST_BEYOND):
                ack = Ack(sender, boot, STREAM, upto, tuple(beyond[first : first + MOST_BEYOND]))
                envelopes.append(Envelope(topic, wire.encode(ack), topics.QOS["acks"]))
        if not self._link.publish_all(envelopes):
            self.counts["acks_unsaid"] += len(envelopes)

    def _run(self, sender: AgentId, boot: str) -> "_Run":
        """An agent that begins ever new lives makes only itself be looked up again."""
        if sender not in self._runs and len(self._runs) >= MOST_AGENTS:
            self._runs.clear()
        lives = self._runs.setdefault(sender, {})
        if boot not in lives:
            if len(lives) >= LIVES_OF_ONE:
                del lives[next(iter(lives))]
            lives[boot] = _Run(self._store.taken(sender, boot))
        return lives[boot]

    def _sweep(self) -> bool:
        """Erase a slice of what is older than may be kept, once a day; whether there is more."""
        now_ms = self._now_ms()
        if not self._keep_ms or now_ms < self._next_sweep_ms:
            return False
        try:
            erased = self._store.forget(now_ms - self._keep_ms, SWEPT_AT_ONCE)
        except Exception as broken:  # noqa: BLE001 - as in `_take`; what is too old waits until tomorrow.
            log("telemetry_sweep_failed", error=told(broken), then="tried again tomorrow")
            erased = 0
        self.counts["erased"] += erased
        if not erased:
            self._next_sweep_ms = now_ms + DAY_MS
        return bool(erased)


class _Door:
    """What comes on the topics of telemetry, checked: ours, from a known agent, whole, dated."""

    def __init__(self, region: str, is_known: Callable[[AgentId], bool]) -> None:
        self._region = region
        self._is_known = is_known
        self._senders: dict[str, AgentId] = {}
        self.refused: Counter[str] = Counter()

    def read_all(self, heard: Sequence[Heard], now_ms: int) -> tuple[list[Segment], list[TelemetryLetter]]:
        """Batches to store, each once and ordered by their place in their streams (so that two processes never wait
        for each other's ledger rows in a ring), and those that nobody can read.
        """
        whole: list[tuple[BatchHeading, bytes]] = []
        instants: list[bytes] = []
        letters: dict[tuple[AgentId, str, int], TelemetryLetter] = {}
        for one in heard:
            try:
                sender = self._senders.get(one.topic) or self._sender(one.topic)
                try:
                    heading, body = wire.decode_telemetry_heading(one.payload)
                    _check_words(heading)
                except Refused as why:
                    place = wire.decode_telemetry_place(one.payload)
                    self._check_place(place, sender)
                    self.refused[type(why).__name__] += 1
                    letters[place.sender, place.boot, place.seq] = _letter(place, now_ms, str(why), one.payload)
                    continue
                self._check_place(heading, sender)
                whole.append((heading, one.payload))
                instants.append(one.payload[body : body + 8 * heading.samples])
            except (Refused, topics.TopicUnknown) as why:
                self.refused[type(why).__name__] += 1
        segments: dict[tuple[AgentId, str, int], Segment] = {}
        earliest_ms, latest_ms = max(0, now_ms - FARTHEST_MS), now_ms + FARTHEST_MS if now_ms else MOST_COUNTED
        for (heading, payload), (from_ms, to_ms) in zip(whole, _spans(instants), strict=True):
            key = (heading.sender, heading.boot, heading.seq)
            if not heading.samples or (earliest_ms <= from_ms and to_ms <= latest_ms):
                thinned = min(max(0, heading.thinned), 1 << 31)
                segments[key] = Segment(*key, EpochMs(from_ms), EpochMs(to_ms), heading.samples, thinned, payload)
            else:
                self.refused["TelemetryGarbled"] += 1
                why_not = f"dated from {from_ms} to {to_ms}, expected {earliest_ms} to {latest_ms}"
                letters[key] = _letter(heading, now_ms, why_not, payload)
        return [segments[key] for key in sorted(segments)], [letters[key] for key in sorted(letters)]

    def _sender(self, topic: str) -> AgentId:
        place = topics.read(topic)
        if place.region != self._region:
            raise RegionWrong(f"topic '{topic[:80]}', expected region '{self._region}'")
        if len(place.party) > LONGEST_NAME:
            raise SenderWrong(f"topic '{topic[:80]}', expected a name of at most {LONGEST_NAME} characters")
        if len(self._senders) == MOST_TOPICS:
            self._senders.clear()
        self._senders[topic] = place.party
        return place.party

    def _check_place(self, place: BatchHeading | TelemetryPlace, sender: AgentId) -> None:
        if place.sender != sender or not self._is_known(sender):
            raise SenderWrong(f"{sender} speaks as {place.sender[:80]}, expected a known agent on its own topic")
        if not 1 <= place.seq < MOST_COUNTED or not _is_name(place.boot):
            raise wire.TelemetryGarbled(f"batch {place.seq} of {sender}, expected a number from 1 and a short boot")


def _spans(instants: Sequence[bytes]) -> list[tuple[int, int]]:
    """First and last instant of each piece of int64 instants, (0, 0) where there is none.

    One pass over all of them: numpy takes 5 us to begin, whether for a hundred numbers or for a million.
    """
    sizes = np.array([len(piece) // 8 for piece in instants], np.int64)
    spans = np.zeros((len(instants), 2), np.int64)
    filled = np.flatnonzero(sizes)
    if len(filled):
        at_ms = np.frombuffer(b"".join(instants), "<i8")
        begins = (np.cumsum(sizes) - sizes)[filled]
        spans[filled, 0] = np.minimum.reduceat(at_ms, begins)
        spans[filled, 1] = np.maximum.reduceat(at_ms, begins)
    return [(first, last) for first, last in spans.tolist()]


def _check_words(heading: BatchHeading) -> None:
    """Raises TelemetryGarbled for channels that no database could name, and for a batch that says nothing."""
    if not heading.samples and heading.thinned <= 0:
        raise wire.TelemetryGarbled("a batch without samples, expected it to declare how many were thinned")
    if len(heading.channels) > MOST_CHANNELS:
        raise wire.TelemetryGarbled(f"{len(heading.channels)} channels, expected at most {MOST_CHANNELS}")
    for channel in heading.channels:
        if not _is_name(channel):
            raise wire.TelemetryGarbled(f"channel {channel[:80]!r}, expected up to {LONGEST_CHANNEL} printed signs")
    if len(set(heading.channels)) != len(heading.channels):
        raise wire.TelemetryGarbled("a channel named twice in one batch")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_CHANNEL and text.isprintable()


def _letter(place: BatchHeading | TelemetryPlace | Segment, at_ms: int, why: str, payload: bytes) -> TelemetryLetter:
    kept = payload[:MOST_KEPT_OF_A_LETTER]
    return TelemetryLetter(place.sender, place.boot, place.seq, EpochMs(at_ms), why[:500], kept)


def _is_hopeless(broken: Exception) -> bool:
    """Whether it is what was said that cannot be stored: tomorrow it will be no better. DataError is what databases'
    drivers call it (PEP 249).
    """
    return isinstance(broken, ValueError | OverflowError) or any(
        kind.__name__ == "DataError" for kind in type(broken).__mro__
    )


class _Run:
    """What has been taken of one life of one stream by a lane that takes all of it."""

    def __init__(self, taken: Taken) -> None:
        self._upto = taken.upto
        self._beyond = set(taken.beyond)

    def take(self, seqs: Sequence[int]) -> int:
        """The end of the unbroken run, now that these are stored."""
        self._beyond.update(seq for seq in seqs if seq > self._upto)
        while self._upto + 1 in self._beyond:
            self._upto += 1
            self._beyond.remove(self._upto)
        if len(self._beyond) > MOST_KEPT_BEYOND:
            self._beyond.clear()  # A gap nobody will fill; what lies beyond is acknowledged number by number.
        return self._upto
