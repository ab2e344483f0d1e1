"""Where the hub keeps everything: one protocol, and the store a URL names.

Rooms hold documents by key and are what a core recovers from. Archives are written by the same commits and only ever
read by people: decisions, notices, former plans, dead letters. Telemetry has a store of its own, so that its commits
never wait for the core's, nor the core's for them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.quantities import EpochMs
from shared.steps import Row, Saved
from shared.work import AgentId

ROOMS = (
    "hub", "orders", "stops", "vehicles", "depots", "agents", "plans", "estimates", "promises", "roads", "needs",
    "chains", "notices_due", "taken", "outbox", "counters", "corrections", "customers", "amendments", "said_wishes",
)  # fmt: skip
"""What a core recovers from."""

ARCHIVES = ("notices", "plan_history", "dead_letters", "decisions", "receipts", "objects", "hands")
"""What is written for people alone. `objects` are signatures and photographs, piece by piece; `hands` says who stood
behind a decision that records name only by its role.
"""


class StoreUnknown(ValueError):
    """The store's URL names a kind of store this release does not have."""


class StoreUnreadable(ValueError):
    """The store's file cannot be opened, or a newer release wrote it."""


class DecisionsAsked(NamedTuple):
    """Which decisions to read: those of a node, of a kind, about a word (an order, a stop, an agent), after a number.
    None asks for all.
    """

    agent: str | None = None
    kind: str | None = None
    about: str | None = None
    after: int = 0
    most: int = 200
    newest_first: bool = False


class DecisionRow(NamedTuple):
    """A kept decision (fleet.KeptDecision as JSON) with its place in the order of commits."""

    number: int
    doc: bytes


class Readings(NamedTuple):
    """Samples of one channel, by time: int64 [n] epoch ms and float64 [n]."""

    at_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class Segment(NamedTuple):
    """One telemetry batch as stored: its place in the stream, what it spans, and its bytes as they came."""

    sender: AgentId
    boot: str
    seq: int
    from_ms: EpochMs
    to_ms: EpochMs
    samples: int
    thinned: int
    payload: bytes


class Taken(NamedTuple):
    """What has been stored of one life of one agent's telemetry: everything up to a number, and some beyond."""

    upto: int
    beyond: tuple[int, ...]


class HubStore(Protocol):
    """The store of the hub's core, which also answers people's questions from other threads."""

    def saved(self) -> Saved:
        """Every room, for a core to recover from."""
        ...

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all the rows or none, on disk. Raises when the disk does not take them."""
        ...

    def documents(self, room: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Everything in a room or archive whose key begins so, by key."""
        ...

    def document(self, room: str, key: str) -> bytes | None:
        """One document; None when there is none."""
        ...

    def decisions(self, asked: DecisionsAsked) -> list[DecisionRow]:
        """Decisions in the order of their commits."""
        ...

    def decision(self, decision_id: str) -> DecisionRow | None:
        """One decision; None when it is unknown."""
        ...

    def chained(self) -> Iterable[bytes]:
        """Every decision that is kept (fleet.KeptDecision as JSON), in the order of their commits."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class TelemetryStore(Protocol):
    """The store of raw readings."""

    def commit(self, segments: Sequence[Segment]) -> None:
        """Keep each segment not known yet, with its ledger row, all in one transaction."""
        ...

    def taken(self, sender: AgentId, boot: str) -> Taken:
        """What is stored of one life of a sender's stream."""
        ...

    def read(self, agent: AgentId, channel: str, from_ms: int, to_ms: int, most: int = 100_000) -> Readings:
        """One channel between two instants, both included, the first `most` samples."""
        ...

    def latest(self, agent: AgentId) -> dict[str, tuple[int, float]]:
        """The newest value of every channel of the newest segment: channel to (epoch ms, value)."""
        ...

    def forget(self, before_ms: int, most: int) -> int:
        """Erase at most so many segments that end before this instant, and say how many went; their ledger rows stay,
        so that none is taken a second time.
        """
        ...

    def totals(self) -> dict[str, int]:
        """Segments, samples and thinned samples stored so far."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def open_stores(url: str) -> tuple[HubStore, TelemetryStore]:
    """The stores of a URL like sqlite:///var/lib/waywarden/hub.db (three slashes, then a path; four for an absolute
    one).

    Raises StoreUnknown for another scheme, StoreUnreadable when the file cannot be used.
    """
    from cloud_hub.storage.embedded import EmbeddedStore, EmbeddedTelemetry

    file = file_of(url)
    return EmbeddedStore(file), EmbeddedTelemetry(file.with_name(f"{file.stem}-telemetry{file.suffix}"))


def file_of(url: str) -> Path:
    """The file of a store's URL. Raises StoreUnknown unless it is sqlite:///PATH."""
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or len(path) < 2 or not path.startswith("/"):
        later = "; PostgreSQL comes later" if scheme.startswith("postgres") else ""
        raise StoreUnknown(f"store is '{url}', expected sqlite:///PATH{later}")
    return Path(path[1:])


def followed(seqs: Iterable[int]) -> Taken:
    """What a set of stream numbers amounts to: the end of the unbroken run from 1, and what lies beyond it."""
    ordered = sorted(set(seqs))
    upto = 0
    for seq in ordered:
        if seq != upto + 1:
            break
        upto = seq
    return Taken(upto, tuple(seq for seq in ordered if seq > upto))
