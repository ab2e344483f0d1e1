"""The twin: the same day on fixed routes, as pure play and as a process beside a hub."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from firmware_sim.city import World
from firmware_sim.control import CloseWay, CustomerOut, Hold, Slow
from firmware_sim.days import day_luck, fixed_route, midnight_of, random_depot, random_errands, world_of
from firmware_sim.luck import Luck
from firmware_sim.twin import FirstPlan, TwinVan, drive_twin, twin_figures
from firmware_sim.wheel import Break, Gate
from shared.citymap import CityMap, shipped_city
from shared.clock import Clock
from shared.costs import Costs
from shared.quantities import EpochMs, TimeWindow
from shared.work import Outcome
from tests.shells.test_firmware_sim import running, told

SEED = 7
DEPART_MS = midnight_of(SEED) + 8 * 3_600_000
HOUR_MS = 3_600_000


@cache
def town() -> World:
    return world_of(CityMap.load(shipped_city()), SEED)


def a_plan(stops: int = 6, agent: str = "van-1") -> FirstPlan:
    luck = Luck("twin", agent)
    depot = random_depot(town().city, luck)
    errands = fixed_route(
        town(), random_errands(town().city, luck, midnight_of(SEED))[:stops], depot.gateway, DEPART_MS
    )
    all_day = TimeWindow(EpochMs(DEPART_MS), EpochMs(DEPART_MS + 8 * HOUR_MS))
    errands = [msgspec.structs.replace(errand, slot=all_day, told=all_day, open_hours=None) for errand in errands]
    gate = Gate(depot.name, depot.position, depot.gateway, depot.stem_s)
    rest = Break(DEPART_MS, DEPART_MS + HOUR_MS, 1800)
    return FirstPlan(agent, DEPART_MS, DEPART_MS + 7 * HOUR_MS, gate, tuple(errands), rest)


def a_twin(stops: int = 6) -> TwinVan:
    day = day_luck(town().city, SEED)
    return drive_twin(town(), day, [a_plan(stops)], until_ms=0)[0]


def served_order(twin: TwinVan) -> list[str]:
    return list(twin.state()["driven"])


def test_a_twin_drives_its_first_plan_in_that_order_and_comes_home() -> None:
    twin = a_twin()
    twin.play()
    assert twin.is_home
    assert served_order(twin) == [errand.stop_id for errand in twin.plan.stops]
    assert all(facts.told_first == facts.told_last for facts in twin.promises())


def test_the_twins_day_does_not_depend_on_how_often_anybody_looks() -> None:
    once, often = a_twin(), a_twin()
    once.play()
    for k in range(20 * 60):
        often.play(DEPART_MS + k * 37_000)
    often.play()
    assert once.promises() == often.promises()
    assert once.facts(once.now_ms, once.now_ms).working_s == often.facts(often.now_ms, often.now_ms).working_s


def test_bad_luck_befalls_the_twin_at_its_instant_and_makes_it_later() -> None:
    plain, held, slow = a_twin(), a_twin(), a_twin()
    at_ms = DEPART_MS + HOUR_MS // 2
    held.befall(Hold(minutes=30), at_ms)
    slow.befall(Slow(factor=2.0), at_ms)
    for twin in (plain, held, slow):
        twin.play()
    assert held.promises()[-1].served_ms > plain.promises()[-1].served_ms + 20 * 60_000
    assert slow.promises()[-1].served_ms > plain.promises()[-1].served_ms


def test_a_hold_before_its_departure_delays_the_twin_by_what_is_left_of_it() -> None:
    plain, held = a_twin(), a_twin()
    held.befall(Hold(minutes=20), DEPART_MS - 15 * 60_000)
    held.befall(Hold(minutes=5), DEPART_MS - 15 * 60_000)
    plain.play()
    held.play()
    late_ms = held.promises()[0].served_ms - plain.promises()[0].served_ms
    assert 4 * 60_000 <= late_ms <= 7 * 60_000


def test_who_is_out_for_one_van_is_out_for_its_twin() -> None:
    twin = a_twin()
    out = next(e.stop_id for e in twin.plan.stops if e.service in ("signature", "hand_over", "age_check"))
    twin.befall(CustomerOut(stop_id=out), DEPART_MS)
    twin.play()
    outcome = next(facts.outcome for facts in twin.promises() if facts.stop_id == out)
    assert outcome in (Outcome.ATTEMPTED, Outcome.DELIVERED_TO_NEIGHBOUR)


def test_a_customer_out_until_an_hour_before_the_van_comes_is_in() -> None:
    plain, early = a_twin(), a_twin()
    plain.play()
    first = plain.plan.stops[0].stop_id
    early.befall(CustomerOut(stop_id=first, until_ms=plain.promises()[0].served_ms - HOUR_MS), DEPART_MS)
    early.play()
    assert early.promises()[0] == plain.promises()[0]


def test_a_street_closes_for_the_twin_alone_wherever_it_is() -> None:
    twin = a_twin()
    way = int(town().city.edge_way[0])
    assert twin.befall(CloseWay(way=way), DEPART_MS + HOUR_MS)["way"] == way
    twin.play()
    assert twin.is_home
    assert town().closed == set()


def test_the_twins_figures_before_during_and_after_its_day() -> None:
    twin = a_twin()
    before = twin_figures([twin], Costs(), DEPART_MS - 1)
    twin.play(DEPART_MS + HOUR_MS)
    during = twin_figures([twin], Costs(), DEPART_MS + HOUR_MS)
    twin.play()
    after = twin_figures([twin], Costs(), DEPART_MS + 9 * HOUR_MS)
    assert (before.visits, before.km, before.working_h) == (0, 0.0, 0.0)
    assert before.promises == after.promises == 6
    assert 0 < during.km < after.km
    assert during.working_h == 1.0
    assert after.visits == 6
    assert (after.messages, after.messages_extra) == (6, 0)
    assert after.interventions == after.slots_breached + after.failed_attempts
    assert after.assumptions


def test_kilometres_can_be_asked_as_of_an_earlier_instant() -> None:
    twin = a_twin()
    twin.play()
    half = twin_figures([twin], Costs(), twin.now_ms, driven_until_ms=DEPART_MS + HOUR_MS)
    assert half.km < twin_figures([twin], Costs(), twin.now_ms).km
    assert half.driven_until_ms == DEPART_MS + HOUR_MS


class Hub:
    """The one page of a hub the twin reads."""

    def __init__(self, plan: FirstPlan) -> None:
        content = {"day": "2025-01-09", "is_planned": True, "vans": [msgspec.to_builtins(plan)]}
        self.is_planned = False
        hub = self

        class Request(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = msgspec.json.encode({**content, "is_planned": hub.is_planned})
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def asked(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def asked_until(port: int, path: str, is_so: Callable[[int, Any], bool]) -> Any:
    """What the twin says once it is so; it tells only who asks."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status, content = asked(port, path)
        if is_so(status, content):
            return content
        time.sleep(0.05)
    raise AssertionError(f"{path} never said so: {content}")


def test_a_twin_waits_for_the_first_plan_drives_it_and_takes_bad_luck(tmp_path: Path) -> None:
    hub = Hub(a_plan(3))
    settings = tmp_path / "twin.toml"
    settings.write_text(f'hub = "{hub.url}"\nseed = {SEED}\n[vans]\nvan-1 = 0\n')
    with running("twin", "--settings", str(settings), clock=Clock.starting(DEPART_MS, 2000)) as (_, ports):
        control = ports["vans"]["van-1"]  # type: ignore[index] # The one process that has ports by name.
        assert asked(ports["port"], "/figures")[0] == 503
        assert "no plan yet" in told(control, b'{"do":"hold","minutes":5}')[0]["error"]
        hub.is_planned = True
        asked_until(ports["port"], "/figures", lambda status, _: status == 200)
        assert told(control, b'{"do":"slow","factor":1.2}', b"x")[0]["ok"]
        whole = asked_until(ports["port"], "/figures", lambda _, found: found.get("visits") == 3)
    hub.server.shutdown()
    assert whole["km"] > 0
    assert whole["messages_extra"] == 0
    assert len(whole["assumptions"]) == 3


def test_a_twin_of_no_hub_does_not_start_and_says_why(tmp_path: Path) -> None:
    settings = tmp_path / "twin.toml"
    settings.write_text('hub = "the hub"\n[vans]\nvan-1 = 0\n')
    command = [sys.executable, "-m", "firmware_sim", "twin", "--settings", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "http://HOST:PORT" in done.stderr
