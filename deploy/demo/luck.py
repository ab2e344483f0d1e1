"""Bad luck at the press of a key: it befalls the world and the wires, never the programs.

A street is closed in the world the vans drive in, and reported to the hub
as a traffic feed would. Everything else nobody reports: the agents find
out by themselves.
"""

import json
import socket
from typing import Any

from deploy import cable
from deploy.demo.stage import VANS, Stage
from deploy.stack import DidNotStart


class NoLuck(ValueError):
    """What was wished cannot happen now."""


class Luck:
    """What a visitor may do to the day. Each wish answers with one sentence."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.cut: dict[str, bool] = dict.fromkeys(VANS, False)

    def close_street_ahead(self, van: str) -> str:
        """Close the next street ahead of a van, for everybody. Raises NoLuck when there is none."""
        closed = self.tell_van(van, do="close_way")
        for other in VANS:
            if other != van:
                self._close_for(other, closed["way"])
        name = str(closed.get("name") or f"way {closed['way']}")
        answer = self._stage.hub.post("/api/roads/closures", json={"ways": [closed["way"]], "why": "roadworks"})
        if answer.is_error:
            raise NoLuck(f"the hub does not know that street: {answer.text[:200]}")
        return f"{name} is closed ahead of {van}"

    def _close_for(self, van: str, way: int) -> None:
        try:
            self.tell_van(van, do="close_way", way=way)
        except NoLuck:
            pass  # A van that has no plan yet drives nowhere; it will hear of the closure with its leg times.

    def pull_cable(self, van: str) -> str:
        """Cut a van's link to the broker."""
        cable.tell(self._stage.ports[van].cable_control, "pull")
        self.cut[van] = True
        return f"{van} is on its own: its link is cut"

    def plug_cable(self, van: str) -> str:
        """Mend the link."""
        cable.tell(self._stage.ports[van].cable_control, "plug")
        self.cut[van] = False
        return f"{van}'s link is mended"

    def customer_out(self, van: str) -> str:
        """The customer at the van's next door will not be in."""
        self.tell_van(van, do="customer_out")
        return f"nobody will be in at {van}'s next door"

    def hold_up(self, van: str, minutes: float = 40) -> str:
        """The van stands behind a lorry for so many minutes."""
        self.tell_van(van, do="hold", minutes=minutes)
        return f"{van} is stuck behind a lorry for {minutes:.0f} minutes"

    def kill_agent(self, van: str) -> str:
        """SIGKILL the van's agent and start it again, from its disk."""
        self._stage.stack.kill(f"{van}-agent")
        self._stage.stack.start_again(f"{van}-agent")
        return f"{van}'s agent was killed and wakes from its disk"

    def tell_van(self, van: str, **command: Any) -> dict[str, Any]:
        """One line to a van's world, one line back. Raises NoLuck with the van's own words."""
        port = self._stage.ports[van].luck
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as wire, wire.makefile("rwb") as lines:
                lines.write(json.dumps(command).encode() + b"\n")
                lines.flush()
                answer: dict[str, Any] = json.loads(lines.readline())
        except (OSError, ValueError) as away:
            raise DidNotStart(f"{van} does not answer on its luck port: {away}") from None
        if "error" in answer:
            raise NoLuck(answer["error"])
        return answer
