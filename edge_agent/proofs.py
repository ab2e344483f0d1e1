"""Keep the signatures and photographs of visits on board until the hub has them.

They are personal: they lie in a room of their own, records name them by hash, and they leave in small pieces in a
stream of their own, so that no event waits for a picture. What no visit names is thrown away.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec

from edge_agent.dialogue import ObjectSaid, OutcomeSaid, Reply
from edge_agent.memory import Parts, Shipping, read_part
from shared.messages import ObjectPart
from shared.steps import Row, Saved
from shared.work import StopId

ROOM = "objects"
MOST_BYTES = 5_000_000
"""What waits on board at most, in memory too: an agent has 96 MB and takes 90 of them for itself.

Without a network that is 14 photographs of 250 KB, which few stops need, and 150 signatures of 10 KB.
"""
KEPT_FOR_SIGNATURES = 1_500_000
"""Photographs leave this much: a delivery may need a signature, none needs a photograph."""
PIECE_BYTES = 49_152
"""65 KB on the wire, as base64."""

BEGINS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
"""The first bytes of each media type (PNG specification, 5.2; ITU-T T.81, B.1.1.3)."""


class Kept(msgspec.Struct, frozen=True):
    """One thing made at a stop. `digest` is the SHA-256 of its content."""

    kind: str
    stop_id: StopId
    media_type: str
    digest: str
    content: bytes

    @property
    def key(self) -> str:
        """The same picture at two stops is two things: each stop may be forgotten without the other."""
        return f"{self.digest}/{self.kind}/{self.stop_id}"

    @property
    def parts(self) -> int:
        """How many pieces it travels in."""
        return -(-len(self.content) // PIECE_BYTES)

    def part(self, number: int) -> ObjectPart:
        """One of them, counted from 0."""
        piece = self.content[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        return ObjectPart(self.digest, self.kind, self.stop_id, self.media_type, number, self.parts, piece)


class Proofs:
    """What is kept on board of one agent's visits. Rows it gives back belong into the step's commit."""

    def __init__(self, saved: Saved) -> None:
        """From everything the store held."""
        room = saved.get(ROOM, {})
        self._kept = {key: msgspec.msgpack.decode(room[key], type=Kept) for key in sorted(room)}
        self._shipping = read_part(saved.get("agent", {}), "shipping", Shipping) or Shipping()
        self._bytes = sum(len(kept.content) for kept in self._kept.values())

    @property
    def kept(self) -> Mapping[str, Kept]:
        """Everything on board that has not been handed to the link whole."""
        return self._kept

    @property
    def bytes_on_board(self) -> int:
        """How much room it takes."""
        return self._bytes

    def parts(self) -> Parts:
        """What must be written down; each thing has a row of its own."""
        return {("agent", "shipping"): self._shipping}

    def holds(self, said: ObjectSaid) -> bool:
        """Whether this very thing is on board already."""
        return self._kept.get(_kept(said).key) == _kept(said)

    def keep(self, said: ObjectSaid) -> tuple[Reply, list[Row]]:
        """Take a thing on board, or say why not; the same thing twice is kept once."""
        kept = _kept(said)
        found = Reply(200, found={"digest": kept.digest})
        if not said.content.startswith(BEGINS[said.media_type]):
            return Reply(422, "ObjectGarbled", f"this {said.kind} does not begin as {said.media_type} does"), []
        if kept.key in self._kept:
            return found, []
        room = MOST_BYTES - (KEPT_FOR_SIGNATURES if said.kind == "photo" else 0)
        if self._bytes + len(said.content) > room:
            detail = f"{self._bytes // 1_000_000} MB of pictures wait for the hub, expected at most {room // 1_000_000}"
            return Reply(507, "NoRoomOnBoard", f"{detail}; go on without this {said.kind}, or wait for the network"), []
        self._kept[kept.key] = kept
        self._bytes += len(kept.content)
        return found, [Row(ROOM, kept.key, msgspec.msgpack.encode(kept))]

    def missing(self, said: OutcomeSaid) -> list[str]:
        """Which of the things an outcome names are not on board, in words."""
        named = (("signature", said.signature), ("photo", said.photo))
        return [
            f"the {kind} {digest[:12]}"
            for kind, digest in named
            if digest is not None and f"{digest}/{kind}/{said.stop_id}" not in self._kept
        ]

    def visited(self, said: OutcomeSaid) -> list[Row]:
        """A visit has ended: what its outcome names is to travel, what else was made there is thrown away."""
        named = {f"{said.signature}/signature/{said.stop_id}", f"{said.photo}/photo/{said.stop_id}"}
        made = [key for key, kept in self._kept.items() if kept.stop_id == said.stop_id]
        waiting = tuple(key for key in made if key in named and key not in self._shipping.waiting)
        self._shipping = msgspec.structs.replace(self._shipping, waiting=self._shipping.waiting + waiting)
        return self._drop([key for key in made if key not in named])

    def next_part(self) -> tuple[ObjectPart, list[Row]] | None:
        """The next piece to travel and the rows of its leaving; None when nothing waits to travel."""
        if not self._shipping.waiting:
            return None
        key, number = self._shipping.waiting[0], self._shipping.parts_left
        kept = self._kept[key]
        if number + 1 < kept.parts:
            self._shipping = msgspec.structs.replace(self._shipping, parts_left=number + 1)
            return kept.part(number), []
        return kept.part(number), self._drop([key])

    def begin_day(self) -> list[Row]:
        """Another day has come: what no visit has named will not be named any more."""
        return self._drop([key for key in self._kept if key not in self._shipping.waiting])

    def give_up(self, is_proof: Callable[[StopId], bool]) -> tuple[Kept | None, list[Row]]:
        """Throw away the oldest photograph that no piece of has left and that nothing was to be shown by; None when
        there is none.
        """
        under_way = self._shipping.waiting[:1] if self._shipping.parts_left else ()
        for key in self._shipping.waiting:
            kept = self._kept[key]
            if kept.kind == "photo" and key not in under_way and not is_proof(kept.stop_id):
                return kept, self._drop([key])
        return None, []

    def forget(self, stop_ids: Collection[StopId]) -> list[Row]:
        """Throw away what was made at these stops, on its way or not."""
        return self._drop([key for key, kept in self._kept.items() if kept.stop_id in stop_ids])

    def _drop(self, keys: list[str]) -> list[Row]:
        for key in keys:
            self._bytes -= len(self._kept.pop(key).content)
        head, gone = self._shipping.waiting[:1], set(keys)
        if gone.intersection(self._shipping.waiting):
            waiting = tuple(key for key in self._shipping.waiting if key not in gone)
            self._shipping = Shipping(waiting, self._shipping.parts_left if head == waiting[:1] else 0)
        return [Row(ROOM, key, None) for key in keys]


def _kept(said: ObjectSaid) -> Kept:
    return Kept(said.kind, StopId(said.stop_id), said.media_type, said.digest, said.content)
