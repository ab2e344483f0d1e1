"""What agents report and cannot be true becomes a dead letter, and nothing else."""

import msgspec

from cloud_hub.fleet import AgentRecord, Chain, DeadLetter
from shared.ledger import Decision
from shared.messages import Resequenced
from shared.quantities import EpochMs
from shared.work import StopId
from tests.unit.hub_cases import VAN, Driven, at, estimate, order

FIRST, SECOND = StopId("stop-1"), StopId("stop-2")


def test_a_resequence_with_absurd_estimates_changes_neither_order_nor_chain() -> None:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    own = Decision("van-1/1", VAN, "resequence", at(10), "I go to stop 2 first.", "late", (), (), 0, "allowed", "rules")
    absurd = msgspec.structs.replace(estimate(SECOND, 10), p90_ms=EpochMs(1 << 62))
    hub.say(Resequenced("c-1", 1, (FIRST, SECOND), (SECOND, FIRST), own, (absurd,)))
    (letter,) = hub.documents("dead_letters", DeadLetter).values()
    assert "expected rising instants within a week" in letter.why
    record = hub.documents("agents", AgentRecord)[VAN]
    assert (record.order, record.resequenced) == ((FIRST, SECOND), 0)
    assert VAN not in hub.documents("chains", Chain)
