"""A publish the broker refuses is undelivered, whatever the client library says: its stream repeats it."""

import shutil
import signal
import time
from pathlib import Path

from deploy.stack import Stack, free_ports
from shared.messages import AgentStarted, PlanTaken
from tests.agents import plan_of, row_of_houses
from tests.needs import needs
from tests.shells.test_agent_process import PATIENCE_S, Town

READ_ONLY = (
    "topic read #\ntopic write ww/town/+/down/#\ntopic write ww/town/+/up/presence\ntopic write ww/town/+/up/acks\n"
)
"""Who may listen to everything and say nothing of its own."""


def test_what_a_real_broker_refuses_is_repeated_until_it_is_allowed_and_taken_once(
    stack: Stack, tmp_path: Path
) -> None:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    needs(program, "mosquitto: apt install mosquitto")
    (port,) = free_ports(1)
    access, configuration = tmp_path / "access", tmp_path / "mosquitto.conf"
    access.write_text(READ_ONLY)
    configuration.write_text(
        # As root it would drop to a user that cannot read this folder again.
        f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nacl_file {access}\n"
    )
    stack.start_program("broker", str(program), "-c", str(configuration))
    stack.wait_for_port("broker", port)
    town = Town(stack, port, port, tmp_path, speed=60.0)
    with town.hub:
        town.start_agent()
        town.hub.push(plan_of(row_of_houses()))
        deadline = time.monotonic() + PATIENCE_S
        refused = 0
        while refused < 3:
            assert time.monotonic() < deadline, "the broker refused nothing"
            _, counters = town.get("/api/counters")
            refused = sum(count for name, count in counters.items() if name.startswith("refused_by_broker"))
            time.sleep(0.05)
        assert counters["events_waiting"] >= 2
        assert town.hub.events == []
        access.write_text("topic readwrite #\n")
        stack._processes["broker"].send_signal(signal.SIGHUP)
        town.hub.wait(lambda: town.hub.of(PlanTaken) != [], "what was refused arrived")
        assert len(town.hub.of(AgentStarted)) == 1
        assert town.hub.numbers == list(range(1, len(town.hub.numbers) + 1))
    town.stop()
