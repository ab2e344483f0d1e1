"""The day in a terminal: vans, moved windows and decisions, live, and keys that bring bad luck."""

import os
import queue
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from rich.console import Console, Group
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.demo.luck import Luck, NoLuck
from deploy.demo.stage import VANS, Stage
from deploy.stack import DidNotStart
from shared.reckoning import DayFigures, compare, told

REFRESH_S = 0.5
SHOWN_DECISIONS = 9
SHOWN_WINDOWS = 6
QUIET_KINDS = frozenset({"window_held"})
"""Customers left in peace are recorded too; a screen that is glanced at shows what was done."""

COLOURS = {"ours": "green", "even": "", "twin": "yellow"}
"""Where the twin does better it is seen at a glance."""


class Screen:
    """What a visitor sees and presses. The picture comes from the hub's API and from nowhere else."""

    def __init__(self, stage: Stage, luck: Luck, console: Console) -> None:
        self._stage = stage
        self._luck = luck
        self._console = console
        self._zone = ZoneInfo(stage.wish.zone)
        self._van = VANS[0]
        self._last_words = "Press a key to bring bad luck; nothing here is scripted."
        self._fleet: list[dict[str, Any]] = []
        self._decisions: list[dict[str, Any]] = []
        self._promises: list[dict[str, Any]] = []
        self._figures: tuple[DayFigures, DayFigures] | None = None
        self._codes: dict[str, str] = {}
        self._tracked = self._tracking = ""
        self._is_hub_away = False

    def show(self) -> None:
        """Show the day until the visitor presses q."""
        with _keys() as keys, Live(self._layout(), console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                self._look()
                live.update(self._layout(), refresh=True)
                if not self._obey_within(keys, REFRESH_S):
                    return

    def _look(self) -> None:
        self._stage.stack.revive()
        try:
            self._fleet = self._stage.hub.get("/api/fleet").raise_for_status().json()
            newest = {"newest_first": True, "most": 8 * SHOWN_DECISIONS}
            decisions = self._stage.hub.get("/api/decisions", params=newest).raise_for_status().json()
            self._decisions = [d for d in decisions if d["kind"] not in QUIET_KINDS][:SHOWN_DECISIONS]
            self._promises = self._stage.hub.get("/api/promises").raise_for_status().json()
            self._codes = self._stage.codes()
            self._look_for_a_link()
            self._is_hub_away = False
        except httpx.HTTPError:
            self._is_hub_away = True
            return
        try:
            self._figures = self._stage.figures()
        except httpx.HTTPError:
            self._figures = None

    def _look_for_a_link(self) -> None:
        """The tracking page of the customer the chosen van comes to after the next one."""
        order: list[str] = next((agent["order"] for agent in self._fleet if agent["agent"] == self._van), [])
        promise = {p["stop_id"]: p for p in self._promises}.get(order[min(1, len(order) - 1)]) if order else None
        if promise is None or promise["order_id"] == self._tracked:
            return
        made = self._stage.hub.post(f"/api/orders/{promise['order_id']}/link", json={})
        if made.is_success:
            self._tracked, self._tracking = promise["order_id"], made.json()["url"]

    def _obey_within(self, keys: "queue.SimpleQueue[str]", patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                key = keys.get(timeout=left)
            except queue.Empty:
                return True
            if key in "qQ\x03":
                return False
            self._press(key)
            return True
        return True

    def _press(self, key: str) -> None:
        luck, van = self._luck, self._van
        try:
            if key in "123":
                self._van = VANS[int(key) - 1]
                self._last_words = f"{self._van} is chosen"
            elif key == "s":
                self._last_words = luck.close_street_ahead(van)
            elif key == "l":
                self._last_words = luck.plug_cable(van) if luck.cut[van] else luck.pull_cable(van)
            elif key == "c":
                self._last_words = luck.customer_out(van)
            elif key == "h":
                self._last_words = luck.hold_up(van)
            elif key == "n":
                said = luck.not_home(van)
                self._tracked, self._tracking, self._last_words = said.order_id, said.url, said.spoken()
            elif key == "d":
                self._last_words = luck.dig_in(van)
            elif key == "k":
                self._last_words = luck.kill_agent(van)
        except (NoLuck, DidNotStart, OSError, httpx.HTTPError) as wrong:
            self._last_words = f"not now: {wrong}"

    def _layout(self) -> Layout:
        layout = Layout()
        layout.split_column(
            Layout(self._heading(), size=3),
            Layout(self._beside_the_twin(), size=5),
            Layout(self._vans(), size=len(VANS) + 3),
            Layout(name="story"),
            Layout(self._footing(), size=8),
        )
        layout["story"].split_row(Layout(self._story(), ratio=3), Layout(self._windows(), ratio=2))
        return layout

    def _heading(self) -> Panel:
        words = Text.assemble(
            ("Waywarden  ", "bold"),
            f"{self._time(self._stage.clock.now_ms())}  at {self._stage.clock.speed:g}x   ",
            f"API {self._stage.hub_url}/   inbox {self._stage.inbox_url}/",
        )
        if self._is_hub_away:
            words.append("   hub away", "bold red")
        return Panel(words)

    def _beside_the_twin(self) -> Panel:
        """The headline: both days, always."""
        title = "this day, and its twin: the same day on fixed routes"
        if self._figures is None:
            return Panel(Text("no figures yet", "dim"), title=title, title_align="left")
        lines = compare(*self._figures)
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in range(len(lines) + 1):
            table.add_column(no_wrap=True)
        table.add_row("", *[Text(line.name, "dim") for line in lines])
        table.add_row(Text("ours", "bold"), *[Text(told(line.ours, line.unit), COLOURS[line.better]) for line in lines])
        table.add_row("twin", *[Text(told(line.twin, line.unit)) for line in lines])
        return Panel(table, title=title, title_align="left")

    def _vans(self) -> Panel:
        table = Table.grid(padding=(0, 2), expand=True)
        for heading in ("", "van", "link", "next stop", "expected", "told", "late", "done", "left", "own changes"):
            table.add_column(heading, no_wrap=heading not in ("next stop",))
        table.add_row(
            *[Text(h, "dim") for h in ("", "van", "link", "next stop", "expected", "told")],
            *[Text(h, "dim") for h in ("late", "done", "left", "own changes")],
        )
        for agent in self._fleet:
            table.add_row(*self._van_row(agent))
        return Panel(table, title="vans", title_align="left")

    def _van_row(self, agent: dict[str, Any]) -> list[Text | str]:
        name, coming = agent["agent"], agent["next_stop"] or {}
        link = Text("up", "green") if agent["is_there"] else Text("on its own", "bold yellow")
        late_min = agent["late_s"] / 60
        late = Text(f"{late_min:.0f} min", "bold red") if late_min >= 1 else Text("no", "green")
        return [
            Text(">" if name == self._van else " ", "bold cyan"),
            Text(name, "bold"),
            link,
            coming.get("address", "-"),
            self._expected(agent, coming),
            self._span(coming.get("told_ms")),
            late,
            str(agent["stops_done"]),
            str(agent["stops_left"]),
            str(agent["resequenced"]),
        ]

    def _expected(self, agent: dict[str, Any], coming: dict[str, Any]) -> Text | str:
        if agent["at_stop"] is not None:
            return Text("at the door", "cyan")
        return self._time(coming["estimate_ms"][1]) if coming.get("estimate_ms") else "-"

    def _story(self) -> Panel:
        lines: list[Text] = []
        for decision in self._decisions:
            lines.append(
                Text.assemble(
                    (f"{self._time(decision['at_ms'])} ", "dim"), (f"{decision['by']} ", "cyan"), decision["spoken"]
                )
            )
        return Panel(Group(*lines), title="decisions, newest first", title_align="left")

    def _windows(self) -> Panel:
        moved = [(promise["tellings"][-1], promise) for promise in self._promises if len(promise["tellings"]) > 1]
        moved.sort(key=lambda pair: pair[0].get("at_ms", 0), reverse=True)
        lines = []
        for telling, promise in moved[:SHOWN_WINDOWS]:
            before = promise["tellings"][-2]
            lines.append(
                Text.assemble(
                    (f"{self._time(telling['at_ms'])} ", "dim"),
                    f"{promise['order_id']}  ",
                    (self._span(before["told"]), "strike dim"),
                    " ",
                    (self._span(telling["told"]), "bold green"),
                )
            )
        return Panel(Group(*lines), title="windows told anew", title_align="left")

    def _footing(self) -> Panel:
        keys = "1 2 3 choose a van   s close the street ahead   h hold it up   l cut or mend its link   c customer out"
        keys += "   n customer says not home   d driver refuses the next change   k kill its agent   q quit"
        pages = "   ".join(
            f"{van} http://127.0.0.1:{ports.page}/ code {self._codes.get(van) or '-'}"
            for van, ports in self._stage.ports.items()
        )
        tracking = f"tracking page of {self._tracked}: {self._tracking}" if self._tracking else "no tracking page yet"
        board = f"board with the codes: {self._stage.board_page}"
        lines = f"{keys}\ndrivers' pages: {pages}\n{board}\n{tracking}"
        return Panel(Group(Text(self._last_words, "bold"), Text(lines, "dim")))

    def _time(self, at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1000, self._zone).strftime("%H:%M")

    def _span(self, window: list[int] | None) -> str:
        return f"{self._time(window[0])}-{self._time(window[1])}" if window else "-"


@contextmanager
def _keys() -> Iterator["queue.SimpleQueue[str]"]:
    """Single key presses from the terminal, which is put back as it was. Without a terminal no key ever comes."""
    pressed: queue.SimpleQueue[str] = queue.SimpleQueue()
    if not sys.stdin.isatty():
        yield pressed
        return
    before = termios.tcgetattr(sys.stdin)
    is_done = threading.Event()

    def listen() -> None:
        while not is_done.is_set():
            if select.select([sys.stdin], [], [], 0.1)[0]:
                pressed.put(os.read(sys.stdin.fileno(), 1).decode(errors="ignore") or "q")

    listener = threading.Thread(target=listen, daemon=True)
    tty.setcbreak(sys.stdin)
    try:
        listener.start()
        yield pressed
    finally:
        is_done.set()
        listener.join()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
