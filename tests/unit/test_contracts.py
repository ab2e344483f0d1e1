"""A plan that is wrong in itself says so in words."""

import msgspec
import numpy as np
import pytest

from shared.contracts import LegTimes, LegTimesWrong, Plan
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.work import AgentId, Depot, OrderId, Stop, StopId

DAY = TimeWindow(EpochMs(0), EpochMs(36_000_000))
HERE = Position(60.1, 24.9)


def stop(name: str, told: TimeWindow = DAY) -> Stop:
    return Stop(StopId(name), OrderId(name), "Katu 1", HERE, DAY, told, Seconds(240))


def plan(*stops: Stop) -> Plan:
    places = tuple(s.stop_id for s in stops)
    matrix = np.full((1, len(places) + 1, len(places) + 1), 60)
    legs = LegTimes.from_matrix(1, places, (EpochMs(36_000_000),), matrix)
    depot = Depot("d", "Depot", HERE, HERE)
    return Plan(1, AgentId("van-1"), "2026-03-03", depot, EpochMs(0), EpochMs(9), EpochMs(9), stops, legs)


def test_a_sound_plan_meets_no_objection() -> None:
    assert plan(stop("a"), stop("b")).objections() == []


def test_a_told_window_before_its_slot_is_named() -> None:
    before = TimeWindow(EpochMs(-1), EpochMs(36_000_000))
    assert plan(stop("a", before)).objections() == ["stop a: told window begins before its slot"]


def test_a_customer_told_of_a_breach_may_stay_in_the_plan() -> None:
    after = TimeWindow(EpochMs(36_000_000), EpochMs(39_600_000))
    assert plan(stop("a", after)).objections() == []


def test_a_stop_listed_twice_is_named() -> None:
    assert "a stop is listed twice" in plan(stop("a"), stop("a")).objections()


def test_leg_times_come_back_as_they_were() -> None:
    matrix = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    legs = LegTimes.from_matrix(1, (StopId("a"), StopId("b")), (EpochMs(1), EpochMs(2)), matrix)
    np.testing.assert_array_equal(legs.matrix(), matrix)


def test_leg_times_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(LegTimesWrong, match="shape"):
        LegTimes.from_matrix(1, (StopId("a"),), (EpochMs(1),), np.zeros((1, 3, 3), int))


def test_leg_times_that_lost_bytes_are_named() -> None:
    sound = plan(stop("a"))
    cut = msgspec.structs.replace(sound, legs=msgspec.structs.replace(sound.legs, seconds=b"\0"))
    assert cut.objections() == ["leg times hold 1 bytes, expected 8 for 2 places"]
