"""Number what we send, repeat it until it is acknowledged, and take each message once.

A broker's own acknowledgement only says that the broker has a message. So
a sender keeps what it says until the receiver has committed it, and the
receiver says so only afterwards. Messages of a stream are taken in order:
a receiver needs one number per sender and no table of what it has seen.
"""

import hashlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol

import msgspec

from shared.messages import Ack
from shared.steps import Row
from shared.work import AgentId

IN_FLIGHT = 64
"""Messages of one stream that may be on their way at once: less than any broker's default queue of 1,000 by far."""

MOST_LIVES = 64
"""Lives of one sender's store that are followed; a machine whose store was made anew so often is ill, or means harm."""

REPEAT_AFTER_MS = 1_000
REPEAT_AT_MOST_EVERY_MS = 30_000


class Sender:
    """One party's side of one stream: what it has said and the other has not yet acknowledged."""

    def __init__(
        self, to: AgentId, boot: str, stream: str, saved: Mapping[str, bytes], counters: Mapping[str, bytes]
    ) -> None:
        """From the rows of an earlier life: `saved` is the room `outbox`, `counters` the room `counters`."""
        self.to = to
        self.boot = boot
        self.stream = stream
        self._room = f"{to}/{stream}/"
        self._waiting = {
            int(key.removeprefix(self._room)): saved[key] for key in sorted(saved) if key.startswith(self._room)
        }
        self._bytes = sum(map(len, self._waiting.values()))
        self._flights: dict[int, _Flight] = {}
        self.next_seq = int(counters.get(self._room, b"1"))
        self.held_from: int | None = None
        """Messages from this number on are kept and not sent; None when none is held back."""

    def say(self, write: Callable[[int], bytes]) -> list[Row]:
        """Take a message into the stream: `write` gets its number and returns its bytes. Commit the rows."""
        seq = self.next_seq
        payload = write(seq)
        self.next_seq = seq + 1
        self._waiting[seq] = payload
        self._bytes += len(payload)
        return [Row("outbox", self._key(seq), payload), Row("counters", self._room, b"%d" % self.next_seq)]

    def acked(self, ack: Ack) -> list[Row]:
        """Forget what the receiver has committed. An ack of another life of our store is not about us."""
        if ack.boot != self.boot or ack.stream != self.stream:
            return []
        beyond = frozenset(ack.beyond)
        done = [seq for seq in self._waiting if seq <= ack.upto or seq in beyond]
        for seq in done:
            self._bytes -= len(self._waiting.pop(seq))
            self._flights.pop(seq, None)
        return [Row("outbox", self._key(seq), None) for seq in done]

    def rewrite(self, renew: Callable[[bytes], bytes]) -> list[Row]:
        """Say something else under the numbers of what still waits, asked for in their order; commit the rows. For what
        must be forgotten, given up or was never sent: a receiver that has taken the former words takes the new ones
        for their repeat.
        """
        rows = []
        for seq, payload in self._waiting.items():
            renewed = renew(payload)
            if renewed != payload:
                self._waiting[seq] = renewed
                self._bytes += len(renewed) - len(payload)
                rows.append(Row("outbox", self._key(seq), renewed))
        return rows

    def due(self, real_ms: int) -> list[bytes]:
        """What should be sent or repeated now, oldest first."""
        payloads = []
        for seq in self._window():
            flight = self._flights.get(seq, _Flight(0, real_ms))
            if flight.again_at_ms <= real_ms:
                self._flights[seq] = _Flight(flight.times_sent + 1, real_ms + self._patience_ms(seq, flight.times_sent))
                payloads.append(self._waiting[seq])
        return payloads

    def due_at(self, real_ms: int) -> int | None:
        """When `due` will next have something; None when nothing waits."""
        return min(
            (self._flights[seq].again_at_ms if seq in self._flights else real_ms for seq in self._window()),
            default=None,
        )

    def repeat_all(self) -> None:
        """Send everything unacknowledged again at once: the other side has come back or never heard it."""
        self._flights.clear()

    @property
    def backlog(self) -> int:
        """How many messages wait for their acknowledgement."""
        return len(self._waiting)

    @property
    def bytes_waiting(self) -> int:
        """How much room what waits takes."""
        return self._bytes

    @property
    def unacked(self) -> int:
        """The lowest number still kept; the next one when none is."""
        return next(iter(self._waiting), self.next_seq)

    def _window(self) -> list[int]:
        window = []
        for seq in self._waiting:
            if self.held_from is not None and seq >= self.held_from:
                break
            window.append(seq)
            if len(window) == IN_FLIGHT:
                break
        return window

    def _key(self, seq: int) -> str:
        return f"{self._room}{seq:012d}"

    def _patience_ms(self, seq: int, times_sent: int) -> int:
        """Doubles with each repeat and spreads by up to a half, from a hash, so that senders do not fall into step."""
        patience = min(REPEAT_AFTER_MS << min(times_sent, 8), REPEAT_AT_MOST_EVERY_MS)
        draw = hashlib.blake2b(f"{self.boot}{self._room}{seq}.{times_sent}".encode(), digest_size=2).digest()
        return patience + patience * int.from_bytes(draw, "little") // 131_072


class _Flight(msgspec.Struct, frozen=True):
    times_sent: int
    again_at_ms: int


class Take(Enum):
    """What a receiver makes of a numbered message."""

    NEW = "new"
    """The next of its stream: act on it and commit."""
    REPEAT = "repeat"
    """Taken before: acknowledge it again."""
    EARLY = "early"
    """An earlier one is still on its way and will be repeated; so will this one. Storing it would cost us a table."""
    RETIRED = "retired"
    """From a life of the sender's store that a newer one has replaced."""


class _Mark(msgspec.Struct, frozen=True):
    boot: str
    upto: int
    retired: tuple[str, ...] = ()


_marks = msgspec.json.Decoder(_Mark)


class Placed(Protocol):
    """Whatever has a place in a stream: a numbered message, or one whose contents could not be read."""

    @property
    def sender(self) -> AgentId: ...
    @property
    def boot(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def seq(self) -> int: ...


class Receiver:
    """What one party has taken of every stream it hears."""

    def __init__(self, saved: Mapping[str, bytes]) -> None:
        """From the rows of an earlier life: `saved` is the room `taken`."""
        self._marks = {key: _marks.decode(value) for key, value in sorted(saved.items())}

    def take(self, numbered: Placed, after: int = 0) -> tuple[Take, list[Row]]:
        """Judge a message; when it is new, the rows are to be committed with whatever it causes.

        `after` is what the sender says of numbers it keeps no more (`Numbered.after`).
        """
        key = f"{numbered.sender}/{numbered.stream}"
        mark = self._mark(key, numbered.boot)
        if mark is None:
            return Take.RETIRED, []
        mark = msgspec.structs.replace(mark, upto=max(mark.upto, min(after, numbered.seq - 1)))
        if numbered.seq <= mark.upto:
            return Take.REPEAT, []
        if numbered.seq > mark.upto + 1:
            return Take.EARLY, []
        mark = msgspec.structs.replace(mark, upto=numbered.seq)
        self._marks[key] = mark
        return Take.NEW, [Row("taken", key, msgspec.json.encode(mark))]

    def resume(self, sender: AgentId, boot: str, stream: str, unacked: int) -> tuple[int, list[Row]]:
        """The sender keeps nothing before the number `unacked` (`Presence.unacked`): how many messages we lack and will
        never hear, and the rows that say so; commit them before anything of it is acknowledged.

        Nothing is missing as long as nobody went back in time: a sender forgets only what a receiver has committed. It
        is when we were restored from an older copy of our store.
        """
        key = f"{sender}/{stream}"
        mark = self._mark(key, boot)
        if mark is None or unacked - 1 <= mark.upto:
            return 0, []
        missing = unacked - 1 - mark.upto
        mark = msgspec.structs.replace(mark, upto=unacked - 1)
        self._marks[key] = mark
        return missing, [Row("taken", key, msgspec.json.encode(mark))]

    def has_retired(self, sender: AgentId, stream: str, boot: str) -> bool:
        """Whether a newer life of the sender's store has replaced this one."""
        mark = self._marks.get(f"{sender}/{stream}")
        return mark is not None and boot in mark.retired

    def _mark(self, key: str, boot: str) -> _Mark | None:
        """How far this life of the sender's store was taken, the one before retired; None when it is retired itself,
        or one too many.
        """
        mark = self._marks.get(key, _Mark(boot, 0))
        if boot in mark.retired or (boot != mark.boot and len(mark.retired) >= MOST_LIVES):
            return None
        return mark if boot == mark.boot else _Mark(boot, 0, (*mark.retired, mark.boot))

    def ack(self, sender: AgentId, stream: str) -> Ack | None:
        """What may be acknowledged to this sender once everything taken is committed."""
        mark = self._marks.get(f"{sender}/{stream}")
        return None if mark is None else Ack(sender, mark.boot, stream, mark.upto)

    def lives(self, sender: AgentId, stream: str) -> int:
        """How many lives of this sender's store have been seen; after more than one, something may be lost."""
        mark = self._marks.get(f"{sender}/{stream}")
        return 0 if mark is None else 1 + len(mark.retired)
