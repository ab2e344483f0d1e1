"""Prove the main job without a screen: bring bad luck as a visitor would, and wait for what must follow.

Three things have to happen, and none of them is scripted: a late van
re-sequences itself; a told window moves and its notice reaches the shop;
and a van whose link is cut re-sequences itself, after which hub and van
agree again.
"""

import time
from collections.abc import Callable
from typing import Any

import httpx

from deploy.demo.luck import Luck, NoLuck
from deploy.demo.stage import VANS, Stage
from deploy.stack import DidNotStart

LATE_VAN, CUT_VAN, LUCKLESS_VAN = VANS
LOOK_EVERY_S = 0.25
TROUBLE_AGAIN_AFTER_S = 40.0
HELD_UP_MIN = 40.0


class Check:
    """Watches one stage until everything is proven or the time is over."""

    def __init__(self, stage: Stage, luck: Luck) -> None:
        self._stage = stage
        self._luck = luck
        self._pages = {
            van: httpx.Client(base_url=f"http://127.0.0.1:{ports.page}", timeout=5)
            for van, ports in stage.ports.items()
        }
        self._inbox = httpx.Client(base_url=f"http://127.0.0.1:{stage.inbox_port}", timeout=5)
        self._trouble_at_s: dict[str, float] = {}
        self._cut_at_ms = 0
        self._arcs_at_cut = 0
        self._troubled_ms: dict[str, int] = {}
        self.story: list[str] = []
        self.proven: dict[str, dict[str, Any]] = {}

    def run(self, until_s: float) -> bool:
        """Whether everything was proven before `until_s` on the monotonic clock."""
        claims: tuple[tuple[str, Callable[[], dict[str, Any] | None]], ...] = (
            ("resequenced", self._a_van_resequenced_itself),
            ("window_moved", self._a_window_moved_and_its_notice_arrived),
            ("cut_off", self._a_van_did_it_alone_and_they_agree),
        )
        while time.monotonic() < until_s and len(self.proven) < len(claims):
            if fallen := self._stage.stack.fallen():
                raise DidNotStart("; ".join(fallen))
            try:
                self._bring_trouble()
                for name, claim in claims:
                    if name not in self.proven and (found := claim()) is not None:
                        self.proven[name] = found
            except httpx.HTTPError as away:
                self._note(f"no answer yet: {away}")
            time.sleep(LOOK_EVERY_S)
        return len(self.proven) == len(claims)

    def _bring_trouble(self) -> None:
        for van in VANS:
            is_due = time.monotonic() - self._trouble_at_s.get(van, -1e9) > TROUBLE_AGAIN_AFTER_S
            if is_due and self._is_under_way(van):
                self._trouble_at_s[van] = time.monotonic()
                self._troubled_ms.setdefault(van, self._stage.clock.now_ms())
                self._trouble(van)

    def _trouble(self, van: str) -> None:
        if van == CUT_VAN:
            if "cut_off" in self.proven or (self._was_cut and not self._luck.cut[van]):
                return
            if not self._was_cut:
                self._arcs_at_cut = self._arcs_changed(CUT_VAN)
                self._cut_at_ms = self._stage.clock.now_ms()
                self._wish(self._luck.pull_cable, van)
        elif {"resequenced", "window_moved"} <= self.proven.keys():
            return
        else:
            self._wish(self._luck.close_street_ahead if van == LATE_VAN else self._luck.customer_out, van)
        self._wish(self._luck.hold_up, van, HELD_UP_MIN)

    def _wish(self, luck: Callable[..., str], *what: Any) -> None:
        try:
            self._note(luck(*what))
        except NoLuck as not_now:
            self._note(f"{what[0]}: not now: {not_now}")

    @property
    def _was_cut(self) -> bool:
        return self._cut_at_ms > 0

    def _is_under_way(self, van: str) -> bool:
        """Whether the van has left the depot and has enough work before it to be put into another order."""
        state = self._luck.tell_van(van, do="state")
        return state["phase"] not in ("depot", "done") and len(state["remaining"]) > 3

    def _a_van_resequenced_itself(self) -> dict[str, Any] | None:
        found = self._decisions(LATE_VAN) or self._decisions(LUCKLESS_VAN)
        return self._hops(found[0]) if found else None

    def _hops(self, decision: dict[str, Any]) -> dict[str, Any]:
        return {
            "van": decision["by"],
            "sentence": decision["spoken"],
            "decided_at_ms": decision["at_ms"],
            "trouble_to_decision_domain_s": round((decision["at_ms"] - self._troubled_ms[decision["by"]]) / 1000),
            "van_to_hub_ms": self._real_ms(decision["heard_ms"] - decision["at_ms"]),
        }

    def _a_window_moved_and_its_notice_arrived(self) -> dict[str, Any] | None:
        promises = self._stage.hub.get("/api/promises").raise_for_status().json()
        received = {event["subject"]: event for event in self._inbox.get("/received").raise_for_status().json()}
        for promise in promises:
            moved = promise["tellings"][1:]
            event = received.get(promise["order_id"]) or received.get(promise["stop_id"])
            if moved and event is not None and event["received_ms"] >= moved[-1]["at_ms"]:
                return {
                    "order": promise["order_id"],
                    "from": promise["tellings"][-2]["told"],
                    "to": moved[-1]["told"],
                    "slot": promise["slot_ms"],
                    "told_at_ms": moved[-1]["at_ms"],
                    "hub_to_shop_ms": self._real_ms(event["received_ms"] - moved[-1]["at_ms"]),
                }
        return None

    def _a_van_did_it_alone_and_they_agree(self) -> dict[str, Any] | None:
        if not self._was_cut:
            return None
        if self._luck.cut[CUT_VAN]:
            if self._arcs_changed(CUT_VAN) > self._arcs_at_cut:
                self._note(f"{CUT_VAN} re-sequenced itself, alone")
                self._note(self._luck.plug_cable(CUT_VAN))
            return None
        told = [decision for decision in self._decisions(CUT_VAN) if decision["at_ms"] >= self._cut_at_ms]
        fleet = {agent["agent"]: agent for agent in self._stage.hub.get("/api/fleet").raise_for_status().json()}
        on_board = [stop["stop_id"] for stop in self._day(CUT_VAN)["stops"]]
        if told and fleet[CUT_VAN]["is_there"] and fleet[CUT_VAN]["order"] == on_board:
            alone_ms = told[0]["heard_ms"] - told[0]["at_ms"]
            return self._hops(told[0]) | {"alone_for_domain_ms": alone_ms, "order_at_hub_and_on_board": on_board[:5]}
        return None

    def _decisions(self, van: str) -> list[dict[str, Any]]:
        answer = self._stage.hub.get("/api/decisions", params={"agent": van, "kind": "resequence"})
        decisions: list[dict[str, Any]] = answer.raise_for_status().json()
        return decisions

    def _arcs_changed(self, van: str) -> int:
        """What the agent says on its own page: while its link is cut the hub cannot know."""
        counters: dict[str, int] = self._pages[van].get("/api/counters").raise_for_status().json()
        return counters["arcs_changed_today"]

    def _day(self, van: str) -> dict[str, Any]:
        day: dict[str, Any] = self._pages[van].get("/api/day").raise_for_status().json()
        return day

    def _real_ms(self, domain_ms: float) -> float:
        return round(self._stage.clock.real_seconds(domain_ms) * 1000, 1)

    def _note(self, words: str) -> None:
        if not self.story or self.story[-1] != words:
            self.story.append(words)
