"""For those who run the hub: whether it lives and works, its counters, and a page to begin from."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import generate_latest

from cloud_hub.access.asking import caller
from cloud_hub.web.day import day_shown
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem


def health_pages(desk: Desk, picture: Picture) -> APIRouter:
    """For those who run the hub."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process lives")
    def healthz() -> Json:
        return Json({"status": "live"})

    @router.get(
        "/readyz",
        summary="Whether the hub can do its work",
        responses={503: {"description": "It cannot"}},
    )
    def readyz() -> Json:
        why_not = desk.is_ready()
        if why_not:
            # Whoever watches needs no sign-in, and no names of what stands behind the hub either.
            raise Problem(503, why_not if caller() is not None else "the hub cannot do its work now; its log says why")
        return Json({"status": "ready"})

    @router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    def metrics() -> Response:
        return Response(generate_latest(desk.registry), media_type=CONTENT_TYPE_LATEST)

    @router.get("/", include_in_schema=False)
    def home(request: Request) -> HTMLResponse:
        page = _home(request.app.openapi()["paths"], day_shown(desk, picture), picture.fleet())
        return HTMLResponse(page, headers=PLAIN)

    return router


PLAIN = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
}
"""No script belongs to this page, whatever its words bring along."""


def _home(paths: Mapping[str, Any], day: Mapping[str, Any], fleet: Sequence[Mapping[str, Any]]) -> str:
    states = ", ".join(f"{count} {html.escape(state)}" for state, count in day["orders_by_state"].items()) or "none yet"
    vans = "".join(
        f"<tr><td>{html.escape(van['agent'])}<td>{'there' if van['is_there'] else 'away'}"
        f"<td>{html.escape(van['shift'])}"
        f"<td>{van['stops_done']} / {van['stops_done'] + van['stops_left']}<td>{van['late_s'] // 60} min"
        for van in fleet
    )
    doors = "".join(
        f"<li><a href='{path}'>{path}</a>"
        for path, methods in sorted(paths.items())
        if "get" in methods and "{" not in path
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>Waywarden hub</title><style>"
        "body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "td,th{text-align:left;padding:0 1rem 0 0}</style>"
        f"<h1>Waywarden hub</h1><p>{html.escape(day['day'])}: {day['orders']} orders ({states})."
        f"<table><tr><th>agent<th>link<th>shift<th>done<th>late{vans}</table>"
        f"<h2>Ask</h2><ul>{doors}<li><a href=/docs>/docs</a></ul>"
    )
