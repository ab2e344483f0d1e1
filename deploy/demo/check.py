"""Prove the main job without a screen: bring bad luck as a visitor would, and wait for what must follow.

None of it is scripted. A late van re-sequences itself; a told window moves and the customer hears of it; a van whose
link is cut re-sequences itself, after which hub and van agree again; a driver turns a changed order down and has the
former one back; a customer says on the tracking page not to be home, and the van's plan follows; a mail with a window
is there to be read; and the twin's figures stand beside ours.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import httpx
import msgspec

from deploy.demo.luck import Luck, NoLuck, NotHome
from deploy.demo.pages import Onlooker
from deploy.demo.stage import VANS, Stage
from deploy.stack import DidNotStart
from shared.reckoning import compare

LATE_VAN, CUT_VAN, LUCKLESS_VAN = VANS
MOODY_VANS = (LATE_VAN, LUCKLESS_VAN)
LOOK_EVERY_S = 0.25
TROUBLE_AGAIN_AFTER_S = 40.0
HELD_UP_MIN = 40.0
FEWEST_LEFT = 3
"""With less to do there is no other order worth having."""

FEWEST_VISITS = 3
"""Before the twin has made so many, its figures say nothing."""

FIGURES_FROM_DUE = 15
FIGURES_WAIT_S = 120.0
"""The figures are taken when so many promises are due on both days, or so long after the beginning with what there is:
fewer would say little, and whoever runs the check waits for them.
"""


class Check:
    """Watches one stage until everything is proven or the time is over."""

    def __init__(self, stage: Stage, luck: Luck) -> None:
        self._stage = stage
        self._luck = luck
        self._zone = ZoneInfo(stage.wish.zone)
        self._pages = {van: stage.driver_page(van) for van in VANS}
        self._onlookers = [Onlooker(van, stage.driver_page(van)) for van in MOODY_VANS]
        self._inbox = httpx.Client(base_url=stage.inbox_url, timeout=5)
        self._trouble_at_s: dict[str, float] = {}
        self._cut_at_ms = 0
        self._arcs_at_cut = 0
        self._troubled_ms: dict[str, int] = {}
        self._served_then: dict[str, int] = {}
        self._not_home: NotHome | None = None
        self.story: list[str] = []
        self.proven: dict[str, dict[str, Any]] = {}

    def run(self, begun_s: float, within_s: float) -> bool:
        """Whether everything was proven within so many seconds of `begun_s` on the monotonic clock."""
        until_s = begun_s + within_s
        figures_by_s = begun_s + FIGURES_WAIT_S
        claims: tuple[tuple[str, Callable[[], dict[str, Any] | None]], ...] = (
            ("resequenced", self._a_van_resequenced_itself),
            ("window_moved", self._a_window_moved_and_the_customer_heard_of_it),
            ("turned_down", self._a_driver_turned_a_change_down),
            ("not_home", self._a_customer_was_not_home_and_the_plan_followed),
            ("notice", self._a_mail_with_its_window_can_be_read),
            ("cut_off", self._a_van_did_it_alone_and_they_agree),
        )
        while time.monotonic() < until_s and not all(name in self.proven for name, _ in (*claims, ("figures", None))):
            self._stage.stack.revive()
            if fallen := self._stage.stack.fallen():
                raise DidNotStart("; ".join(fallen))
            try:
                self._bring_trouble()
                for name, claim in claims:
                    if name not in self.proven and (found := claim()) is not None:
                        self.proven[name] = found
                if all(name in self.proven for name, _ in claims):
                    is_over = time.monotonic() >= figures_by_s
                    self._hold_figures_beside_each_other(FEWEST_VISITS, 0 if is_over else FIGURES_FROM_DUE)
            except httpx.HTTPError as away:
                self._note(f"no answer yet: {away}")
            time.sleep(LOOK_EVERY_S)
        is_whole = all(name in self.proven for name, _ in claims) and "figures" in self.proven
        self._leave()
        return is_whole

    def _leave(self) -> None:
        """Have the figures in any case, and look at nothing any more."""
        if "figures" not in self.proven:
            try:
                self._hold_figures_beside_each_other(fewest_visits=0, fewest_due=0)
            except httpx.HTTPError as away:
                self._note(f"no figures: {away}")
        for onlooker in self._onlookers:
            onlooker.leave()

    # Bringing trouble.

    def _bring_trouble(self) -> None:
        for van in VANS:
            state = self._luck.tell_van(van, do="state")
            if state["phase"] in ("depot", "done") or len(state["remaining"]) <= FEWEST_LEFT:
                continue
            if van in MOODY_VANS and self._not_home is None:
                self._have_a_customer_say(van)
            if self._is_due(van, state):
                self._trouble_at_s[van] = time.monotonic()
                self._served_then[van] = len(state["driven"])
                self._troubled_ms.setdefault(van, self._stage.clock.now_ms())
                self._trouble(van)

    def _is_due(self, van: str, state: dict[str, Any]) -> bool:
        """Whether trouble is wanted: for who is to be cut off soon after leaving, for the others at their first door,
        and again when nothing came of it though the van got somewhere meanwhile. Who is cut off may be held up where
        it stands.
        """
        served = len(state["driven"])
        if van not in self._trouble_at_s:
            return van == CUT_VAN or served > 0 or state["phase"] == "at_door"
        has_waited = time.monotonic() - self._trouble_at_s[van] > TROUBLE_AGAIN_AFTER_S
        return has_waited and (served > self._served_then[van] or self._luck.cut[van])

    def _trouble(self, van: str) -> None:
        if van == CUT_VAN:
            if "cut_off" in self.proven or (self._was_cut and not self._luck.cut[van]):
                return
            if not self._was_cut:
                self._arcs_at_cut = self._arcs_changed(CUT_VAN)
                self._cut_at_ms = self._stage.clock.now_ms()
                self._wish(self._luck.pull_cable, van)
        elif {"resequenced", "window_moved", "turned_down"} <= self.proven.keys():
            return
        else:
            if "turned_down" not in self.proven:
                self._wish(self._luck.dig_in, van)
            self._wish(self._luck.close_street_ahead if van == LATE_VAN else self._luck.customer_out, van)
        self._wish(self._luck.hold_up, van, HELD_UP_MIN)

    def _have_a_customer_say(self, van: str) -> None:
        try:
            self._not_home = self._luck.not_home(van)
            self._note(self._not_home.spoken())
        except NoLuck as not_now:
            self._note(f"{van}: not now: {not_now}")

    def _wish(self, luck: Callable[..., str], *what: Any) -> None:
        try:
            self._note(luck(*what))
        except NoLuck as not_now:
            self._note(f"{what[0]}: not now: {not_now}")

    @property
    def _was_cut(self) -> bool:
        return self._cut_at_ms > 0

    # What must follow.

    def _a_van_resequenced_itself(self) -> dict[str, Any] | None:
        # A van may find a better order before any trouble comes; that is none of ours to claim.
        found = [
            decision
            for van in (LATE_VAN, LUCKLESS_VAN)
            if van in self._troubled_ms
            for decision in self._decisions(van)
            if decision["at_ms"] >= self._troubled_ms[van]
        ]
        return self._hops(found[0]) if found else None

    def _hops(self, decision: dict[str, Any]) -> dict[str, Any]:
        return {
            "van": decision["by"],
            "sentence": decision["spoken"],
            "decided_at_ms": decision["at_ms"],
            "trouble_to_decision_domain_s": round((decision["at_ms"] - self._troubled_ms[decision["by"]]) / 1000),
            "van_to_hub_ms": self._real_ms(decision["heard_ms"] - decision["at_ms"]),
        }

    def _a_window_moved_and_the_customer_heard_of_it(self) -> dict[str, Any] | None:
        moved = {p["order_id"]: p for p in self._promises() if len(p["tellings"]) > 1}
        inbox = self._messages()
        for notice in self._notices("changed"):
            promise, message = moved.get(notice["order_id"]), inbox.get(notice["notice_id"])
            if promise is not None and message is not None and notice["why"] != "customer_asked":
                return {
                    "order": promise["order_id"],
                    "from": promise["tellings"][-2]["told"],
                    "to": promise["tellings"][-1]["told"],
                    "slot": promise["slot_ms"],
                    "told_at_ms": notice["at_ms"],
                    "channel": notice["channel"],
                    "hub_to_customer_ms": self._real_ms(message["received_ms"] - notice["at_ms"]),
                }
        return None

    def _a_driver_turned_a_change_down(self) -> dict[str, Any] | None:
        fleet = self._fleet()
        for onlooker in self._onlookers:
            found = onlooker.turned_down
            if found is not None and fleet[onlooker.van]["changes_refused"]:
                return {**found, "refused_by_van_so_far": fleet[onlooker.van]["changes_refused"]}
        return None

    def _a_customer_was_not_home_and_the_plan_followed(self) -> dict[str, Any] | None:
        said = self._not_home
        if said is None:
            return None
        stop = next((s for s in self._day(said.van)["stops"] if s["stop_id"] == said.stop_id), None)
        promise = next(p for p in self._promises() if p["stop_id"] == said.stop_id)
        notice = next((n for n in self._notices("changed") if n["order_id"] == said.order_id), None)
        page = self._stage.hub.get(said.url, params={"lang": "en"}).raise_for_status().text
        if stop is None or stop["slot"][0] < said.until_ms or said.until not in page or notice is None:
            return None
        message = self._messages().get(notice["notice_id"])
        if message is None:
            return None
        return {
            "order": said.order_id,
            "van": said.van,
            "not_before": said.until,
            "told_before": said.told_ms,
            "told_now": promise["told_ms"],
            "on_the_drivers_page_not_before_ms": stop["slot"][0],
            "answered": said.effect,
            "told_by": notice["channel"],
            "message": _first_words(message),
        }

    def _a_mail_with_its_window_can_be_read(self) -> dict[str, Any] | None:
        inbox = self._messages()
        for notice in self._notices("day"):
            mail = inbox.get(notice["notice_id"])
            if mail is None or notice["channel"] != "email":
                continue
            opens, closes = (self._face(at_ms) for at_ms in notice["told"])
            read = mail["text"].replace(".", ":")
            is_shown = mail["to"] in self._inbox.get("/").raise_for_status().text
            if opens in read and closes in read and mail["html"] and is_shown:
                return {
                    "order": notice["order_id"],
                    "subject": mail["subject"],
                    "window": f"{opens}-{closes}",
                    "inbox": self._stage.inbox_url + "/",
                }
        return None

    def _hold_figures_beside_each_other(self, fewest_visits: int, fewest_due: int) -> None:
        ours, twin = self._stage.figures()
        is_enough = min(ours.windows_due, twin.windows_due) >= fewest_due
        if is_enough and min(ours.visits, twin.visits) >= fewest_visits:
            self.proven["figures"] = {
                "at": self._face(ours.at_ms),
                "due": {"ours": ours.windows_due, "twin": twin.windows_due},
                "headline": [line.spoken() for line in compare(ours, twin)],
                "ours": msgspec.to_builtins(ours),
                "twin": msgspec.to_builtins(twin),
            }

    def _a_van_did_it_alone_and_they_agree(self) -> dict[str, Any] | None:
        if not self._was_cut:
            return None
        if self._luck.cut[CUT_VAN]:
            if self._arcs_changed(CUT_VAN) > self._arcs_at_cut:
                self._note(f"{CUT_VAN} re-sequenced itself, alone")
                self._note(self._luck.plug_cable(CUT_VAN))
            return None
        told = [decision for decision in self._decisions(CUT_VAN) if decision["at_ms"] >= self._cut_at_ms]
        agent = self._fleet()[CUT_VAN]
        on_board = [stop["stop_id"] for stop in self._day(CUT_VAN)["stops"]]
        if told and agent["is_there"] and agent["order"] == on_board:
            alone_ms = told[0]["heard_ms"] - told[0]["at_ms"]
            return self._hops(told[0]) | {"alone_for_domain_ms": alone_ms, "order_at_hub_and_on_board": on_board[:5]}
        return None

    # Looking.

    def _fleet(self) -> dict[str, dict[str, Any]]:
        return {agent["agent"]: agent for agent in self._stage.hub.get("/api/fleet").raise_for_status().json()}

    def _promises(self) -> list[dict[str, Any]]:
        promises: list[dict[str, Any]] = self._stage.hub.get("/api/promises").raise_for_status().json()
        return promises

    def _notices(self, kind: str) -> list[dict[str, Any]]:
        """Delivered notices of a kind, oldest first."""
        notices = self._stage.hub.get("/api/notices", params={"state": "delivered"}).raise_for_status().json()
        return [notice for notice in notices if notice["kind"] == kind]

    def _messages(self) -> dict[str, dict[str, Any]]:
        """Everything in the test inbox, by the number of the notice it came from."""
        found: dict[str, dict[str, Any]] = {}
        for path in ("/received", "/texts"):
            found |= {one["id"]: one for one in self._inbox.get(path).raise_for_status().json()}
        mails = self._inbox.get("/mails").raise_for_status().json()
        return found | {unquote(mail["message_id"].lstrip("<").rpartition("@")[0]): mail for mail in mails}

    def _decisions(self, van: str) -> list[dict[str, Any]]:
        answer = self._stage.hub.get("/api/decisions", params={"agent": van, "kind": "resequence"})
        decisions: list[dict[str, Any]] = answer.raise_for_status().json()
        return decisions

    def _arcs_changed(self, van: str) -> int:
        """What the agent says on its own page: while its link is cut the hub cannot know."""
        counters: dict[str, int] = self._pages[van].get("/api/counters")
        return counters["arcs_changed_today"]

    def _day(self, van: str) -> dict[str, Any]:
        day: dict[str, Any] = self._pages[van].get("/api/day")
        return day

    def _face(self, at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1000, self._zone).strftime("%H:%M")

    def _real_ms(self, domain_ms: float) -> float:
        return round(self._stage.clock.real_seconds(domain_ms) * 1000, 1)

    def _note(self, words: str) -> None:
        if not self.story or self.story[-1] != words:
            self.story.append(words)


def _first_words(message: dict[str, Any]) -> str:
    """The subject of a mail, or the text of what has none."""
    words = message.get("subject") if "html" in message else message.get("text")
    return str(words or message.get("type") or "")[:200]
