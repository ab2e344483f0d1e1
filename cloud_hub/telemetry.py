"""The fast lane: raw readings from the broker to the store, past the core.

Batches are taken in any order. Everything that waits is committed together, and only then acknowledged: the unbroken
run so far, and what lies beyond it. A batch that comes twice finds its ledger row and changes nothing. Readings older
than the settings allow are erased at the start and once a day, a slice between two commits at a time.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable

from cloud_hub.door import LONGEST_NAME, MOST_COUNTED, RegionWrong, SenderWrong
from cloud_hub.storage import Segment, Taken, TelemetryStore
from shared import topics, wire
from shared.logs import log, told
from shared.messages import Ack
from shared.mqtt import Heard, Link, LinkEvent
from shared.quantities import EpochMs
from shared.steps import Envelope
from shared.wire import Refused
from shared.work import AgentId

MOST_WAITING = 4_096
"""Batches that may wait for a commit; what comes on top is dropped and, being unacknowledged, sent again."""

MOST_TOGETHER = 512
DAY_MS = 24 * 3_600_000
LOOK_S = 30.0
"""How often a lane on which nothing comes looks whether a day has passed."""

MOST_BEYOND = 256
"""Numbers beyond the unbroken run that one acknowledgement names; the rest is named by later ones."""

STREAM = "telemetry"
_LAST = None


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
    ) -> None:
        """`is_known` says whether this agent is ours: readings of strangers are refused. Readings are kept for
        `keep_days` before `now_ms()`, 0 for ever. Raises mqtt.BrokerUrlWrong.
        """
        self._region = region
        self._store = store
        self._is_known = is_known
        self._keep_ms = keep_days * DAY_MS
        self._now_ms = now_ms
        self._next_sweep_ms = 0
        self._waiting: queue.Queue[Segment | None] = queue.Queue(MOST_WAITING)
        self._taken: dict[tuple[AgentId, str], _Run] = {}
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        topic = topics.up(region, AgentId("+"), "telemetry")
        self._link = Link(url, f"hub-{region}-telemetry", [topic], self._hear)
        self._thread = threading.Thread(target=self._commit_for_ever, name="telemetry", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether readings are being committed."""
        return self._thread.is_alive()

    def open(self) -> None:
        """Begin to listen and to commit."""
        self._thread.start()
        self._link.open()

    def close(self) -> None:
        """Stop listening, commit what waits, and stop."""
        self._link.close()
        self._waiting.put(_LAST)
        self._thread.join(timeout=5)

    def _hear(self, event: LinkEvent) -> None:
        if not isinstance(event, Heard):
            return
        try:
            self._waiting.put_nowait(self._segment(event))
        except (Refused, topics.TopicUnknown) as why:
            self.refused[type(why).__name__] += 1
        except queue.Full:
            self.counts["dropped"] += 1

    def _segment(self, heard: Heard) -> Segment:
        place = topics.read(heard.topic)
        if place.region != self._region:
            raise RegionWrong(f"topic '{heard.topic[:80]}', expected region '{self._region}'")
        batch = wire.decode_telemetry(heard.payload)
        if batch.sender != place.party or len(batch.sender) > LONGEST_NAME or not self._is_known(batch.sender):
            raise SenderWrong(f"{place.party} speaks as {batch.sender}, expected a known agent on its own topic")
        samples = len(batch.at_ms)
        is_numbered = 1 <= batch.seq < MOST_COUNTED
        if not (is_numbered and samples and int(batch.at_ms.min()) >= 0 and int(batch.at_ms.max()) < MOST_COUNTED):
            raise wire.TelemetryGarbled(f"batch {batch.seq} of {samples} samples, expected dated ones numbered from 1")
        from_ms, to_ms = EpochMs(int(batch.at_ms.min())), EpochMs(int(batch.at_ms.max()))
        thinned = min(max(0, batch.thinned), 1 << 31)
        return Segment(batch.sender, batch.boot, batch.seq, from_ms, to_ms, samples, thinned, heard.payload)

    def _commit_for_ever(self) -> None:
        while True:
            is_old_left = self._sweep()
            try:
                first = self._waiting.get(timeout=0 if is_old_left else LOOK_S)
            except queue.Empty:
                continue
            if first is _LAST:
                return
            batch = [first]
            is_last = False
            while len(batch) < MOST_TOGETHER and not self._waiting.empty():
                segment = self._waiting.get()
                if segment is _LAST:
                    is_last = True
                    break
                batch.append(segment)
            self._commit(batch)
            if is_last:
                return

    def _sweep(self) -> bool:
        """Erase a slice of what is older than may be kept, once a day; whether there is more."""
        now_ms = self._now_ms()
        if not self._keep_ms or now_ms < self._next_sweep_ms:
            return False
        try:
            erased = self._store.forget(now_ms - self._keep_ms, MOST_TOGETHER)
        except Exception as broken:  # noqa: BLE001 - as in `_commit`; what is too old waits until tomorrow.
            log("telemetry_sweep_failed", error=told(broken), then="tried again tomorrow")
            erased = 0
        self.counts["erased"] += erased
        if not erased:
            self._next_sweep_ms = now_ms + DAY_MS
        return bool(erased)

    def _commit(self, batch: list[Segment]) -> None:
        runs = {(segment.sender, segment.boot): None for segment in batch}
        try:
            for sender, boot in runs:
                if (sender, boot) not in self._taken:
                    self._taken[sender, boot] = _Run(self._store.taken(sender, boot))
            self._store.commit(batch)
        except Exception as broken:  # noqa: BLE001 - the outermost loop of a thread: a disk that refuses is retried.
            self.counts["commit_failed"] += 1
            log("telemetry_commit_failed", batches=len(batch), error=told(broken), then="they are sent again")
            time.sleep(0.2)
            return
        for segment in batch:
            is_new = self._taken[segment.sender, segment.boot].take(segment.seq)
            self.counts["taken" if is_new else "repeated"] += 1
            self.counts["samples"] += segment.samples if is_new else 0
        for sender, boot in runs:
            self._acknowledge(sender, boot)

    def _acknowledge(self, sender: AgentId, boot: str) -> None:
        run = self._taken[sender, boot]
        ack = Ack(sender, boot, STREAM, run.upto, tuple(sorted(run.beyond)[:MOST_BEYOND]))
        self._link.publish(Envelope(topics.down(self._region, sender, "acks"), wire.encode(ack), topics.QOS["acks"]))


class _Run:
    """What has been taken of one life of one stream."""

    def __init__(self, taken: Taken) -> None:
        self.upto = taken.upto
        self.beyond = set(taken.beyond)

    def take(self, seq: int) -> bool:
        if seq <= self.upto or seq in self.beyond:
            return False
        self.beyond.add(seq)
        while self.upto + 1 in self.beyond:
            self.upto += 1
            self.beyond.remove(self.upto)
        return True
