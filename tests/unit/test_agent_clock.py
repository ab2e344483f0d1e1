"""A van that does not know the time works, says nothing undated, and dates everything once it is told."""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.agent import AgentCore
from edge_agent.dating import Dating
from edge_agent.machine import TellTime
from edge_agent.sensing import Fix
from shared import wire
from shared.ledger import FIRST_LINK, Decision, first_broken
from shared.messages import (
    Ack,
    Decided,
    EstimatesMoved,
    Numbered,
    PlanPushed,
    PlanRefused,
    Presence,
    TimeFound,
    TimeTold,
    TooLate,
    Visited,
    WindowTold,
)
from shared.quantities import EpochMs, Position
from shared.steps import ClockFound, LinkUp, Now
from shared.topics import HUB
from shared.wire import decode_telemetry
from shared.work import AgentId, StopId
from tests.agents import DEPOT, MINUTE_MS, MORNING_MS, Rig, identity, plan_of, row_of_houses

VAN = AgentId("van-1")
OFF_MS = 14 * 60 * MINUTE_MS
"""The machine was off for a night: its clock goes on from the evening before."""


class Lost(Rig):
    """A van whose machine boots without the time; `now_ms` is what it believes until its clock is put right."""

    def __init__(self, now_ms: int = MORNING_MS - OFF_MS, saved: Any = None, is_dated: bool = False) -> None:
        super().__init__(now_ms, saved)
        self.off_ms = OFF_MS
        self.core = AgentCore(msgspec.structs.replace(identity(), is_dated=is_dated), self.disk)

    def answer_to(self, job: Any) -> Any:
        if isinstance(job, TellTime):
            shift_ms = job.utc_ms - job.heard_ms
            self.now_ms += shift_ms
            self.off_ms -= shift_ms
            return ClockFound(shift_ms, job.by)
        return super().answer_to(job)

    def true_fix(self, position: Position, speed_mps: float = 0.0) -> Fix:
        return Fix(EpochMs(self.now_ms), position, speed_mps, utc_ms=EpochMs(self.now_ms + self.off_ms))

    def sees_satellites(self, position: Position) -> None:
        for _ in range(8):
            self.step(self.true_fix(position), after_s=1)

    def drives_and_delivers(self, stop_id: str = "s1") -> None:
        self.visits(stop_id)

    def again(self, is_dated: bool = False, off_ms: int = 0) -> "Lost":
        found = Lost(self.now_ms + 1, self.disk, is_dated)
        found.off_ms = self.off_ms + off_ms
        found._keys, found._commands = self._keys, self._commands
        return found

    @property
    def sent(self) -> list[Numbered]:
        return [wire.decode_numbered(e.payload) for e in self.envelopes if e.topic.endswith("/up/events")]

    @property
    def presence(self) -> Presence:
        told = [envelope for envelope in self.envelopes if envelope.topic.endswith("/up/presence")]
        return wire.decode_presence(told[-1].payload)

    @property
    def outbox(self) -> list[Numbered]:
        rows = self.disk.get("outbox", {})
        return [wire.decode_numbered(rows[key]) for key in sorted(rows) if "/events/" in key]


def at_work() -> Lost:
    """The plan came yesterday evening; since then the van has been off and nobody told it the time."""
    evening = Lost(MORNING_MS - OFF_MS - 60 * MINUTE_MS, is_dated=True)
    evening.push(plan_of(row_of_houses()))
    evening.step(LinkUp())
    evening.step(Ack(VAN, "b1", "events", 50))
    evening.step(after_s=60 * 60 - 1)
    van = evening.again()
    van.off_ms = OFF_MS
    van.step()
    return van


def test_it_works_on_and_nothing_undated_leaves() -> None:
    van = at_work()
    van.drives_and_delivers()
    van.step(LinkUp())
    assert van.events(Visited)
    assert van.sent == []
    assert (van.presence.is_dated, bool(van.presence.asks_time)) == (False, True)
    assert van.day["is_dated"] is False


def test_nothing_is_foreseen_against_windows_nobody_can_judge() -> None:
    van = at_work()
    van.drives_and_delivers()
    assert van.events(EstimatesMoved) == []
    assert van.day["stops"][0]["estimate"] is None
    assert van.core.wake(Now(EpochMs(van.now_ms), van.now_ms)).domain_ms is None


def test_once_satellites_tell_the_time_everything_bears_its_date_and_leaves() -> None:
    van = at_work()
    van.drives_and_delivers()
    delivered_ms = van.now_ms + OFF_MS
    van.step(LinkUp())
    van.sees_satellites(van.plan.stops[0].position)
    visited = next(numbered for numbered in van.sent if isinstance(numbered.message, Visited))
    assert (visited.said_ms, visited.message.visit.left_ms) == (delivered_ms, delivered_ms)
    assert visited.message.visit.proof.at_ms == delivered_ms
    assert MORNING_MS < visited.message.visit.arrived_ms < delivered_ms - 200_000
    assert van.core._round.visits[StopId("s1")].left_ms == delivered_ms
    assert van.core._round.day.left_ms == delivered_ms
    assert [event.by for event in van.events(TimeFound)] == ["gnss"]
    assert not any(MORNING_MS - OFF_MS <= numbered.said_ms < MORNING_MS - 1_000 for numbered in van.sent)
    assert van.presence.is_dated


def test_estimates_come_once_the_time_is_known() -> None:
    van = at_work()
    van.drives_and_delivers()
    van.sees_satellites(van.plan.stops[0].position)
    assert van.day["stops"][0]["estimate"][0] > MORNING_MS


def test_what_was_said_before_the_clock_was_lost_leaves_at_once_under_its_own_date() -> None:
    evening = Lost(MORNING_MS - OFF_MS - 60 * MINUTE_MS, is_dated=True)
    evening.push(plan_of(row_of_houses()))
    before = evening.outbox
    van = evening.again()
    van.step()
    van.step(LinkUp())
    assert van.sent == before
    assert len(van.outbox) == len(before) + 1
    van.sees_satellites(DEPOT.position)
    assert van.outbox[: len(before)] == before


def test_the_hub_tells_the_time_when_it_is_asked() -> None:
    van = at_work()
    van.step(LinkUp())
    van.hub(TimeTold(van.presence.asks_time, EpochMs(van.now_ms + OFF_MS)))
    (found,) = van.events(TimeFound)
    assert (found.by, found.shift_ms) == ("hub", OFF_MS)
    assert van.presence.is_dated


def test_an_answer_to_another_question_or_a_late_one_is_not_believed() -> None:
    van = at_work()
    van.step(LinkUp())
    asked = van.presence.asks_time
    van.hub(TimeTold("l1/999", EpochMs(van.now_ms + OFF_MS)))
    van.now_ms += 15_000
    van.hub(TimeTold(asked, EpochMs(van.now_ms + OFF_MS)))
    assert van.events(TimeFound) == []
    assert van.core.refused["TimeNotAsked"] == 2
    assert van.presence.asks_time not in ("", asked)


def test_a_receiver_that_tells_a_time_before_what_is_remembered_is_not_believed() -> None:
    van = at_work()
    van.off_ms = -1024 * 7 * 24 * 60 * MINUTE_MS
    van.sees_satellites(DEPOT.position)
    assert van.events(TimeFound) == []
    assert van.core.refused["TimeBeforeMemory"] > 0


def test_the_hub_is_believed_even_when_the_store_remembers_a_wrong_future() -> None:
    van = at_work()
    van.drives_and_delivers()
    delivered_ms = van.now_ms
    van.step(LinkUp())
    van.hub(TimeTold(van.presence.asks_time, EpochMs(van.now_ms - OFF_MS)))
    visited = next(numbered for numbered in van.outbox if isinstance(numbered.message, Visited))
    assert visited.said_ms == delivered_ms - OFF_MS
    assert van.again(is_dated=True).core.durable() == van.core.durable()


def test_no_start_by_time_is_judged_on_an_unknown_clock() -> None:
    van = at_work()
    window = van.plan.stops[0].slot
    past = EpochMs(van.now_ms - MINUTE_MS)
    told = WindowTold(StopId("s1"), window)
    van.step(Numbered(HUB, "h2", "commands", 1, past, 1, told, start_by_ms=past))
    van.step(Numbered(HUB, "h2", "commands", 2, past, 1, PlanPushed(plan_of(row_of_houses(), 2), past), past))
    assert van.events(TooLate) == van.events(PlanRefused) == []
    assert van.core._round.plan_version == 2


def test_a_command_after_its_start_by_time_is_acknowledged_and_not_begun_and_the_hub_hears_of_it() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses()))
    past = EpochMs(rig.now_ms - 1)
    told = WindowTold(StopId("s1"), msgspec.structs.replace(rig.plan.stops[0].told, opens_ms=MORNING_MS))
    rig.step(Numbered(HUB, "hub-1", "commands", 2, past, 1, told, start_by_ms=past))
    assert rig.events(TooLate) == [TooLate("window_told", 2, past)]
    acks = [wire.decode_ack(e.payload) for e in rig.envelopes if e.topic.endswith("/up/acks")]
    assert acks[-1].upto == 2
    assert "told" not in rig.disk or rig.disk["told"] == {}
    assert rig.core.refused["TooLate"] == 1


def test_memory_equals_disk_after_the_time_was_found() -> None:
    van = at_work()
    van.drives_and_delivers()
    van.sees_satellites(van.plan.stops[0].position)
    assert van.again(is_dated=True).core.durable() == van.core.durable()
    assert "undated" not in van.disk["agent"]


def test_two_lives_without_the_time_are_dated_together_and_in_order() -> None:
    van = at_work()
    van.drives_and_delivers("s1")
    again = van.again(off_ms=30_000)
    again.step(after_s=0.001)
    again.drives_and_delivers("s2")
    again.sees_satellites(again.plan.stops[1].position)
    said = [numbered.said_ms for numbered in again.outbox]
    assert said == sorted(said)
    assert min(said) >= MORNING_MS


def test_a_life_that_ended_undated_is_taken_to_have_ended_just_before_the_next_one() -> None:
    van = at_work()
    van.drives_and_delivers()
    ended_ms = van.now_ms
    next_day = van.again(is_dated=True)
    next_day.now_ms = ended_ms + OFF_MS
    next_day.step()
    (visited,) = [numbered for numbered in next_day.outbox if isinstance(numbered.message, Visited)]
    assert visited.message.visit.left_ms == ended_ms + OFF_MS
    assert [event.by for event in next_day.events(TimeFound)] == ["start"]


def test_samples_taken_on_an_unknown_clock_are_dated_again() -> None:
    van = at_work()
    here = van.plan.stops[0].position
    for _ in range(130):
        van.step(van.fix(here, 0.0), after_s=5)
    first_true_ms = van.now_ms + OFF_MS - 129 * 5_000
    van.sees_satellites(here)
    batches = [decode_telemetry(row) for key, row in van.disk["telemetry"].items() if key.isdigit()]
    assert batches
    assert int(batches[0].at_ms[0]) == first_true_ms


def decision(k: int, previous: str, at_ms: int) -> Decision:
    return Decision(f"van-1-{k}", VAN, "keep", EpochMs(at_ms), "s", "c", (), (), 0, "v", "", previous=previous)


def test_the_undated_part_of_the_chain_is_linked_anew() -> None:
    dated = decision(1, FIRST_LINK, 500)
    one = decision(2, dated.link(), 1_000)
    two = decision(3, one.link(), 2_000)
    dating = Dating(1_000, 3_600_000)
    said = [
        Numbered(VAN, "b1", "events", k, each.at_ms, 1, Decided(each)) for k, each in enumerate((dated, one, two), 1)
    ]
    redated = [wire.decode_numbered(dating.payload(wire.encode(numbered))).message for numbered in said]
    chain = [message.decision for message in redated if isinstance(message, Decided)]
    assert chain[0] == dated
    assert [each.at_ms for each in chain] == [500, 3_601_000, 3_602_000]
    assert first_broken(chain) is None
    assert dating.link(two.link()) == chain[-1].link()


MOVES = st.lists(st.sampled_from(["deliver", "stand", "wait", "kill", "up"]), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MOVES)
def test_whatever_happens_before_the_time_is_found_every_record_is_dated_rightly_and_in_order(moves: list[str]) -> None:
    van = at_work()
    visited_true_ms: dict[str, int] = {}
    for move in moves:
        to_come = van.core._round.day.shown
        if move == "deliver" and to_come:
            van.drives_and_delivers(to_come[0])
            visited_true_ms[to_come[0]] = van.now_ms + van.off_ms
        elif move == "stand":
            van.stands_at(van.plan.stops[0].position)
        elif move == "wait":
            van.step(after_s=600)
        elif move.startswith("kill"):
            if move == "kill after commit":
                van.step(after_s=1)
            van = van.again()
            van.now_ms += 1
            van.step()
        elif move == "up":
            van.step(LinkUp())
        assert all(numbered.said_ms < MORNING_MS - OFF_MS for numbered in van.sent)
    van.sees_satellites(DEPOT.position)
    waiting = {
        numbered.message.visit.stop_id: numbered.message.visit.left_ms
        for numbered in van.outbox
        if isinstance(numbered.message, Visited)
    }
    assert waiting == visited_true_ms
    said = [numbered.said_ms for numbered in van.outbox]
    assert said == sorted(said)
    assert van.again(is_dated=True).core.durable() == van.core.durable()
