"""What agents report and cannot be true becomes a dead letter, and nothing else."""

import msgspec

from cloud_hub.chains import KeptHand
from cloud_hub.events import Spoke, Unreadable, VehiclesSaid
from cloud_hub.fleet import AgentRecord, Chain, DeadLetter, StopRecord
from cloud_hub.reports import MOST_VISITS
from shared import wire
from shared.ledger import Decision
from shared.messages import AgentEvent, HeadingTo, Numbered, ObjectPart, OverrideExplained, Resequenced, Visited
from shared.quantities import EpochMs
from shared.steps import Consequences
from shared.work import AgentId, Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import VAN, Driven, at, estimate, order, vehicle

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


REASON = OverrideExplained(SECOND, FIRST, "road", "roadworks by Mrs Virtanen's gate")


def driven() -> Driven:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    return hub


def test_why_a_driver_went_elsewhere_is_counted_and_told_without_his_own_words() -> None:
    hub = driven()
    hub.say(REASON, REASON)
    assert hub.documents("agents", AgentRecord)[VAN].override_reasons == {"road": 2}
    decision = hub.decisions()[-1]
    assert decision.sentence == "van-1 went to stop-2 before stop-1: because of the road."
    assert "Virtanen" not in str(decision)
    assert hub.documents("hands", KeptHand)[decision.decision_id].words == REASON.words


def test_no_van_explains_another_vans_stops() -> None:
    hub = Driven()
    hub.take(VehiclesSaid((vehicle(AgentId("van-2")),)))
    hub.plan([order(1), order(2)], [9.5, 11])
    hub.say(OverrideExplained(SECOND, FIRST, "road", "forged"), agent=AgentId("van-2"))
    assert [letter.why[-13:] for letter in hub.documents("dead_letters", DeadLetter).values()] == ["was another's"]
    assert "override_explained" not in [decision.kind for decision in hub.decisions()]


def test_an_override_for_no_known_reason_or_stop_is_a_dead_letter() -> None:
    hub = driven()
    hub.say(OverrideExplained(SECOND, FIRST, "mood"), OverrideExplained(SECOND, StopId("stop-9"), "road"))
    assert len(hub.documents("dead_letters", DeadLetter)) == 2
    assert hub.documents("agents", AgentRecord)[VAN].override_reasons == {}


def picture(part: int = 0, stop_id: StopId = FIRST, digest: str = "ab" * 32) -> ObjectPart:
    return ObjectPart(digest, "signature", stop_id, "image/png", part, 3, b"\x89PNG of somebody")


def objects(hub: Driven, *parts: AgentEvent, stream: str = "objects") -> Consequences:
    """What the van says in its stream of pictures, numbered apart from its events."""
    spoken = (Spoke(Numbered(VAN, "van-1-boot", stream, k, at(9), 0, part)) for k, part in enumerate(parts, start=1))
    return hub.take(*spoken)


def test_a_picture_is_kept_piece_by_piece_beside_the_books_and_acknowledged_by_its_stream() -> None:
    hub = driven()
    made = objects(hub, picture(0), picture(1), picture(2))
    kept = hub.documents("objects", ObjectPart)
    assert sorted(kept) == [f"{'ab' * 32}/{FIRST}/{part:04d}" for part in range(3)]
    assert {each.stop_id for each in kept.values()} == {FIRST}
    (ack,) = [wire.decode_ack(e.payload) for e in made.envelopes if e.topic.endswith("/acks")]
    assert (ack.stream, ack.upto) == ("objects", 3)
    assert hub.documents("agents", AgentRecord)[VAN].events_taken == 0


def test_a_picture_that_cannot_be_taken_leaves_nothing_of_itself() -> None:
    hub = driven()
    objects(hub, picture(3), picture(0, StopId("stop-9")), picture(0, FIRST, "../../etc"), HeadingTo(FIRST))
    letters = hub.documents("dead_letters", DeadLetter).values()
    assert [letter.payload for letter in letters][:3] == ["", "", ""]
    assert [letter.why for letter in letters][3] == "HeadingTo came in the stream 'objects'"
    assert hub.rooms.get("objects", {}) == {}


def test_what_cannot_be_read_of_a_picture_is_not_kept_either() -> None:
    hub = driven()
    hub.take(Unreadable(VAN, "van-1-boot", "objects", 1, b'{"piece": "iVBORw0KGgo"}', "not one of ours"))
    assert [letter.payload for letter in hub.documents("dead_letters", DeadLetter).values()] == [""]


def test_a_picture_among_the_events_does_not_hold_them_up() -> None:
    hub = driven()
    hub.say(picture(), HeadingTo(FIRST))
    assert hub.documents("agents", AgentRecord)[VAN].heading_to == FIRST
    assert hub.rooms.get("objects", {}) == {}


def test_a_stream_nobody_knows_is_refused_by_name() -> None:
    hub = driven()
    assert objects(hub, picture(), stream="secrets").rows == []
    assert hub.core.counts["refused.StreamUnknown"] == 1


def test_a_stop_visited_without_end_takes_no_more_room() -> None:
    hub = driven()
    proof = Proof((), None, at(10))
    for minute in range(MOST_VISITS + 20):
        came_ms = EpochMs(at(10) + minute * 60_000)
        hub.say(Visited(Visit(FIRST, Outcome.ATTEMPTED, came_ms, came_ms, proof, "nobody there")))
    assert len(hub.documents("stops", StopRecord)[FIRST].visits) == MOST_VISITS
    assert len(hub.documents("dead_letters", DeadLetter)) == 20
