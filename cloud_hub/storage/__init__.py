"""Where the hub keeps everything: one protocol, and the store a URL names.

Rooms hold documents by key and are what a core recovers from. Archives are written by the same commits and only ever
read by people: decisions, notices, former plans, dead letters. Telemetry has a store of its own, so that its commits
never wait for the core's, nor the core's for them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cloud_hub.fleet import Chain
from shared.quantities import EpochMs
from shared.steps import Row, Saved
from shared.work import AgentId

ROOMS = (
    "hub", "orders", "stops", "vehicles", "depots", "agents", "plans", "estimates", "promises", "roads", "needs",
    "chains", "notices_due", "taken", "outbox", "counters", "corrections", "customers", "amendments", "said_wishes",
    "suspects", "keys",
)  # fmt: skip
"""What a core recovers from."""

ARCHIVES = (
    "notices", "plan_history", "dead_letters", "decisions", "receipts", "objects", "hands", "accesses",
    "enrolments", "certificates", "gaps", "dead_payloads", "restores",
)  # fmt: skip
"""What the core never looks up again. `objects` are signatures and photographs, piece by piece; `hands` says who stood
behind a decision that records name only by its role; `accesses` says who read what of
people; `gaps` what a hub restored from a backup lacks; `dead_payloads` the bytes of dead letters; in `restores`
stands that the store is being restored, for as long as it is.
"""

LEASE_S = 3.0
"""How long a hub acts for its region without prolonging it."""

PATIENCE_S = 30.0
"""How long a hub that starts waits for a database that does not answer yet: both may have been switched on at once."""


class StoreUnknown(ValueError):
    """The store's URL names a kind of store this release does not have."""


class StoreUnreadable(ValueError):
    """The store cannot be opened, or a newer release wrote it."""


HALF_RESTORED = (
    "is being restored, or a restore of it did not end: wait for it, or restore into an empty store once more"
)


class StoreAway(RuntimeError):
    """The database is out of reach, or took longer to answer than it may."""


class Fenced(RuntimeError):
    """Another hub acts for this region."""


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


class Summary(NamedTuple):
    """One channel by buckets of time, those without a sample left out: int64 [n] epoch ms where each begins, float64
    [n] mean, least and most of its values, int64 [n] how many.
    """

    from_ms: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]
    most: npt.NDArray[np.float64]
    samples: npt.NDArray[np.int64]


class ReadingsCame(NamedTuple):
    """New readings of an agent have been committed, by whichever process: how many, and the newest's instant."""

    agent: AgentId
    to_ms: EpochMs
    samples: int


class LedgerRow(NamedTuple):
    """That a message of telemetry was taken, whether its readings are still kept or not; or, with `messages` above 1,
    that all those numbered 1 to `seq` were, and what they had together.
    """

    sender: AgentId
    boot: str
    seq: int
    samples: int
    thinned: int
    messages: int = 1


class TelemetryLetter(NamedTuple):
    """A batch that was taken and acknowledged though nobody can read it: when, why, and the first of its bytes."""

    sender: AgentId
    boot: str
    seq: int
    at_ms: EpochMs
    why: str
    payload: bytes


class Kept(NamedTuple):
    """How many days readings, sums by the minute and sums by the hour are kept, 0 for ever; and after how many days
    TimescaleDB turns readings into columns: later than the longest time an agent is offline, and than positions are
    coarsened, for both are slow afterwards.
    """

    raw_days: int = 30
    minute_days: int = 400
    hour_days: int = 0
    columns_after_days: int = 7


class Closing(Protocol):
    """Something that goes on until it is closed."""

    def close(self) -> None:
        """End it; returns when it has ended."""
        ...


class Taken(NamedTuple):
    """What has been stored of one life of one agent's telemetry: everything up to a number, and some beyond."""

    upto: int
    beyond: tuple[int, ...]


class HubStore(Protocol):
    """The store of the hub's core, which also answers people's questions from other threads."""

    def act(self, region: str, holder: str) -> bool:
        """Become the one hub that acts for the region; `holder` says in words who we are. False while another does.

        Call it before `saved`: what a former holder commits later than this is refused. Whoever restores the store acts
        for the region "". Raises StoreUnreadable when the store belongs to another region or was restored by half,
        StoreAway when it is out of reach.
        """
        ...

    def renew(self) -> bool:
        """Go on acting for another LEASE_S; False when another hub acts now, and the process must end.

        Returns or raises within three seconds, whatever the link does: StoreAway when it cannot be said. Whoever could
        not prolong for almost LEASE_S must end too, and needs a watch of its own for that.
        """
        ...

    def acting(self, region: str) -> str:
        """Who acts for the region, as they called themselves, or acted last; "" when nobody ever did."""
        ...

    def saved(self) -> Saved:
        """Every room, for a core to recover from."""
        ...

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all the rows or none, on disk. Raises when the disk does not take them, Fenced when another hub acts."""
        ...

    def dump(self) -> Iterator[Row]:
        """Every row of rooms and archives as they are at one instant, while a hub may work on; decisions in order."""
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

    def commit(self, segments: Sequence[Segment]) -> list[bool]:
        """Keep each segment not known yet, with its ledger row, all in one transaction; which were new. Several
        processes may commit at once. One numbered 0 comes from a backup: it has no ledger row and is always new.
        """
        ...

    def bury(self, letters: Sequence[TelemetryLetter]) -> None:
        """Keep what cannot be read, with a ledger row of no samples each, all in one transaction; what the ledger has
        already is left alone.
        """
        ...

    def dead_letters(self, most: int = 100) -> list[TelemetryLetter]:
        """What was buried, the newest first. `forget` erases the old ones."""
        ...

    def taken(self, sender: AgentId, boot: str) -> Taken:
        """What is stored of one life of a sender's stream."""
        ...

    def read(self, agent: AgentId, channel: str, from_ms: int, to_ms: int, most: int = 100_000) -> Readings:
        """One channel between two instants, both included, the first `most` samples."""
        ...

    def summed(
        self, agent: AgentId, channel: str, from_ms: int, to_ms: int, per: Literal["1min", "1h"], most: int = 100_000
    ) -> Summary:
        """One channel by the minute or the hour, the first `most` buckets that begin between two instants. Positions
        are not summed: a mean of places is no place.
        """
        ...

    def latest(self, agent: AgentId) -> dict[str, tuple[int, float]]:
        """The newest value of every channel in the last quarter of an hour the agent measured anything in: channel to
        (epoch ms, value).
        """
        ...

    def changes(self, hear: Callable[[Sequence[ReadingsCame]], None]) -> Closing:
        """Have `hear` called, from a thread of its own, with what any process commits from now on; with an empty list
        when something may have been missed.
        """
        ...

    def forget(self, before_ms: int, most: int, kind: Literal["raw", "1min", "1h"] = "raw") -> int:
        """Erase at most so many segments' worth of readings from before this instant, or of their sums, and say how
        many went, 0 when nothing is left. Ledger rows stay, so that no message is taken a second time.
        """
        ...

    def blur(self, before_ms: int, most: int) -> int:
        """Coarsen the positions in at most so many segments that end before this instant to a hundredth of a degree,
        and say how many were; each once.
        """
        ...

    def retain(self, kept: Kept) -> None:
        """Leave to the database what it does better by jobs of its own. Only where domain time is real time."""
        ...

    def fold(self, now_ms: int, most: int) -> int:
        """Fold what came in pieces and is complete by now; how many pieces went, 0 when nothing is left."""
        ...

    def totals(self) -> dict[str, int]:
        """Segments, samples and thinned samples stored so far."""
        ...

    def failures(self) -> list[str]:
        """Background work of the database that failed, each in a sentence; empty when all is well."""
        ...

    def notices(self) -> list[str]:
        """What this database lacks and what follows from that, each in a sentence."""
        ...

    def dump(self) -> Iterator[Segment]:
        """Every reading that is kept, in segments as they came, or numbered 0 where none are kept as such; at one
        instant, that of a `ledger` read before it.
        """
        ...

    def ledger(self) -> Iterator[LedgerRow]:
        """Every message that was ever taken, at one instant."""
        ...

    def restore_ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Note messages as taken whose readings are not kept any more."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def open_stores(url: str, patience_s: float = PATIENCE_S) -> tuple[HubStore, TelemetryStore]:
    """The stores of a URL: sqlite:///var/lib/waywarden/hub.db (three slashes, then a path; four for an absolute one),
    or postgresql://USER@HOST/DB.

    A database that does not answer yet is waited for `patience_s` seconds. Raises StoreUnknown for another scheme,
    StoreUnreadable when the file or the database cannot be used.
    """
    hub = open_hub_store(url, patience_s)
    try:
        return hub, open_telemetry(url, patience_s)
    except BaseException:
        hub.close()
        raise


def open_hub_store(url: str, patience_s: float = PATIENCE_S) -> HubStore:
    """The rooms and archives of a store's URL; raises as `open_stores`."""
    if is_postgres(url):
        from cloud_hub.storage.postgres import PostgresStore

        return PostgresStore(url, patience_s)
    from cloud_hub.storage.embedded import EmbeddedStore

    return EmbeddedStore(file_of(url))


def open_telemetry(url: str, patience_s: float = PATIENCE_S) -> TelemetryStore:
    """The readings of a store's URL; raises as `open_stores`."""
    if is_postgres(url):
        from cloud_hub.storage.timescale import PostgresTelemetry

        return PostgresTelemetry(url, patience_s)
    from cloud_hub.storage.embedded_telemetry import EmbeddedTelemetry

    file = file_of(url)
    return EmbeddedTelemetry(file.with_name(f"{file.stem}-telemetry{file.suffix}"))


def read_chains(url: str) -> tuple[Iterator[bytes], dict[str, Chain]]:
    """Every kept decision of a store, in order, and how far each chain was followed; nothing is written, whether a hub
    works on it or not. Raises StoreUnknown, StoreUnreadable or StoreAway.
    """
    if is_postgres(url):
        from cloud_hub.storage import postgres

        return postgres.read_chains(url)
    from cloud_hub.storage import embedded

    return embedded.read_chains(file_of(url))


def is_postgres(url: str) -> bool:
    """Whether a URL names a PostgreSQL. Raises StoreUnknown when it names neither that nor a file."""
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres") and rest:
        return True
    file_of(url)
    return False


def file_of(url: str) -> Path:
    """The file of a store's URL. Raises StoreUnknown unless it is sqlite:///PATH."""
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or len(path) < 2 or not path.startswith("/"):
        raise StoreUnknown(
            f"store is '{shown_url(url)}', expected sqlite:///PATH or postgresql://USER@HOST/DATABASE: "
            "mend the setting `store`"
        )
    return Path(path[1:])


def shown_url(url: str) -> str:
    """A store's URL as it may be printed and logged: without a password, wherever it stands."""
    scheme, mark, rest = url.partition("://")
    if not mark or "sqlite" in scheme:
        return url
    # The last @ of what names the host: a password may hold one that nobody encoded.
    who, at, where = rest.rpartition("@")
    hidden = _SECRETS.sub(r"\1=***", where)
    return f"{scheme}://{who.partition(':')[0]}{at}{hidden}"


_SECRETS = re.compile(r"\b(password|sslpassword|passfile)=[^&\s]*", re.IGNORECASE)


def followed(seqs: Iterable[int]) -> Taken:
    """What a set of stream numbers amounts to: the end of the unbroken run from 1, and what lies beyond it."""
    ordered = sorted(set(seqs))
    upto = 0
    for seq in ordered:
        if seq != upto + 1:
            break
        upto = seq
    return Taken(upto, tuple(seq for seq in ordered if seq > upto))
