"""Everything the hub's HTTP interface works with, and how it asks the core."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date
from typing import Any

from prometheus_client.registry import CollectorRegistry

from cloud_hub.access.gate import Access
from cloud_hub.enrolment import Enrolment
from cloud_hub.events import Answer
from cloud_hub.geocode import Geocoder
from cloud_hub.links import Links
from cloud_hub.roads import Roads
from cloud_hub.settings import HubSettings, today
from cloud_hub.storage import HubStore, TelemetryStore
from cloud_hub.web.feed import Feed
from cloud_hub.web.problems import Problem
from shared.clock import Clock

ANSWER_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Desk:
    """Where requests are worked on: what changes something goes to the core, what only looks goes to the stores."""

    settings: HubSettings
    store: HubStore
    telemetry: TelemetryStore
    ask: Callable[[Any], "Future[Any]"]
    feed: Feed
    roads: Roads
    geocoder: Geocoder
    clock: Clock
    links: Links
    registry: CollectorRegistry
    is_ready: Callable[[], str]
    """Why the hub cannot do its work now, in words; "" when it can."""
    secret: bytes
    """What shift codes are made from (see `cloud_hub.board`)."""
    access: Access
    """Who may come in."""
    enrolment: Enrolment | None = None
    """How machines become agents; None where nobody can."""

    def answer(self, event: Any) -> Answer:
        """Ask the core, and wait for its commit. Raises Problem 503 when it gives no answer in time."""
        try:
            answer: Answer = self.ask(event).result(ANSWER_PATIENCE_S)
        except TimeoutError:
            raise Problem(503, f"the hub's core gave no answer in {ANSWER_PATIENCE_S:.0f} s; ask again") from None
        return answer

    def today(self) -> str:
        """The hub's day: the one of its settings, or what the calendar says in its zone."""
        return self.settings.day or today(self.clock.now_ms(), self.settings.zone)

    def day_named(self, day: str | None) -> date:
        """The day somebody names, the hub's own when absent. Raises Problem 422 when it is no day."""
        try:
            return date.fromisoformat(day or self.today())
        except ValueError:
            raise Problem(422, f"day is '{(day or '')[:40]}', expected YYYY-MM-DD") from None
