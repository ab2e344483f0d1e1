"""The hubs of one region on a real PostgreSQL: one acts, another stands by, and each has cables of its own."""

import os
import time
from pathlib import Path
from typing import Any

import httpx

from deploy import cable
from deploy.stack import Stack, free_ports
from shared.clock import SETTING, Clock
from shared.messages import AgentStarted, WindowTold
from shared.signing import Signer
from tests.postgres import PostgresServer
from tests.shells.hub_parts import DAY, EIGHT_MS, ZONE, StandInAgent, some_orders, start_broker

TAKEOVER_S = 5.0
PATIENCE_S = 30.0
EX_TEMPFAIL = 75


class OneHub:
    """A hub process of a region, with cables of its own to the broker and to the database."""

    def __init__(self, region: "Region", name: str, is_database_there: bool = True) -> None:
        self.name = name
        self.port, *ports = free_ports(5)
        self._stack = region.stack
        self.broker_control, self.database_control = ports[1], ports[3]
        for kind, near, far, control in (
            ("broker", ports[0], region.broker_port, ports[1]),
            ("database", ports[2], region.server.port, ports[3]),
        ):
            self._stack.start(f"{name}-{kind}", "deploy.cable", str(near), f"127.0.0.1:{far}", str(control))
            self._stack.wait_for_port(f"{name}-{kind}", control)
        if not is_database_there:
            cable.tell(self.database_control, "pull")
        settings = region.folder / f"{name}.toml"
        database = region.url.replace(f":{region.server.port}/", f":{ports[2]}/")
        settings.write_text(
            f'broker = "mqtt://127.0.0.1:{ports[0]}"\nstore = "{database}"\nhttp_port = {self.port}\n'
            f'day = "{DAY}"\nzone = "{ZONE}"\nkey_file = "{region.folder / "hub.key"}"\nsolver_s = 0.3\n'
            "[access]\nopen_on_loopback = true\n"
            '[[depots]]\nid = "north"\nname = "North"\nposition = [60.29, 25.03]\ngateway = [60.18, 24.945]\n'
            'stem_s = 900\n[[vehicles]]\nagent = "van-1"\ndepot = "north"\n'
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        self._stack.start(name, "cloud_hub", "run", "--settings", str(settings))
        self._stack.wait_for_port(name, self.port)

    @property
    def process(self) -> Any:
        return self._stack._processes[self.name]

    def why_not_ready(self) -> str:
        """Why it cannot do its work; "" when it can."""
        answer = self.http.get("/readyz")
        return "" if answer.status_code == 200 else str(answer.json()["detail"])

    def get(self, path: str, **params: Any) -> Any:
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def epoch(self) -> int:
        lines = self.http.get("/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith("waywarden_hub_epoch{")]
        return int(float(line.split()[-1]))

    def move_window(self, order_id: str, hour: int) -> None:
        """Tell a customer another window, by hand; once answered it is committed."""
        said = {"opens": f"{DAY}T{hour}:00+02:00", "closes": f"{DAY}T{hour + 1}:00+02:00", "by": "anna"}
        answer = self.http.post(f"/api/promises/{order_id}/window", json=said)
        assert answer.status_code == 200, answer.text


class Region:
    """A broker, a database and the hubs of one region; one of them acts. `van` is its agent."""

    def __init__(self, stack: Stack, server: PostgresServer, url: str, folder: Path) -> None:
        self.stack, self.server, self.url, self.folder = stack, server, url, folder
        self.clock = Clock.starting(EIGHT_MS - 3_600_000, 1.0)
        os.environ[SETTING] = stack._environment[SETTING] = self.clock.setting()
        self.broker_port = start_broker(stack)
        self.broker = f"mqtt://127.0.0.1:{self.broker_port}"
        self.public_key = Signer.from_file(folder / "hub.key").public_hex()
        self._count = 0
        self.acting = self.another()
        self.standby = self.another()
        wait(lambda: self.acting.why_not_ready() == "", "the first hub acts")
        orders = self.acting.http.post("/api/orders", json=some_orders(6))
        assert len(orders.json()["accepted"]) == 6, orders.text
        assert self.acting.http.post("/api/day/plan").status_code == 202
        self.van = StandInAgent(self)  # type: ignore[arg-type]  # It needs broker, key and clock of a hub.
        self.said = 1  # That it took the plan.

    def another(self) -> OneHub:
        self._count += 1
        return OneHub(self, f"hub-{self._count}")

    def ready_standby(self) -> OneHub:
        """The hub that stands by, with everything loaded."""
        wait(lambda: self.standby.why_not_ready().endswith(" acts"), "the standby knows who acts")
        return self.standby

    def taken_over(self, since_s: float) -> OneHub:
        """The standby, once it acts; it has five seconds."""
        hub = self.standby
        wait(lambda: hub.why_not_ready() == "", "the standby acts", since_s + TAKEOVER_S - time.monotonic())
        self.acting, self.standby = hub, self.another()
        return hub

    def say_something(self) -> None:
        self.van.say(AgentStarted("van", "1", 1))
        self.said += 1

    def assert_nothing_lost_and_nothing_twice(self, orders: list[str]) -> None:
        """Every event of the van was taken once; of the windows told it has obeyed each once, and the plan once."""
        self.van.wait_acked()
        (fleet,) = self.acting.get("/api/fleet")
        assert fleet["events_taken"] == self.said
        told = [command.stop_id for command in self.van.of(WindowTold)]
        assert told == [promise["stop_id"] for order in orders for promise in self._promises(order)]
        assert self.van.wait_plan().plan_version == 1
        assert self.acting.get("/api/ledger/verify")["holds"]

    def _promises(self, order_id: str) -> list[dict[str, Any]]:
        return [promise for promise in self.acting.get("/api/promises") if promise["order_id"] == order_id]


def wait(claim: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Return when the claim holds; a process has no event we could await."""
    deadline = time.monotonic() + patience_s
    while not claim():
        assert time.monotonic() < deadline, f"in vain for {patience_s:.1f} s: {what}"
        time.sleep(0.02)
