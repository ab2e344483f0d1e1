"""One step: events, decision, one commit, and only then the messages.

Agent and hub are each one core that does no I/O and reads no clock. This
module says what a core and its store look like and drives them one step at
a time, so that nothing is ever spoken that a plug pulled a moment later
would make untrue.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from shared.quantities import EpochMs

Saved = Mapping[str, Mapping[str, bytes]]
"""Everything a store held when its process began: room, then key, then value."""


class Now(NamedTuple):
    """The instant of a step: domain time for decisions, real time (monotonic) for the network's patience."""

    domain_ms: EpochMs
    real_ms: int


class Row(NamedTuple):
    """One fact to be kept in a room of the store under a key; no value forgets it."""

    room: str
    key: str
    value: bytes | None


class Envelope(NamedTuple):
    """Bytes for the wire: the topic they go to, how carefully, and whether the broker keeps the last."""

    topic: str
    payload: bytes
    qos: int = 1
    is_retained: bool = False
    is_signed: bool = False


class Job(msgspec.Struct, frozen=True):
    """Slow or outside work. Its answer comes back as an event that names the `need`; the need is durable, the job is
    not.
    """

    need: str


class JobFailed(msgspec.Struct, frozen=True):
    """A job ended without an answer. The need is still there; the core decides when to try again."""

    job: Job
    why: str


class LinkUp(msgspec.Struct, frozen=True):
    """The broker has taken us and our subscriptions."""


class LinkDown(msgspec.Struct, frozen=True):
    """The broker is out of reach, and why as far as we know."""

    why: str


class ClockFound(msgspec.Struct, frozen=True):
    """The time was unknown and is found: it is `shift_ms` later than our clock has shown. `by` says who told it.

    First of its step's events, and the step's `Now` is by the new time already.
    """

    shift_ms: int
    by: str


class Consequences(msgspec.Struct):
    """What a core made of a batch of events.

    `rows` are committed in one transaction; then `envelopes` leave, `jobs` begin, and `answers` (by the event's place
    in the batch) go to those who asked.
    """

    rows: list[Row] = []
    envelopes: list[Envelope] = []
    jobs: list[Job] = []
    answers: dict[int, Any] = {}


class Wake(NamedTuple):
    """When a core next wants a step without an event, in domain time and in real time; None for never."""

    domain_ms: int | None
    real_ms: int | None


class Core(Protocol):
    """The deciding part of an agent or of the hub."""

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        """Decide. Starting and recovering are the same path: the first step of a life has no events."""
        ...

    def due(self, now: Now) -> list[Envelope]:
        """What should be sent or repeated now; asked only after a commit."""
        ...

    def wake(self, now: Now) -> Wake:
        """When the core wants its next step."""
        ...


class Store(Protocol):
    """Where rows are kept. A commit that returns is on disk."""

    def saved(self) -> Saved:
        """Everything that is kept."""
        ...

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all the rows or none. Raises when the disk does not take them: then the process must die."""
        ...


Point = Callable[[str], None]
"""Hears by name where in a step we are: "decided", "committed", and "sent" for each envelope that has left."""


def nothing(_: str) -> None:
    """Let a step pass its named points without notice."""


def step(
    core: Core, store: Store, events: Sequence[Any], now: Now, at: Point = nothing
) -> tuple[Consequences, list[Envelope]]:
    """Take one step; returns the consequences and everything that may be sent now, in order.

    Whoever sends calls `at("sent")` for each envelope. `at` may raise: a plug pulled at that point.
    """
    consequences = core.handle(events, now)
    at("decided")
    if consequences.rows:
        store.commit(consequences.rows)
    at("committed")
    return consequences, [*consequences.envelopes, *core.due(now)]
