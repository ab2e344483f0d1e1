"""How soon a fleet is back after its broker was killed, over mTLS: `python -m tests.bench.reconnect`.

Mosquitto by our own configuration is killed with SIGKILL and started again after some seconds; what counts is the time
from the port's being open again to each agent's LinkUp. All agents run in this one process, on the same two cores as
the broker, so their TLS handshakes wait for each other as a real fleet's do not.
"""

import json
import sys
import threading
import time
from statistics import median

from shared.mqtt import Link, LinkEvent, LinkUp
from tests.shells.production_broker import ProductionBroker, production_broker

ROUNDS = 5
AWAY_S = (0.2, 1.0, 3.0, 7.0, 20.0)


class Back:
    """When each agent was back."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._changed = threading.Condition()

    def hear(self, agent: int, event: LinkEvent) -> None:
        """Called by each agent's link."""
        if isinstance(event, LinkUp):
            with self._changed:
                self.at[agent] = time.monotonic()
                self._changed.notify_all()

    def wait(self, count: int, patience_s: float = 60.0) -> None:
        """Return when so many are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.at) == count, patience_s), f"{len(self.at)} of {count}"


def one_round(broker: ProductionBroker, back: Back, agents: int, away_s: float) -> list[float]:
    """Kill the broker for so long; how long each agent took, in seconds."""
    back.at.clear()
    broker.stack.kill("mosquitto")
    time.sleep(away_s)
    back.at.clear()
    broker.stack.start_again("mosquitto")
    broker.stack.wait_for_port("mosquitto", broker.agents_port)
    opened_s = time.monotonic()
    back.wait(agents)
    return sorted(max(0.0, at - opened_s) for at in back.at.values())


def main(agents: int) -> None:
    """Print one JSON object."""
    back = Back()
    with production_broker() as broker:
        links = [
            Link(
                broker.agents_url,
                f"van-{k}",
                [],
                lambda event, k=k: back.hear(k, event),  # type: ignore[misc]  # The number of this agent.
                tls=broker.device(f"van-{k}"),
            )
            for k in range(agents)
        ]
        for link in links:
            link.open()
        back.wait(agents)
        rounds = [one_round(broker, back, agents, away_s) for away_s in AWAY_S]
        for link in links:
            link._client.disconnect()
    figures = [
        {"away_s": away_s, "p50_s": round(median(took), 2), "p95_s": round(took[int(len(took) * 0.95)], 2)}
        for away_s, took in zip(AWAY_S, rounds, strict=True)
    ]
    p95 = median(figure["p95_s"] for figure in figures)
    print(json.dumps({"agents": agents, "rounds": figures, "return_s_p95": p95}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
