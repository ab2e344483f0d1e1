"""How soon a driver sees the day on a slow phone, and whether everybody can read it.

`python -m tests.bench.page [--json] [--paints N]`

- driver_paint_s: from the navigation to the first contentful paint, in Chromium at a phone's size with its processor
  slowed to a quarter (CDP Emulation.setCPUThrottlingRate 4), from an agent's own process on the loopback with a plan of
  60 stops; the phone has nothing of the page kept. Median; the worst is printed beside it. The first thing painted is
  the day: there is no splash before it, which the bench checks.
- kept_paint_s: the same once the phone keeps the page's files.
- axe_violations: what axe-core finds in twelve states and thirteen sheets, day and night.
- page_kb: the page without the day, as sent.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from deploy.stack import Stack, free_ports
from edge_agent.page.assets import OPTIONAL_SCRIPTS, assets, page_html
from shared.clock import SETTING, Clock
from shared.messages import PlanTaken
from shared.work import AgentId
from tests.agents import MORNING_MS
from tests.bench.agent import busy_plan
from tests.shells.agents_hub import StandInHub, settings_text
from tests.shells.days_shown import DAY, NOW_MS, SHEETS, STATES
from tests.shells.phones import Stage, a_browser, a_phone

VAN = AgentId("van-1")
SLOWER = 4
PAINTS = 9
LIMITS = {"driver_paint_s": 1.0, "axe_violations": 0.0}

PAINTED = """() => new Promise(done => {
  const look = () => { const paint = performance.getEntriesByName('first-contentful-paint')[0];
    paint ? done([paint.startTime, document.querySelector('h1, .name')?.textContent || '']) : setTimeout(look, 10); };
  look();
})"""
VIOLATIONS = """async () => {
  await Promise.all(document.getAnimations().map(each => each.finished));
  return (await axe.run({ resultTypes: ['violations'] })).violations.flatMap(each => each.nodes.map(() => each.id));
}"""
UNTIL_SHOWN = """revision => new Promise(done => {
  const look = () => waywarden.day && waywarden.day.revision === revision ? done() : setTimeout(look, 5);
  look();
})"""


def measure_paint(browser: Browser, folder: Path, paints: int) -> tuple[list[float], list[float]]:
    """Seconds to the first contentful paint on phones that have nothing kept, and on one that keeps the files."""
    clock = Clock.starting(MORNING_MS, 1.0)
    with Stack(folder / "logs", {SETTING: clock.setting()}) as stack:
        broker, port = free_ports(2)
        stack.start("broker", "deploy.broker", "--port", str(broker))
        stack.wait_for_port("broker", broker)
        url = f"mqtt://127.0.0.1:{broker}"
        with StandInHub(url, "town", folder / "hub.key", clock.now_ms) as hub:
            settings = folder / "van-1.toml"
            settings.write_text(
                settings_text(
                    agent=VAN,
                    region="town",
                    broker=url,
                    hub_public_key=hub.signer.public_hex(),
                    store=str(folder / "van.sqlite"),
                    page_port=port,
                )
            )
            stack.start(VAN, "edge_agent", "run", "--settings", str(settings))
            stack.wait_for_port(VAN, port)
            hub.push(busy_plan(1))
            hub.wait(lambda: bool(hub.of(PlanTaken)), "the plan is taken")
            time.sleep(1.0)  # The first prediction of 60 stops is not what is measured.
            address = f"http://127.0.0.1:{port}/"
            fresh = [first_paint(browser, address) for _ in range(paints)]
            return fresh, kept_paints(browser, address, paints)


def first_paint(browser: Browser, address: str) -> float:
    """On a phone that has never seen the page."""
    phone = a_phone(browser)
    try:
        return paint_of(phone.new_page(), address)
    finally:
        phone.close()


def kept_paints(browser: Browser, address: str, paints: int) -> list[float]:
    """On a phone that has been here before."""
    phone = a_phone(browser)
    try:
        tab = phone.new_page()
        tab.goto(address)
        tab.evaluate("navigator.serviceWorker.ready.then(() => 0)")
        return [paint_of(phone.new_page(), address) for _ in range(paints)]
    finally:
        phone.close()


def paint_of(tab: Tab, address: str) -> float:
    """Seconds from the navigation to the first contentful paint, whose content must be the day."""
    tab.context.new_cdp_session(tab).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    tab.goto(address, wait_until="commit")
    painted_ms, words = tab.evaluate(PAINTED)
    if words not in ("Ready to go", "s0 street 1"):
        raise AssertionError(f"painted first: '{words[:60]}', expected the day")
    return float(painted_ms) / 1000


def count_violations(browser: Browser) -> int:
    """Over every state and sheet, day and night."""
    stage = Stage(NOW_MS)
    stage.shows(DAY)
    phone = a_phone(browser)
    tab = phone.new_page()
    tab.goto(stage.url)
    tab.evaluate(Axe().axe_script)
    found = 0
    try:
        for theme in ("day", "night"):
            tab.evaluate(f"waywarden.paint('{theme}')")
            for change, presses in [*((state, ()) for state in STATES.values()), *SHEETS.values()]:
                tab.evaluate("waywarden.closeSheet()")
                tab.evaluate(UNTIL_SHOWN, stage.shows({**DAY, **change}))
                tab.evaluate("waywarden.render(true)")
                for words in presses:
                    tab.get_by_role("button", name=words).first.click()
                found += len(tab.evaluate(VIOLATIONS))
    finally:
        phone.close()
        stage.page.stop()
    return found


def page_bytes() -> int:
    """The page, its styles, words and scripts."""
    names = ("page.css", "core.js", *OPTIONAL_SCRIPTS)
    return len(page_html()) + sum(len(assets()[name].content) for name in names)


def median(sample: Sequence[float]) -> float:
    """The middle value."""
    return sorted(sample)[len(sample) // 2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status says whether every figure keeps its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one flat JSON object")
    parser.add_argument("--paints", type=int, default=PAINTS, help="how often the page is opened")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="waywarden-bench-") as name, a_browser() as (_, browser):
        fresh, kept = measure_paint(browser, Path(name), asked.paints)
        figures = {
            "driver_paint_s": median(fresh),
            "driver_paint_s_worst": max(fresh),
            "kept_paint_s": median(kept),
            "axe_violations": float(count_violations(browser)),
            "page_kb": page_bytes() / 1024,
        }
    print(f"{'':<26}{'measured':>10}{'limit':>10}")
    for figure, value in figures.items():
        limit = LIMITS.get(figure)
        print(f"{figure:<26}{value:>10.2f}{'' if limit is None else f'{limit:>10.0f}'}")
    if asked.json:
        print(msgspec.json.encode({figure: round(value, 3) for figure, value in figures.items()}).decode())
    return int(any(figures[figure] > limit for figure, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
