"""What was said against what was stored: three columns that must add up, and how long what was hit had to wait."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from cloud_hub.fleet import KeptDecision
from cloud_hub.storage import open_stores
from shared.ledger import Decision
from tests.chaos.stage import Wound
from tests.chaos.talker import AUDIT, HEARD, Said

_kept = msgspec.json.Decoder(KeptDecision)
_decision = msgspec.json.Decoder(Decision)
_said = msgspec.json.Decoder(Said)


@dataclass(frozen=True, slots=True)
class Record:
    """One record at the hub: whose, which, when it was said and when it was taken, in domain time."""

    talker: str
    decision_id: str
    said_ms: int
    taken_ms: int
    follows: bool


@dataclass(frozen=True, slots=True)
class Column:
    """One kind of thing said: `said` must be `stored` + `thinned`; what is missing is lost."""

    what: str
    said: int
    stored: int
    thinned: int
    twice: int

    @property
    def lost(self) -> int:
        """What nobody has any more."""
        return self.said - self.stored - self.thinned


def waits_for_the_hub(store: Path) -> int:
    """Messages in a talker's outbox and batches not yet numbered, read beside the running process."""
    with _reading(store) as db:
        return int(db.execute("SELECT count(*) FROM rooms WHERE room = 'outbox' OR "
                              "(room = 'telemetry' AND key GLOB '[0-9]*')").fetchone()[0])  # fmt: skip


def said_by(store: Path) -> Said:
    """Everything a talker ever said."""
    with _reading(store) as db:
        row = db.execute("SELECT value FROM rooms WHERE room = ? AND key = 'said'", (AUDIT,)).fetchone()
    return _said.decode(row[0]) if row else Said()


def heard_by(store: Path) -> int:
    """How many commands a talker took: each once, or its key would be there already."""
    with _reading(store) as db:
        return int(db.execute("SELECT count(*) FROM rooms WHERE room = ?", (HEARD,)).fetchone()[0])


def records_of(url: str, talkers: Iterable[str]) -> list[Record]:
    """Every talker's record that the hub has stored."""
    store, telemetry = open_stores(url)
    names = frozenset(talkers)
    found = []
    for doc in store.chained():
        kept = _kept.decode(doc)
        if kept.node in names:
            decision = _decision.decode(kept.decision)
            found.append(Record(kept.node, decision.decision_id, decision.at_ms, kept.heard_ms, kept.follows))
    store.close()
    telemetry.close()
    return found


def commands_said(url: str, talkers: Iterable[str]) -> int:
    """How many commands the hub has numbered for the talkers."""
    store, telemetry = open_stores(url)
    counters = dict(store.documents("counters"))
    store.close()
    telemetry.close()
    return sum(int(counters.get(f"{talker}/commands/", b"1")) - 1 for talker in talkers)


def columns(url: str, stores: Sequence[Path], talkers: Sequence[str], records: Sequence[Record]) -> list[Column]:
    """Events, samples and commands."""
    said = [said_by(store) for store in stores]
    ids = Counter(record.decision_id for record in records)
    hub, telemetry = open_stores(url)
    totals = telemetry.totals()
    kept = sum(segment.samples for segment in telemetry.dump())
    hub.close()
    telemetry.close()
    commands, heard = commands_said(url, talkers), sum(heard_by(store) for store in stores)
    samples = sum(each.samples for each in said)
    return [
        Column("events", sum(each.events for each in said), len(ids), 0, len(records) - len(ids)),
        Column("samples", samples, totals["samples"], totals["thinned"], kept - totals["samples"]),
        Column("commands", commands, min(heard, commands), 0, max(0, heard - commands)),
    ]


def recoveries_s(records: Sequence[Record], wounds: Sequence[Wound]) -> list[float]:
    """For every record that a wound kept waiting: seconds from when all was back until the hub had taken it."""
    found = []
    for wound in wounds:
        found += [
            (record.taken_ms - wound.back_ms) / 1000
            for record in records
            if record.talker in wound.talkers and record.said_ms < wound.back_ms <= record.taken_ms
        ]
    return found


def drain_ratio(records: Sequence[Record], plugged_ms: int, arrivals_per_s: float) -> float | None:
    """How many times faster than they arrive records were taken after a cut, until nothing older than it was left; None
    when nothing waited.
    """
    behind = np.array(sorted(record.taken_ms for record in records if record.said_ms < plugged_ms <= record.taken_ms))
    if len(behind) < 2:
        return None
    taken = sum(behind[0] <= record.taken_ms <= behind[-1] for record in records)
    return round(float(taken / max(0.001, (behind[-1] - behind[0]) / 1000) / arrivals_per_s), 1)


class _reading:
    def __init__(self, store: Path) -> None:
        self._db = sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True, timeout=5)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()
