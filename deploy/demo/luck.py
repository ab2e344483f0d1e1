"""Bad luck at the press of a key: it befalls the world and the wires, never the programs.

A street is closed in the world the vans drive in, and reported to the hub as a traffic feed would. Everything else
nobody reports: the agents find out by themselves. Whatever befalls a van befalls its twin at the same instant.
"""

import json
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from deploy import cable
from deploy.demo.stage import VANS, Stage
from deploy.stack import DidNotStart

MINUTE_MS = 60_000
SOON = 2
"""The stop under way and the one after it are left in peace."""

LEAST_LEFT_MS = 35 * MINUTE_MS
"""A slot must leave the van some time after an hour that was asked for; the hub wants half an hour."""


class NoLuck(ValueError):
    """What was wished cannot happen now."""


@dataclass(frozen=True, slots=True)
class NotHome:
    """What a customer said on the tracking page: not home until HH:MM. `told_ms` is the window told before it."""

    van: str
    order_id: str
    stop_id: str
    until: str
    until_ms: int
    url: str
    told_ms: list[int]
    effect: str

    def spoken(self) -> str:
        """What the visitor reads."""
        return f"the customer of {self.order_id} says: not home until {self.until}"


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
            self._tell_twin(other, do="close_way", way=closed["way"])
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
        out = self.tell_van(van, do="customer_out")
        self._tell_twin(van, do="customer_out", stop_id=out["stop_id"])
        return f"nobody will be in at {van}'s next door"

    def hold_up(self, van: str, minutes: float = 40) -> str:
        """The van stands behind a lorry for so many minutes."""
        self.tell_van(van, do="hold", minutes=minutes)
        self._tell_twin(van, do="hold", minutes=minutes)
        return f"{van} is stuck behind a lorry for {minutes:.0f} minutes"

    def dig_in(self, van: str) -> str:
        """The driver will turn the next changed order down."""
        self.tell_van(van, do="dig_in")
        return f"{van}'s driver is in a mood"

    def kill_agent(self, van: str) -> str:
        """SIGKILL the van's agent and start it again, from its disk."""
        self._stage.stack.kill(f"{van}-agent")
        self._stage.stack.start_again(f"{van}-agent")
        return f"{van}'s agent was killed and wakes from its disk"

    def not_home(self, van: str, order_id: str | None = None) -> "NotHome":
        """A customer of this van opens the tracking page and says not to be home for another while; the door is not
        answered before that, whoever rings. Without an order it is the first one for whom that can still be done.

        Raises NoLuck when there is none.
        """
        reached = self._reached_in_person() if order_id is None else {order_id}
        for stop in self._still_to_come(van):
            if stop["order_id"] in reached:
                said = self._say_not_home(van, stop)
                if said is not None:
                    return said
        raise NoLuck(f"no customer of {van} can be told later any more")

    def _still_to_come(self, van: str) -> list[dict[str, Any]]:
        route = self._stage.hub.get(f"/api/routes/{van}").raise_for_status().json()
        stops = {stop["stop_id"]: stop for stop in route["stops"]}
        return [stops[stop_id] for stop_id in route["shown_order"][SOON:] if stop_id in stops]

    def _reached_in_person(self) -> set[str]:
        """Orders whose customer has been told something by mail or SMS: who has a link to open."""
        notices = self._stage.hub.get("/api/notices", params={"state": "delivered"}).raise_for_status().json()
        return {notice["order_id"] for notice in notices if notice["channel"] in ("email", "sms")}

    def _say_not_home(self, van: str, stop: dict[str, Any]) -> "NotHome | None":
        """What this customer can say and what came of it; None when nothing later fits this slot."""
        estimate, slot = stop["estimate_ms"], stop["slot_ms"]
        if estimate is None or stop["told_ms"] is None:
            return None
        until_ms = max(stop["told_ms"][1], estimate[1]) + 5 * MINUTE_MS
        until_ms += -until_ms % (5 * MINUTE_MS)
        if until_ms > slot[1] - LEAST_LEFT_MS:
            return None
        hub = self._stage.hub
        link = hub.post(f"/api/orders/{stop['order_id']}/link", json={}).raise_for_status().json()
        form = {"wish": "not_home_until", "until": self._face(until_ms)}
        said = hub.post(link["url"], data=form, headers={"Sec-Fetch-Site": "same-origin"})
        if said.status_code not in (200, 303):
            return None
        wishes = hub.get("/api/wishes", params={"order_id": stop["order_id"], "most": 1}).raise_for_status().json()
        if not wishes or not wishes[0]["is_done"]:
            return None
        for tell in (self._tell_van_quietly, self._tell_twin):
            tell(van, do="customer_out", stop_id=stop["stop_id"], until_ms=until_ms)
        return NotHome(
            van, stop["order_id"], stop["stop_id"], form["until"], until_ms, link["url"], stop["told_ms"],
            wishes[0]["effect"],
        )  # fmt: skip

    def _face(self, at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(self._stage.wish.zone)).strftime("%H:%M")

    def _tell_van_quietly(self, van: str, **command: Any) -> None:
        try:
            self.tell_van(van, **command)
        except NoLuck:
            pass  # The van got there first; then the customer was still at home.

    def _tell_twin(self, van: str, **command: Any) -> None:
        """The same befalls the twin; what cannot befall it any more is past there."""
        try:
            _told(self._stage.ports[van].twin_luck, f"{van}'s twin", command)
        except NoLuck:
            pass

    def tell_van(self, van: str, **command: Any) -> dict[str, Any]:
        """One line to a van's world, one line back. Raises NoLuck with the van's own words."""
        return _told(self._stage.ports[van].luck, van, command)


def _told(port: int, who: str, command: dict[str, Any]) -> dict[str, Any]:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as wire, wire.makefile("rwb") as lines:
            lines.write(json.dumps(command).encode() + b"\n")
            lines.flush()
            answer: dict[str, Any] = json.loads(lines.readline())
    except (OSError, ValueError) as away:
        raise DidNotStart(f"{who} does not answer on its luck port: {away}") from None
    if "error" in answer:
        raise NoLuck(answer["error"])
    return answer
