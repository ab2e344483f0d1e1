"""A real hub's day in figures, its first plan, and a real twin that drives it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack import Stack, free_ports
from shared.messages import Arrived, HeadingTo, ShiftChanged, Visited
from shared.quantities import EpochMs
from shared.work import Outcome, Proof, Visit
from tests.shells.hub_parts import EIGHT_MS, HubProcess, StandInAgent, some_orders, start_broker
from tests.shells.test_twin import asked_until

TWIN = 'hub = "{hub}"\nport = {port}\n[vans]\nvan-1 = 0\n'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("figures")
    with Stack(folder / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), folder)
        yield hub


def start_twin(hub: HubProcess, folder: Path) -> int:
    (port,) = free_ports(1)
    settings = folder / "twin.toml"
    settings.write_text(TWIN.format(hub=f"http://127.0.0.1:{hub.port}", port=port))
    hub._stack.start("twin", "firmware_sim", "twin", "--settings", str(settings))
    hub._stack.wait_for_port("twin", port)
    return port


def test_a_hubs_day_and_its_twins_are_told_in_the_same_figures(hub: HubProcess, tmp_path: Path) -> None:
    assert hub.get("/api/day/first-plan")["is_planned"] is False
    assert hub.get("/api/day/figures")["kept_pct"] is None
    twin = start_twin(hub, tmp_path)
    hub.plan_day(some_orders(6))
    with StandInAgent(hub) as agent:
        plan = agent.wait_plan()
        first = hub.get("/api/day/first-plan")
        (van,) = first["vans"]
        assert first["is_planned"]
        assert [stop["stop_id"] for stop in van["stops"]] == [stop.stop_id for stop in plan.stops]
        assert not any("door_code" in stop or "note" in stop for stop in van["stops"])

        stop = plan.stops[0]
        inside_ms = EpochMs(stop.told.opens_ms + 60_000)
        visit = Visit(stop.stop_id, Outcome.ATTEMPTED, inside_ms, inside_ms, Proof((), None, inside_ms), "closed")
        agent.say(ShiftChanged("begun"), HeadingTo(stop.stop_id), Arrived(stop.stop_id), Visited(visit))
        agent.wait_acked()
    ours = hub.get("/api/day/figures")
    assert (ours["visits"], ours["windows_kept"], ours["kept_pct"]) == (1, 1, 100.0)
    assert ours["failed_attempts"] == 1
    # No telemetry has come, so no kilometre after the beginning is known, and the twin is asked for none either.
    assert (ours["km"], ours["driven_until_ms"] < ours["at_ms"]) == (0.0, True)
    assert ours["working_h"] < 0.1
    assert ours["cost"]["next_attempts"] >= 0
    theirs = asked_until(twin, "/figures", lambda status, _: status == 200)
    assert set(theirs) == set(ours)
    assert theirs["promises"] == 6
    assert theirs["visits"] == 0


def test_a_window_told_by_hand_is_an_intervention(hub: HubProcess) -> None:
    before = hub.get("/api/day/figures")["interventions"]
    order = hub.get("/api/promises")[-1]["order_id"]
    said = {"opens": "2026-03-03T12:00+02:00", "closes": "2026-03-03T13:00+02:00", "by": "anna"}
    assert hub.http.post(f"/api/promises/{order}/window", json=said).status_code == 200
    after = hub.get("/api/day/figures")
    assert after["interventions"] == before + 1
    assert after["interventions_by"]["windows_by_hand"] == 1
    assert EIGHT_MS > after["at_ms"] > EIGHT_MS - 3_600_000
