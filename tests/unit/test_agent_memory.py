"""Memory equals disk: whatever happened, a core begun from the rows knows what the running one knows."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.dialogue import (
    Asked,
    ChangeSaid,
    HeadingSaid,
    ObjectSaid,
    OutcomeSaid,
    OverrideSaid,
    ScanSaid,
    SessionSaid,
    ShiftSaid,
)
from edge_agent.sensing import Scan, WheelSpeed
from shared.contracts import ShiftLock
from shared.messages import Ack, PersonForgotten, PlanPushed, RoadsChanged, WindowTold, WorkAmended
from shared.quantities import EpochMs, TimeWindow
from shared.steps import LinkDown, LinkUp
from shared.work import AgentId, Outcome, StopId
from tests.agents import MINUTE_MS, MORNING_MS, REST, Rig, place, plan_of, row_of_houses, stop

NAMES = st.sampled_from(["s1", "s2", "s3", "s4", "s5", "s6", "s1", "s2", "nowhere"])
HOUSES = [*row_of_houses(5), stop("s6", 450.0, 60.0, told=(0, 50))]


def push(version: int, is_other_day: bool) -> object:
    day, lock = "2026-11-24" if is_other_day else "2026-11-23", ShiftLock.of("123456", "salt")
    plan = plan_of(HOUSES, version=version, day=day, rest=REST, shift_lock=lock)
    return PlanPushed(plan, EpochMs(MORNING_MS + 600 * MINUTE_MS))


def roads(version: int) -> object:
    legs = msgspec.structs.replace(plan_of(HOUSES, mps=3.0).legs, roads_version=version)
    return RoadsChanged(version, legs, "a street is closed")


def amended(version: int, name: str, minutes: int, withdrawn: list[str]) -> object:
    window = TimeWindow(EpochMs(MORNING_MS + minutes * MINUTE_MS), EpochMs(MORNING_MS + 500 * MINUTE_MS))
    house = msgspec.structs.replace(stop(name, 400.0, 0.0), told=window, slot=window)
    return WorkAmended(version, (house,), tuple(StopId(each) for each in withdrawn))


def picture(kind: str, name: str, size: int) -> object:
    begins = b"\x89PNG\r\n\x1a\n" if kind == "signature" else b"\xff\xd8\xff"
    media_type = "image/png" if kind == "signature" else "image/jpeg"
    return ObjectSaid(kind, name, media_type, begins + bytes(size))  # type: ignore[arg-type]  # both are allowed


COMMANDS = st.one_of(
    st.builds(amended, st.integers(1, 2), NAMES, st.integers(0, 300), st.lists(NAMES, max_size=2)),
    st.builds(lambda name: PersonForgotten((StopId(name),)), NAMES),
    st.builds(push, st.integers(1, 4), st.booleans()),
    st.builds(roads, st.integers(1, 4)),
    st.builds(
        lambda name, late: WindowTold(StopId(name), TimeWindow(MORNING_MS, EpochMs(MORNING_MS + late * MINUTE_MS))),
        NAMES,
        st.integers(10, 300),
    ),
)
SAYINGS = st.one_of(
    st.builds(ShiftSaid, st.sampled_from(["begun", "on_break", "off_break", "ended"])),
    st.builds(HeadingSaid, NAMES),
    st.builds(ChangeSaid, st.sampled_from(["van-1-1", "van-1-2", "x"]), st.sampled_from(["seen", "refused"])),
    st.builds(OutcomeSaid, NAMES, st.just(Outcome.ATTEMPTED), st.just("nobody answered")),
    st.builds(OutcomeSaid, NAMES, st.sampled_from(list(Outcome)), st.sampled_from(["", "why"])),
    st.builds(SessionSaid, st.sampled_from(["123456", "000000"]), st.sampled_from(["a" * 64, "b" * 64])),
    st.builds(ScanSaid, st.sampled_from(["WW:s1/1", "WW:s2/1", "§", "123"])),
    st.builds(picture, st.sampled_from(["signature", "photo"]), NAMES, st.sampled_from([1, 200_000])),
    st.builds(OverrideSaid, NAMES, st.sampled_from(["road", "no_answer"])),
)
HAPPENINGS = st.one_of(
    st.tuples(st.just("hub"), COMMANDS, st.integers(1, 3)),
    st.tuples(st.just("page"), SAYINGS, st.sampled_from(["", "", "twice"])),
    st.tuples(st.just("visit"), NAMES),
    st.tuples(st.just("scan"), st.sampled_from(["WW:s1/1", "WW:s2/1", "§", "123"])),
    st.tuples(st.just("stand"), st.integers(-1, 6)),
    st.tuples(st.just("drive"), st.integers(-1, 6)),
    st.tuples(st.just("wheels"), st.floats(0, 20)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 30, 1200])),
    st.tuples(st.just("link"), st.booleans()),
    st.tuples(st.just("ack"), st.sampled_from(["events", "events", "objects"]), st.integers(0, 60)),
    st.tuples(st.just("photographed"), NAMES),
    st.tuples(st.just("kill")),
)


def happen(rig: Rig, happening: tuple[object, ...]) -> Rig:
    match happening:
        case ("hub", command, int(epoch)):
            rig.hub(command, epoch=epoch)  # type: ignore[arg-type]  # one of COMMANDS
        case ("page", said, str(key)):
            rig._keys += 1
            rig.step(Asked(key or f"k{rig._keys}", said), after_s=5)  # type: ignore[arg-type]  # one of SAYINGS
        case ("visit", str(name)) if name in rig.core._round.day.shown:
            rig.visits(name)
        case ("scan", str(text)):
            rig.step(Scan(EpochMs(rig.now_ms), text))
        case ("stand", int(house)):
            rig.stands_at(place(400.0 * house, 0), after_s=60)
        case ("drive", int(house)):
            rig.drives_past(place(400.0 * house, 0), after_s=60)
        case ("wheels", float(speed)):
            rig.step(WheelSpeed(EpochMs(rig.now_ms), speed), after_s=1)
        case ("wait", int(minutes)):
            rig.step(after_s=60 * minutes)
        case ("link", bool(is_up)):
            rig.step(LinkUp() if is_up else LinkDown("cut"))
        case ("ack", str(stream), int(upto)):
            rig.step(Ack(AgentId("van-1"), "b1", stream, upto))
        case ("photographed", str(name)):
            digest = rig.driver(picture("photo", name, 200_000)).found.get("digest")  # type: ignore[arg-type]  # one of SAYINGS
            rig.driver(OutcomeSaid(name, Outcome.ATTEMPTED, "nobody", photo=digest))
        case ("kill",):
            rig = rig.restarted()
            rig.step()
    return rig


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(HAPPENINGS, min_size=8, max_size=40))
def test_after_anything_a_restarted_core_equals_the_running_one(happenings: list[tuple[object, ...]]) -> None:
    rig = Rig(iterations=200)
    rig.step()
    rig.push(plan_of(HOUSES, rest=REST))
    for happening in happenings:
        rig = happen(rig, happening)
        assert rig.restarted().core.durable() == rig.core.durable()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(HAPPENINGS, min_size=8, max_size=40))
def test_after_anything_every_stop_is_either_shown_or_visited_and_numbers_have_no_gap(
    happenings: list[tuple[object, ...]],
) -> None:
    rig = Rig(iterations=200)
    rig.step()
    rig.push(plan_of(HOUSES, rest=REST))
    for happening in happenings:
        rig = happen(rig, happening)
        shown, visited, work = rig.core._round.day.shown, set(rig.core._round.visits), rig.core._round.work
        assert work is not None
        assert sorted([*shown, *visited]) == sorted(work.stops)
    assert len(rig.seqs) == 0 or rig.seqs == list(range(rig.seqs[0], rig.seqs[0] + len(rig.seqs)))


def test_an_ack_of_everything_leaves_nothing_to_send() -> None:
    rig = Rig()
    rig.push(plan_of(HOUSES))
    rig.link_up()
    rig.step(Ack(AgentId("van-1"), "b1", "events", 1_000))
    assert rig.core.counters()["events_waiting"] == 0
    assert rig.disk["outbox"] == {}


def test_nothing_leaves_while_the_link_is_down_and_everything_when_it_comes_back() -> None:
    rig = Rig()
    rig.push(plan_of(HOUSES))
    assert [e for e in rig.envelopes if "/events" in e.topic] == []
    rig.link_up()
    assert len([e for e in rig.envelopes if "/events" in e.topic]) == len(rig.seqs)
