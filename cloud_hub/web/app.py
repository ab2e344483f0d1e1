"""The hub's HTTP interface: orders in, the day planned, and everything asked about.

What changes something is asked of the core and answered after its commit; what only looks reads the store.
"""

from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import BaseRoute

from cloud_hub.access.gate import Gate
from cloud_hub.settings import HubSettings
from cloud_hub.web.access import access_pages
from cloud_hub.web.board import board_pages
from cloud_hub.web.customers import customers_pages
from cloud_hub.web.day import day_pages
from cloud_hub.web.desk import Desk
from cloud_hub.web.enrolment import enrolment_pages
from cloud_hub.web.figures import figures_pages
from cloud_hub.web.forms import Json
from cloud_hub.web.health import health_pages
from cloud_hub.web.letters import letters_pages
from cloud_hub.web.openapi import document
from cloud_hub.web.orders import orders_pages
from cloud_hub.web.picture import Picture
from cloud_hub.web.privacy import privacy_pages
from cloud_hub.web.problems import BodyLimit, OwnPagesOnly, answer_with_problems, problem_response
from cloud_hub.web.proofs import proofs_pages
from cloud_hub.web.shown import picture_pages
from cloud_hub.web.streets import roads_pages
from cloud_hub.web.track import track_pages

__all__ = ["Desk", "make_app"]

DESCRIPTION = """
Orders in, plans out, windows kept, and a reason for everything.

Instants are whole milliseconds since 1970-01-01T00:00Z in the hub's domain time, in fields that end in `_ms`; windows
are pairs of them. Durations end in `_s` (seconds). Positions are WGS 84 degrees, latitude first. Every error is
problem+json (RFC 9457).
"""


def make_app(desk: Desk) -> FastAPI:
    """The application. Its pages are one module per subject."""
    # The documents' page is served with the hub: FastAPI's own loads its scripts from another host.
    app = FastAPIOffline(
        redoc_url=None,
        title="Waywarden hub",
        version="1",
        description=DESCRIPTION,
        default_response_class=Json,
        openapi_tags=[
            {"name": "orders", "description": "What was sold: taken in, corrected, asked about."},
            {"name": "day", "description": "Vehicles and the day's plan."},
            {"name": "picture", "description": "What is out there now, what was promised and why."},
            {"name": "customers", "description": "Who the customers are, and how they are told."},
            {"name": "roads", "description": "Streets, and which of them are closed."},
            {"name": "privacy", "description": "Forgetting people, and proof that the records still hold."},
            {"name": "access", "description": "Who I am, keys, and who looked at whom."},
            {"name": "enrolment", "description": "How machines become agents, and stay them."},
            {"name": "health", "description": "For those who run the hub."},
        ],
    )
    answer_with_problems(app)
    app.add_middleware(BodyLimit, most_bytes=desk.settings.most_body_bytes)
    routes: list[BaseRoute] = list(app.routes)
    app.add_middleware(Gate, access=desk.access, routes=routes, problem=problem_response)
    app.add_middleware(OwnPagesOnly, names=_own_names(desk.settings))
    picture = Picture(desk.store, desk.telemetry)
    for pages in (
        orders_pages,
        day_pages,
        figures_pages,
        board_pages,
        privacy_pages,
        proofs_pages,
        picture_pages,
        letters_pages,
        customers_pages,
        track_pages,
        roads_pages,
        access_pages,
        enrolment_pages,
        health_pages,
    ):
        router = pages(desk, picture)
        app.include_router(router)
        routes += router.routes
    document(app, routes)
    return app


def _own_names(settings: HubSettings) -> tuple[str, ...]:
    """The names under which the hub answers: those of its settings, and where customers reach it."""
    return (*settings.http_names, settings.http_host, urlsplit(settings.notices.tracking_url).hostname or "")
