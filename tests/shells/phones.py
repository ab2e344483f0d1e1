"""A driver's phone before a real agent: core, store and page on threads, and Chromium at the size of a phone."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright
from playwright.sync_api import Page as Tab

from edge_agent.agent import AgentCore
from edge_agent.dialogue import DAY_TOPIC, ENTRY_TOPIC, Entry, Reply
from edge_agent.page import Page
from edge_agent.sensing import Fix, Scan
from edge_agent.store import SqliteStore
from edge_agent.workshop import Workshop
from shared import wire
from shared.clock import Clock
from shared.contracts import Plan
from shared.messages import HubCommand, Numbered, PlanPushed, Visited
from shared.quantities import EpochMs, Position
from shared.runner import Runner
from shared.steps import Envelope, LinkUp, Row
from shared.topics import HUB
from shared.work import Visit
from tests.agents import MINUTE_MS, MORNING_MS, identity, place
from tests.needs import needs

PATIENCE_S = 15.0
PHONE = {"width": 390, "height": 844}


class Van:
    """One agent on threads; what its devices and its hub say is posted by the test."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.visits: list[Visit] = []
        self.said: list[Any] = []
        self._folder = folder
        self._clock = Clock.starting(MORNING_MS, 10.0)
        self._commands = 0
        self._port = port
        self.wakes()

    def wakes(self) -> None:
        """The process begins, on whatever is on its disk."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE_S)
        self._port = self.page.port

    def _live(self, ready: threading.Event) -> None:
        store = SqliteStore(self._folder / "van.sqlite")
        core = AgentCore(identity(boot=store.boot), store.saved())
        commit = store.commit

        def watched(rows: Any) -> None:
            commit(rows)
            for row in rows:
                self._overhear(row)

        store.commit = watched  # type: ignore[method-assign]  # the test reads what is said as it is committed
        workshop = Workshop(self._folder)
        self.runner = Runner(core, store, self._clock, self._send, workshop.do)
        self.page = Page("127.0.0.1", self._port, self.runner.ask, self._clock.now_ms, timezone(timedelta(hours=2)))
        self.page.start()
        ready.set()
        self.runner.run()
        self.page.stop()
        store.close()

    def sleeps(self) -> None:
        """The process ends."""
        self.runner.stop()
        self._thread.join(PATIENCE_S)

    def _overhear(self, row: Row) -> None:
        if row.room == "outbox" and row.value is not None and "/events/" in row.key:
            event = wire.decode_numbered(row.value).message
            self.said.append(event)
            if isinstance(event, Visited):
                self.visits.append(event.visit)

    def _send(self, envelope: Envelope) -> bool:
        if envelope.topic == DAY_TOPIC:
            self.page.show(envelope.payload)
        elif envelope.topic == ENTRY_TOPIC:
            self.page.admit(envelope.payload)
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.page.port}/"

    def hub(self, *commands: HubCommand) -> None:
        """The hub says something."""
        for command in commands:
            self._commands += 1
            now_ms = EpochMs(self._clock.now_ms())
            self.runner.post(Numbered(HUB, "hub-1", "commands", self._commands, now_ms, 1, command))

    def push(self, plan: Plan) -> None:
        self.hub(PlanPushed(plan, EpochMs(self._clock.now_ms() + 60 * MINUTE_MS)))
        self.until(lambda: self.page._day is not None and b'"plan_version":null' not in self.page._day)

    def link_up(self) -> None:
        self.runner.post(LinkUp())

    def drives(self) -> None:
        """The satellites see it go east from the depot for a while."""
        for k in range(8):
            self._fix(place(8.0 * k, 0.0), 8.0)

    def stands(self) -> None:
        """The satellites see it stand."""
        for _ in range(20):
            self._fix(place(64.0, 0.0), 0.0)

    def _fix(self, position: Position, speed_mps: float) -> None:
        self.runner.post(Fix(EpochMs(self._clock.now_ms()), position, speed_mps))
        # A second of the van's time: its speed must fit its places.
        time.sleep(1.0 / self._clock.speed)

    def scan(self, text: str) -> None:
        """The scanner on the van's own wire."""
        self.runner.post(Scan(EpochMs(self._clock.now_ms()), text))

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"in vain for {PATIENCE_S} s"
            time.sleep(0.01)


def launched(started: Playwright, *more: str) -> Browser:
    """Debian's Chromium, or whichever is found."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    needs(program, "chromium: apt install chromium")
    return started.chromium.launch(executable_path=str(program), args=["--no-sandbox", *more])


@contextmanager
def a_browser() -> Iterator[tuple[Playwright, Browser]]:
    """A browser, and what starts others."""
    with sync_playwright() as started:
        browser = launched(started)
        yield started, browser
        browser.close()


def a_phone(browser: Browser, **more: Any) -> BrowserContext:
    """A phone of its own: no cookies, nothing kept."""
    settled: dict[str, Any] = {"viewport": PHONE, "is_mobile": True, "has_touch": True, "locale": "en-GB"}
    context = browser.new_context(**(settled | more))
    context.set_default_timeout(1000 * PATIENCE_S)
    return context


def complaints_of(tab: Tab) -> list[str]:
    """Every exception nobody caught on the page from now on."""
    found: list[str] = []
    tab.on("pageerror", lambda error: found.append(str(error)))
    return found


def type_like_a_scanner(tab: Tab, text: str) -> None:
    """A wedge scanner: keys faster than any hand, then Enter."""
    tab.keyboard.type(text, delay=0)
    tab.keyboard.press("Enter")


class Stage:
    """A page that shows the days a test gives it, in any state."""

    def __init__(self, now_ms: int) -> None:
        self.said: list[Any] = []

        def ask(event: Any) -> "Future[Any]":
            self.said.append(getattr(event, "said", event))
            answer: Future[Any] = Future()
            answer.set_result(Reply(200))
            return answer

        self.page = Page("127.0.0.1", 0, ask, lambda: now_ms, timezone(timedelta(hours=2)))
        self.page.start()
        self._revision = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.page.port}/"

    def shows(self, day: dict[str, Any]) -> int:
        """The day from now on; its revision."""
        self._revision += 1
        self.page.show(msgspec.json.encode({"revision": self._revision, **day}))
        return self._revision

    def locks(self) -> None:
        """Nobody is let in any more."""
        self.page.admit(msgspec.json.encode(Entry(is_locked=True)))
