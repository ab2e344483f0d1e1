"""The simulated world: what is true of a day, whoever looks and however often."""

import csv
import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firmware_sim import pictures
from firmware_sim.city import World
from firmware_sim.control import CloseWay, ControlPort, Impossible, NotUnderstood, understood
from firmware_sim.days import (
    BAD_DAYS,
    LEG_COLUMNS,
    STOP_COLUMNS,
    day_luck,
    drive_days,
    drive_route,
    fixed_route,
    midnight_of,
    planned_service_s,
    random_depot,
    random_errands,
    world_of,
)
from firmware_sim.ground import LocalTime
from firmware_sim.inbox import Inbox
from firmware_sim.luck import Luck
from firmware_sim.person import Driver, Errand, answer, door, driver, next_errand
from firmware_sim.ride import Ride
from firmware_sim.vehicle import Arrived, Departed, Happening, Scanned, Served, StreetFoundClosed, Van
from firmware_sim.wheel import Change, Day, Done, Post, Question, Wheel
from shared.citymap import CityMap, shipped_city
from shared.clock import Clock
from shared.quantities import EpochMs, Position, Seconds, TimeWindow, metres_between
from shared.work import (
    OVERRIDE_REASONS,
    Depot,
    OrderId,
    Outcome,
    Parcel,
    Proof,
    Stop,
    StopId,
    Visit,
    missing_from_proof,
)

MIDNIGHT_MS = midnight_of(0)
DEPART_MS = MIDNIGHT_MS + 8 * 3_600_000


@cache
def town() -> CityMap:
    return CityMap.load(shipped_city())


@cache
def ordinary_world() -> World:
    return world_of(town(), 7)


def fresh_world() -> World:
    return ordinary_world().on_another_day(ordinary_world().traffic)


@cache
def depot() -> Depot:
    return random_depot(town(), Luck("depot"))


def route(seed: int, stops: int) -> list[Errand]:
    errands = random_errands(town(), Luck("route", seed), MIDNIGHT_MS)[:stops]
    return fixed_route(ordinary_world(), errands, depot().gateway, DEPART_MS)


def a_van(world: World, seed: int = 7) -> Van:
    day = day_luck(town(), seed)
    return Van("van-1", world, depot(), driver(day, "van-1"), day, DEPART_MS)


def all_day(errand: Errand) -> Errand:
    slot = TimeWindow(EpochMs(DEPART_MS), EpochMs(DEPART_MS + 36_000_000))
    return msgspec.structs.replace(errand, slot=slot, told=slot, open_hours=None)


def served(happened: list[Happening]) -> list[Served]:
    return [event for event in happened if isinstance(event, Served)]


def driven_to_the_end(van: Van, errand: Errand, now_ms: int, step_ms: int) -> int:
    van.head_to(errand, now_ms)
    while not van.is_free:
        now_ms += step_ms
        van.step(now_ms)
    return now_ms


def arrived_ms(van: Van) -> int:
    return next(event.at_ms for event in van.taken() if isinstance(event, Arrived))


# Luck.


def test_a_named_draw_is_the_same_on_every_machine() -> None:
    assert Luck("town", 7).of("van-1").uniform("pace") == Luck("town/7/van-1").uniform("pace")
    assert round(Luck("a").uniform("b"), 6) == 0.210398


@given(st.text(max_size=20), st.floats(0, 20))
def test_draws_stay_in_their_range(name: str, mean: float) -> None:
    luck = Luck(name)
    assert 3 <= luck.uniform("u", 3, 4) < 4
    assert abs(luck.normal("n")) <= 5.1
    assert 0 <= luck.poisson("p", mean) <= 200
    assert luck.pick("o", ("a", "b"), (0, 1)) == "b"


# The day.


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_day_ends_with_every_stop_in_exactly_one_outcome(seed: int) -> None:
    errands = route(seed, 12)
    happened = drive_route(a_van(fresh_world(), seed), errands, DEPART_MS, DEPART_MS + 7_200_000)
    assert [event.errand.stop_id for event in served(happened)] == [errand.stop_id for errand in errands]
    assert isinstance(happened[-1], Arrived)
    assert happened[-1].stop_id is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_what_happens_is_in_order_of_time(seed: int) -> None:
    happened = drive_route(a_van(fresh_world(), seed), route(seed, 8), DEPART_MS, DEPART_MS)
    instants = [event.at_ms for event in happened]
    assert instants == sorted(instants)


def test_a_seed_is_a_day() -> None:
    first = drive_route(a_van(fresh_world()), route(1, 20), DEPART_MS, DEPART_MS)
    second = drive_route(a_van(world_of(town(), 7)), route(1, 20), DEPART_MS, DEPART_MS)
    assert first == second


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 700_000))
def test_the_truth_does_not_depend_on_how_often_one_looks(step_ms: int) -> None:
    errand = all_day(route(2, 1)[0])
    coarse, fine = a_van(fresh_world()), a_van(fresh_world())
    driven_to_the_end(coarse, errand, DEPART_MS, 10_000_000)
    driven_to_the_end(fine, errand, DEPART_MS, max(1_000, step_ms))
    assert coarse.taken() == fine.taken()


def test_a_customer_is_the_same_whatever_came_before() -> None:
    errand = all_day(route(3, 1)[0])
    day = day_luck(town(), 7)
    assert door(errand, day, DEPART_MS, 9.0, 2) == door(errand, day, DEPART_MS, 9.0, 2)
    assert not door(errand, day, DEPART_MS, 9.0, 2, forced_out=True).is_answered


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_every_outcome_can_be_proven(seed: int) -> None:
    happened = drive_route(a_van(fresh_world(), seed), route(seed, 25), DEPART_MS, DEPART_MS)
    scanned = {event.barcode for event in happened if isinstance(event, Scanned)}
    assert [missing_from_proof(_as_stop(event.errand), _as_visit(event, scanned)) for event in served(happened)] == [
        [] for _ in range(25)
    ]


def _as_stop(errand: Errand) -> Stop:
    return Stop(
        StopId(errand.stop_id),
        OrderId(errand.stop_id),
        errand.address,
        errand.position,
        errand.slot,
        errand.told,
        Seconds(errand.service_s),
        tuple(Parcel(code) for code in errand.parcels),
        errand.service,  # type: ignore[arg-type]  # The page's text is one of the services.
    )


def _as_visit(event: Served, scanned: set[str]) -> Visit:
    codes = tuple(code for code in event.errand.parcels if code in scanned)
    signature = "0" * 64 if event.was_signed else None
    proof = Proof(codes, None, EpochMs(event.at_ms), signature, None, event.age_checked)
    instants = EpochMs(event.arrived_ms), EpochMs(event.at_ms)
    return Visit(StopId(event.errand.stop_id), event.outcome, *instants, proof, event.reason, event.parcels_left)


def test_a_van_moves_without_leaps() -> None:
    van = a_van(fresh_world())
    now_ms, places = DEPART_MS, []
    for errand in map(all_day, route(4, 4)):
        van.head_to(errand, now_ms)
        while not van.is_free:
            now_ms += 1_000
            van.step(now_ms)
            places.append(van.motion())
    leaps = [metres_between(a.position, b.position) for a, b in pairwise(places)]
    assert max(leaps) < 30
    assert max(motion.speed_mps for motion in places) < 30
    assert sum(motion.speed_mps < 0.3 for motion in places) > len(places) / 5


@settings(deadline=None)
@given(
    st.floats(1, 3000),
    st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(1, 60)), max_size=5).map(sorted),
    st.floats(0, 1),
)
def test_a_ride_covers_its_path_in_its_time(seconds: float, lights: list[tuple[float, float]], share: float) -> None:
    ride = Ride([60.0, 60.001, 60.002], [24.0, 24.0, 24.001], [0, 10, 30], seconds, lights)
    assert ride.share_at(ride.lasts_ms)[0] == 1.0
    assert ride.share_at(0)[0] == 0.0
    assert math.isclose(ride.metres_at(ride.lasts_ms), ride.metres)
    assert ride.share_at(ride.when_at(share))[0] >= share - 1e-6


# Bad luck.


def test_a_closed_street_is_found_when_the_van_stands_before_it() -> None:
    world = fresh_world()
    van, errand = a_van(world), all_day(route(5, 1)[0])
    van.head_to(errand, DEPART_MS)
    stem_ends_ms = van.next_ms()
    van.step(stem_ends_ms)
    way, _ = van.ways_ahead()[len(van.ways_ahead()) // 2]
    van.close_way(way, stem_ends_ms + 1_000)
    while not van.is_free:
        van.step(van.next_ms())
    happened = van.taken()
    assert [event.way for event in happened if isinstance(event, StreetFoundClosed)][:1] == [way]
    assert len(served(happened)) == 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 500))
@example(14)  # Shut in on its way home: no open street led to the gateway.
def test_whatever_streets_close_every_stop_is_served_or_attempted(seed: int) -> None:
    world = fresh_world()
    ways = sorted(set(town().edge_way.tolist()))
    world.closed.update(way for way in ways if Luck(seed).chance(f"closes {way}", 0.08))
    happened = drive_route(a_van(world), [all_day(errand) for errand in route(seed, 6)], DEPART_MS, DEPART_MS)
    assert len(served(happened)) == 6


def test_a_van_held_up_is_late_by_as_much() -> None:
    errand = all_day(route(6, 1)[0])
    free, held = a_van(fresh_world()), a_van(fresh_world())
    driven_to_the_end(free, errand, DEPART_MS, 1_000)
    held.head_to(errand, DEPART_MS)
    held.hold(600_000, DEPART_MS + 60_000)
    held.step(DEPART_MS + 20_000_000)
    arrivals = [arrived_ms(van) for van in (free, held)]
    assert arrivals[1] - arrivals[0] == pytest.approx(600_000, rel=0.1)


def test_slow_traffic_takes_longer() -> None:
    errand = all_day(route(6, 1)[0])
    free, slow = a_van(fresh_world()), a_van(fresh_world())
    driven_to_the_end(free, errand, DEPART_MS, 1_000)
    slow.slow(1.5, DEPART_MS)
    driven_to_the_end(slow, errand, DEPART_MS, 1_000)
    times = [arrived_ms(van) - DEPART_MS for van in (free, slow)]
    assert times[1] == pytest.approx(1.5 * times[0], rel=0.1)


def test_a_customer_who_is_out_gets_no_hand_over_and_costs_minutes() -> None:
    errand = msgspec.structs.replace(all_day(route(8, 1)[0]), service="signature", parcels=("A",))
    home, out = a_van(fresh_world(), 9), a_van(fresh_world(), 9)
    out.customer_out(errand.stop_id)
    driven_to_the_end(home, errand, DEPART_MS, 1_000)
    driven_to_the_end(out, errand, DEPART_MS, 1_000)
    at_home, nobody = served(home.taken())[0], served(out.taken())[0]
    assert at_home.outcome is Outcome.DELIVERED_TO_PERSON
    assert nobody.outcome is Outcome.ATTEMPTED
    assert nobody.reason == "nobody answered"


def test_a_stop_that_is_off_the_map_is_attempted_with_a_reason() -> None:
    far = msgspec.structs.replace(all_day(route(8, 1)[0]), position=Position(61.5, 23.8))
    van = a_van(fresh_world())
    van.head_to(far, DEPART_MS)
    assert van.is_free
    assert served(van.taken())[0].reason == "no street leads there"


# People.


def test_a_driver_who_obeys_goes_where_the_page_shows_first() -> None:
    obedient = Driver("d", 1, 1, 1.3, strays=0.0, refuses=0.0, break_lean=0.5)
    shown = route(9, 3)
    assert next_errand(obedient, shown, Luck("x")) is shown[0]
    assert answer(obedient, "c1", Luck("x")) == ("seen", "")


def test_a_driver_with_a_mind_of_his_own_goes_elsewhere_and_refuses_with_a_reason() -> None:
    stubborn = Driver("d", 1, 1, 1.3, strays=1.0, refuses=1.0, break_lean=0.5)
    shown = route(9, 3)
    what, why = answer(stubborn, "c1", Luck("x"))
    assert next_errand(stubborn, shown, Luck("x")) is shown[1]
    assert what == "refused"
    assert why


def test_people_wait_for_the_window_they_were_told() -> None:
    errand = msgspec.structs.replace(all_day(route(9, 1)[0]), is_business=False)
    late = msgspec.structs.replace(errand, told=TimeWindow(EpochMs(0), EpochMs(1)))
    doors = [msgspec.structs.replace(errand, stop_id=str(k)) for k in range(400)]
    too_late = [msgspec.structs.replace(late, stop_id=str(k)) for k in range(400)]
    day = Luck("d")
    present = sum(door(e, day, DEPART_MS + 1, 11.0, 2).is_answered for e in doors)
    present_late = sum(door(e, day, DEPART_MS + 1, 11.0, 2).is_answered for e in too_late)
    assert present > 350 > present_late + 20


def test_a_driver_does_not_set_off_before_the_page_says_so() -> None:
    van, wheel = a_van(fresh_world()), Wheel(driver(Luck("d"), "v"), Luck("w"), 20_000)
    day = Day(revision=1, depart_ms=DEPART_MS + 60_000, stops=tuple(route(9, 2)))
    assert wheel.act(van, day, DEPART_MS).posts == []
    assert [post.path for post in wheel.act(van, day, DEPART_MS + 60_000).posts] == ["/api/shift", "/api/heading"]


def test_a_driver_who_refused_a_change_waits_for_the_former_order() -> None:
    stubborn = Driver("d", 1, 1, 1.3, strays=0.0, refuses=1.0, break_lean=0.5)
    van, wheel = a_van(fresh_world()), Wheel(stubborn, Luck("w"), 20_000)
    first, second = route(9, 2)
    changed = Day(revision=4, depart_ms=DEPART_MS, stops=(second, first), change=Change("c1"))
    former = Day(revision=5, depart_ms=DEPART_MS, stops=(first, second))
    assert wheel.act(van, changed, DEPART_MS).posts[0].body["answer"] == "refused"
    assert wheel.act(van, changed, DEPART_MS + 1).posts == []
    assert wheel.act(van, former, DEPART_MS + 2).posts[-1].body == {"stop_id": first.stop_id}


def at_home_in_the_end(van: Van, wheel: Wheel, day: Day, now_ms: int) -> tuple[int, list[Post]]:
    """Let the driver act on this page until the van is home; when, and everything posted."""
    posts: list[Post] = []
    while van.phase != "done":
        posts += wheel.act(van, day, now_ms).posts
        now_ms = min(now_ms + 10_000, max(now_ms + 1_000, van.next_ms()))
        van.step(now_ms)
    return now_ms, posts + wheel.act(van, day, now_ms).posts


@pytest.mark.parametrize("minutes_home", [1.0, 14.0])
def test_a_driver_on_the_way_home_turns_back_for_work_that_comes_late(minutes_home: float) -> None:
    obedient = Driver("d", 1, 1, 1.3, strays=0.0, refuses=0.0, break_lean=0.5)
    first, late = (all_day(errand) for errand in route(9, 2))
    van, wheel = a_van(fresh_world()), Wheel(obedient, Luck("w"), 0)
    day = Day(revision=1, depart_ms=DEPART_MS, stops=(first,))
    now_ms = DEPART_MS
    while not (wheel.served and van.heading_to is None and van.phase == "driving"):
        wheel.act(van, day, now_ms)
        now_ms += 1_000
        van.step(now_ms)
    now_ms += round(minutes_home * 60_000)
    van.step(now_ms)
    again = Day(revision=2, depart_ms=DEPART_MS, stops=(late,), done=(Done(first.stop_id),))
    before_m = van.motion().odometer_m
    _, posts = at_home_in_the_end(van, wheel, again, now_ms)
    assert [post.body["stop_id"] for post in posts if post.path == "/api/outcome"] == [late.stop_id]
    assert posts[-1].body == {"is": "ended"}
    assert van.motion().odometer_m > before_m
    assert van.driven == [first.stop_id, late.stop_id]


def test_a_van_that_turns_back_does_not_leap() -> None:
    van = a_van(fresh_world())
    now_ms = driven_to_the_end(van, all_day(route(9, 1)[0]), DEPART_MS, 10_000)
    van.go_home(now_ms)
    before = van.motion()
    for seconds in range(2000):
        van.step(now_ms := now_ms + 1_000)
        if seconds in (20, 1200):
            van.turn_back(now_ms)
        if van.is_free and van.phase == "free":
            van.go_home(now_ms)
        after = van.motion()
        assert metres_between(before.position, after.position) < 40
        assert after.odometer_m >= before.odometer_m
        before = after


def test_parcels_go_where_the_customer_said_without_waiting_at_the_door() -> None:
    errand = msgspec.structs.replace(all_day(route(8, 1)[0]), service="hand_over", parcels=("A",), is_business=False)
    outcomes, seconds = [], []
    for said in ({}, {"safe_place": "behind the bicycle shed"}, {"door_group": "locker/kamppi"}):
        van = a_van(fresh_world(), 9)
        van.customer_out(errand.stop_id)
        driven_to_the_end(van, msgspec.structs.replace(errand, **said), DEPART_MS, 1_000)
        visit = served(van.taken())[0]
        outcomes.append(visit.outcome)
        seconds.append(visit.at_ms - visit.began_ms)
    assert outcomes[1:] == [Outcome.DELIVERED_TO_SAFE_PLACE, Outcome.DELIVERED_TO_LOCKER]
    assert max(seconds[1:]) < seconds[0]


def test_a_neighbour_the_customer_named_mostly_takes_the_parcel() -> None:
    errand = msgspec.structs.replace(all_day(route(9, 1)[0]), is_business=False, neighbour="Virtanen, A 4")
    doors = [msgspec.structs.replace(errand, stop_id=str(k)) for k in range(300)]
    takes = sum(door(one, Luck("d"), DEPART_MS, 11.0, 2, forced_out=True).neighbour_takes for one in doors)
    assert takes > 230


def test_a_driver_is_asked_about_an_override_once_and_may_stay_silent() -> None:
    van, wheel = a_van(fresh_world()), Wheel(driver(Luck("d"), "v"), Luck("w"), 20_000)
    asked = [Day(revision=k, depart_ms=DEPART_MS + 1, question=Question(f"s{k}")) for k in range(40)]
    posts = [post for day in (*asked, *asked) for post in wheel.act(van, day, DEPART_MS).posts]
    assert 20 <= len(posts) < 40
    assert {post.body["reason"] for post in posts} <= set(OVERRIDE_REASONS)


@given(st.text(max_size=12))
def test_pictures_are_small_pngs_and_no_two_stops_sign_alike(name: str) -> None:
    for draw in (pictures.signature, pictures.photograph):
        content = draw(Luck(name))
        assert content.startswith(pictures.PNG)
        assert content.endswith(b"IEND" + bytes.fromhex("ae426082"))
        assert len(content) < 20_000
        assert content != draw(Luck(name, "another"))
        assert content == draw(Luck(name))


def test_a_driver_in_a_mood_turns_the_next_change_down_and_is_himself_again() -> None:
    obedient = Driver("d", 1, 1, 1.3, strays=0.0, refuses=0.0, break_lean=0.5)
    van, wheel = a_van(fresh_world()), Wheel(obedient, Luck("w"), 0)
    wheel.is_in_a_mood = True
    days = [Day(revision=k, depart_ms=DEPART_MS + 1, change=Change(f"c{k}")) for k in range(2)]
    answers = [wheel.act(van, day, DEPART_MS).posts[0].body for day in days]
    assert [body["answer"] for body in answers] == ["refused", "seen"]
    assert answers[0]["reason"]


# The city.


def test_neighbouring_streets_share_their_pace() -> None:
    city, pace = town(), fresh_world().traffic.edge_pace(8)
    linked = [(a, b) for a, b in zip(city.turn_from.tolist(), city.turn_to.tolist(), strict=True)]
    steps = [abs(math.log(pace[a] / pace[b])) for a, b in linked]
    assert sum(steps) / len(steps) < 0.4 * float(abs(pace - pace.mean()).mean())


def test_the_stem_is_12_to_20_minutes_and_slower_in_the_peaks() -> None:
    assert 720 <= depot().stem_s <= 1200
    night, noon, rush = (ordinary_world().stem_seconds(depot(), hour) for hour in (3, 11, 8))
    assert night < noon < rush


def test_local_time_knows_its_hours_and_weekdays() -> None:
    local = LocalTime(7_200)
    assert local.hour(MIDNIGHT_MS + 9_000_000) == 2.5
    assert local.weekday(MIDNIGHT_MS) == 2
    assert [local.weekday(midnight_of(seed)) for seed in range(8)] == [2, 3, 4, 5, 0, 1, 2, 3]


def test_stops_are_planned_by_the_formula_of_the_intake() -> None:
    from cloud_hub.intake import OrderIn
    from cloud_hub.intake import planned_service_s as of_intake

    order = OrderIn(order_id="1", slot_from="", slot_to="", service="signature", floor=3, has_lift=True)
    shop = OrderIn(order_id="2", slot_from="", slot_to="", service="leave_safe", floor=2, is_business=True)
    assert planned_service_s("signature", 2, 3, True, False) == of_intake(order, 2)
    assert planned_service_s("leave_safe", 1, 2, False, True) == of_intake(shop, 1)


def test_training_days_are_dominated_by_work_at_the_door(tmp_path: Path) -> None:
    drive_days(range(2), shipped_city(), tmp_path)
    legs = list(csv.DictReader((tmp_path / "legs.csv").open()))
    stops = list(csv.DictReader((tmp_path / "stops.csv").open()))
    assert tuple(legs[0]) == LEG_COLUMNS
    assert tuple(stops[0]) == STOP_COLUMNS
    driving_s = sum(float(row["driven_s"]) for row in legs if row["is_stem"] == "0")
    assert sum(float(row["dwell_s"]) for row in stops) > driving_s
    assert 2 * 3 * 35 <= len(stops) <= 2 * 3 * 45


# Garbage.


@given(st.binary(max_size=200))
def test_a_line_of_garbage_is_refused_by_name(line: bytes) -> None:
    with pytest.raises(NotUnderstood, match="expected one JSON object a line"):
        understood(line)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80).filter(lambda b: b"\n" not in b and b.strip() != b""), max_size=5))
def test_the_control_port_answers_after_any_garbage(lines: list[bytes]) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", shared_port().port)) as line, line.makefile("rb") as answers:
        line.sendall(b"".join(text + b"\n" for text in lines) + b'{"do":"state"}\n{"do":"close_way","way":1}\n')
        said = [msgspec.json.decode(answers.readline()) for _ in range(len(lines) + 2)]
    assert all("error" in answer for answer in said[: len(lines)])
    assert said[-2:] == [{"ok": True}, {"error": "way 1 is no street"}]


@cache
def shared_port() -> ControlPort:
    def obey(command: object) -> dict[str, object]:
        if isinstance(command, CloseWay):
            raise Impossible("way 1 is no street")
        return {"ok": True}

    return ControlPort(0, obey)


@pytest.mark.parametrize(
    "line", [b'{"do":"slow","factor":0}', b'{"do":"hold","minutes":1e9}', b'{"do":"fly"}', b'{"do":"slow"}', b"[]"]
)
def test_a_command_out_of_bounds_is_refused(line: bytes) -> None:
    with pytest.raises(NotUnderstood):
        understood(line)


def test_every_mishap_of_a_named_day_is_a_command() -> None:
    commands = [understood(msgspec.json.encode(m.command)) for day in BAD_DAYS.values() for m in day]
    assert len(commands) > 10


@cache
def an_inbox() -> Inbox:
    return Inbox(0, Clock.real())


@given(st.dictionaries(st.sampled_from(["content-type", "ce-id", "ce-source", "ce-type"]), st.text()), st.binary())
def test_an_inbox_refuses_what_is_no_event_and_lives(headers: dict[str, str], body: bytes) -> None:
    status, answered = an_inbox().take(headers, body)
    assert status == 400
    assert answered["title"] == "not a CloudEvent"


def test_departures_of_a_day_name_the_map_and_the_stem() -> None:
    happened = drive_route(a_van(fresh_world()), route(1, 5), DEPART_MS, DEPART_MS + 36_000_000)
    departures = [event for event in happened if isinstance(event, Departed)]
    assert departures[0].is_stem
    assert departures[-1].is_stem
    assert departures[0].map_s > depot().stem_s
