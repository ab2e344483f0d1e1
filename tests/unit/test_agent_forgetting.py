"""A person is forgotten on board: what is left says that work was done, and not for whom."""

import msgspec

from edge_agent.dialogue import ObjectSaid, OutcomeSaid
from shared.messages import Ack, AmendmentTaken, Numbered, PersonForgotten, WorkAmended
from shared.quantities import EpochMs
from shared.topics import HUB
from shared.work import AgentId, Outcome, StopId
from tests.agents import DEPOT, Rig, place, plan_of, row_of_houses, stop

MARKS = (b"Mannerheimintie", b"4711#", b"behind the sauna", b"in the shed", b"Virtanen", b"barks at hats", b"SIGNED")
PICTURE = b"\x89PNG\r\n\x1a\nSIGNED" + bytes(60_000)

ANNA = msgspec.structs.replace(
    stop("s1", 400.0, 0.0),
    address="Mannerheimintie 5",
    door_code="4711#",
    note="behind the sauna",
    safe_place="in the shed",
    neighbour="Virtanen",
)


def anna_rig() -> Rig:
    rig = Rig()
    rig.push(plan_of([ANNA, *row_of_houses(3)[1:]]))
    rig.begin()
    return rig


def traces(rig: Rig) -> list[bytes]:
    return [mark for mark in MARKS if any(mark in row for room in rig.disk.values() for row in room.values())]


def visited_rig() -> Rig:
    rig = anna_rig()
    rig.heads_for("s1")
    rig.stands_at(place(400, 0), after_s=100)
    photo = rig.driver(ObjectSaid("photo", "s1", "image/png", PICTURE)).found["digest"]
    said = OutcomeSaid("s1", Outcome.REFUSED, "barks at hats", photo=photo)
    assert rig.driver(said).status == 200
    rig.visits("s2")
    return rig


def acked(rig: Rig) -> None:
    rig.link_up()
    for _ in range(3):
        rig.step(Ack(AgentId("van-1"), "b1", "events", 1_000), Ack(AgentId("van-1"), "b1", "objects", 1_000))


def test_the_marks_are_there_to_be_forgotten() -> None:
    assert traces(visited_rig()) == list(MARKS)


def test_nothing_of_a_person_is_left_once_the_hub_has_what_was_said() -> None:
    rig = visited_rig()
    rig.hub(PersonForgotten((StopId("s1"),)))
    acked(rig)
    assert traces(rig) == []
    visit = rig.core._round.visits[StopId("s1")]
    assert (visit.outcome, visit.proof.position, visit.reason) == (Outcome.REFUSED, None, "")
    assert rig.plan.stops[0].position == DEPOT.position


def test_pictures_that_have_not_left_go_at_once() -> None:
    rig = visited_rig()
    rig.hub(PersonForgotten((StopId("s1"),)))
    assert rig.disk["objects"] == {}


def test_the_store_is_told_when_it_begins_and_when_nothing_old_waits_any_more() -> None:
    rig = visited_rig()
    rig.hub(PersonForgotten((StopId("s1"),)))
    assert list(rig.disk["forgotten"]) == ["s1"]
    again = rig.restarted()
    again.step()
    assert list(again.disk["forgotten"]) == ["s1"]
    acked(again)
    assert again.disk["forgotten"] == {}


def test_a_stop_still_to_come_is_not_visited_any_more() -> None:
    rig = anna_rig()
    rig.heads_for("s2")
    rig.hub(PersonForgotten((StopId("s1"),)))
    assert rig.shown == ["s2", "s3"]
    assert rig.events(AmendmentTaken)[0].taken == ("s1",)
    assert traces(rig) == []


def test_the_stop_under_way_is_forgotten_when_the_van_has_left_it_for_the_next() -> None:
    rig = anna_rig()
    rig.heads_for("s1")
    rig.hub(PersonForgotten((StopId("s1"),)))
    assert rig.day["stops"][0]["address"] == "Mannerheimintie 5"
    again = rig.restarted()
    again.visits("s1")
    again.visits("s2")
    acked(again)
    assert traces(again) == []


def test_a_person_forgotten_is_on_no_page() -> None:
    rig = visited_rig()
    rig.hub(PersonForgotten((StopId("s1"),)))
    assert b"Mannerheimintie" not in [each for each in rig.envelopes if each.topic == "page/day"][-1].payload


def test_forgetting_whom_nobody_knows_changes_nothing() -> None:
    rig = anna_rig()
    before = rig.core.durable()["parts"]
    rig.hub(PersonForgotten((StopId("nowhere"), StopId(""))))
    assert rig.core.durable()["parts"] == before
    Rig().hub(PersonForgotten((StopId("s1"),)))


def test_a_person_forgotten_twice_is_forgotten_once() -> None:
    rig = visited_rig()
    rig.hub(PersonForgotten((StopId("s1"),)))
    before = rig.core.durable()["parts"]
    rig.hub(PersonForgotten((StopId("s1"),)))
    assert rig.core.durable()["parts"] == before


def test_what_is_said_to_the_hub_measured_and_decided_names_nobody() -> None:
    rig = Rig()
    urgent = msgspec.structs.replace(stop("s6", 450.0, 60.0, told=(0, 50)), address="Mannerheimintie 7")
    rig.push(plan_of([ANNA, *row_of_houses(5)[1:], urgent]))
    rig.begin()
    rig.heads_for("s1")
    rig.waits(25)
    for _ in range(130):
        rig.step(rig.fix(place(100, 0), 0.0), after_s=5)
    rig.hub(WorkAmended(1, stops=(msgspec.structs.replace(ANNA, stop_id=StopId("s1-2"), attempt=2),)))
    assert {"Resequenced", "AmendmentTaken", "EstimatesMoved"} <= {type(said).__name__ for said in rig.said}
    assert rig.disk["telemetry"]
    rows = [row for room in ("outbox", "telemetry", "agent", "taken") for row in rig.disk[room].values()]
    assert [mark for mark in MARKS if any(mark in row for row in rows)] == []
    assert not any(mark.decode() in str(rig.core.counters()) for mark in MARKS)


def test_a_visit_that_the_newest_plan_has_no_more_is_forgotten_too() -> None:
    rig = visited_rig()
    acked(rig)
    rig.push(plan_of(row_of_houses(3)[1:], version=2))
    rig.hub(PersonForgotten((StopId("s1"),)))
    acked(rig)
    assert traces(rig) == []


def test_the_store_is_told_to_erase_what_only_its_log_may_still_hold() -> None:
    # Simulation seed 76: another plan had taken the stop away, and its address lay in the write-ahead log for good.
    rig = anna_rig()
    rig.push(plan_of(row_of_houses(3)[1:], version=2))
    made = rig.step(
        Numbered(HUB, "hub-1", "commands", 3, EpochMs(rig.now_ms), 1, PersonForgotten((StopId("s1"),))),
    )
    assert "forgotten" in {row.room for row in made.rows}
