"""The depot's screen of a real hub process shows the code that opens the plan its agent was pushed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack import Stack
from shared.messages import AgentStarted, ShiftChanged
from tests.shells.hub_parts import DAY, HubProcess, StandInAgent, some_orders, start_broker


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("board")
    with Stack(folder / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), folder, vans=2)
        hub.plan_day(some_orders(6))
        yield hub


def code_of(hub: HubProcess, agent: str) -> str:
    (van,) = [van for van in hub.get("/api/depots/north/board")["vans"] if van["agent"] == agent]
    code: str = van["code"]
    return code


def test_the_code_on_the_board_opens_the_plan_of_that_van_also_when_it_is_pushed_again(hub: HubProcess) -> None:
    code = code_of(hub, "van-1")
    with StandInAgent(hub, "van-1") as agent:
        lock = agent.wait_plan().shift_lock
        agent.wait_acked()
    with StandInAgent(hub, "van-1", boot="boot-2") as fresh:
        fresh._receiver = agent._receiver  # The hub's own stream goes on; only the agent's store is new.
        fresh.say(AgentStarted("van", "1", 0))
        again = fresh.wait_plan()
    assert lock is not None
    assert lock.opens_with(code)
    assert not lock.opens_with(code_of(hub, "van-2"))
    assert (again.plan_version, again.shift_lock) == (2, lock)


def test_the_screen_shows_vans_departures_and_codes_in_three_languages_and_is_kept_nowhere(hub: HubProcess) -> None:
    board = hub.get("/api/depots/north/board")
    assert (board["day"], sorted(van["agent"] for van in board["vans"])) == (DAY, ["van-1", "van-2"])
    for lang, word in (("en", "Departs"), ("fi", "Lähtö"), ("sv", "Avgång")):
        screen = hub.http.get("/depots/north", params={"lang": lang})
        assert f'<html lang="{lang}">' in screen.text
        assert word in screen.text
        assert all(f"{van['code'][:3]} {van['code'][3:]}" in screen.text for van in board["vans"])
        assert all(van["departs"] in screen.text for van in board["vans"])
        assert (screen.headers["cache-control"], screen.headers["refresh"]) == ("no-store", "20")
    assert hub.http.get("/depots/nowhere").status_code == 404
    assert hub.http.get("/depots/north", params={"lang": "<script>"}).status_code == 422


def test_an_ended_shift_has_no_code_any_more(hub: HubProcess) -> None:
    with StandInAgent(hub, "van-2") as agent:
        agent.wait_plan()
        agent.say(ShiftChanged("begun"), ShiftChanged("ended"))
        agent.wait_acked()
    assert code_of(hub, "van-2") == ""


def test_no_code_is_ever_written_to_the_store_or_a_log(hub: HubProcess, tmp_path: Path) -> None:
    code = code_of(hub, "van-1").encode()
    files = [file for file in hub.key.parent.rglob("*") if file.is_file()]
    assert files
    assert [file.name for file in files if b'"' + code + b'"' in file.read_bytes()] == []
