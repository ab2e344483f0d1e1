"""What a promise is, and what its checkers share."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_hub.events import NoticeWanted
from cloud_hub.fleet import DeadLetter, Order
from cloud_hub.storage.embedded import EmbeddedStore
from edge_agent.dialogue import Said
from shared.ledger import Decision
from shared.steps import Consequences, Envelope, Row
from shared.work import AgentId
from tests.simulation.town import Household


class Broken(BaseException):
    """A promise was broken. Not an Exception: no process of the universe may catch it and live on."""

    def __init__(self, promise: "Promise", words: str) -> None:
        super().__init__(words)
        self.promise = type(promise).__name__
        self.sentence = " ".join((type(promise).__doc__ or "").split())


if TYPE_CHECKING:
    from tests.simulation.machines import AgentMachine, Machine
    from tests.simulation.universe import Universe


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


def hub_store(universe: "Universe") -> EmbeddedStore:
    return EmbeddedStore(universe.hub.disk.at / "hub.db")


def dead_letters(universe: "Universe") -> list[DeadLetter]:
    store = hub_store(universe)
    try:
        return [msgspec.json.decode(doc, type=DeadLetter) for _, doc in store.documents("dead_letters")]
    finally:
        store.close()


def is_forgotten(universe: "Universe", stop_id: str) -> bool:
    for doc in universe.facts.hub_kept.room("orders").values():
        order = msgspec.json.decode(doc, type=Order)
        if stop_id in order.visits:
            return order.is_forgotten
    return False


def decision_of(doc: bytes) -> Decision:
    return msgspec.json.decode(msgspec.json.decode(doc, type=_Kept).decision, type=Decision)


class _Kept(msgspec.Struct, frozen=True):
    decision: msgspec.Raw
