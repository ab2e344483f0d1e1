"""Orders over HTTP: handed in, corrected, asked about."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from fastapi.concurrency import run_in_threadpool

from cloud_hub.web.counter import correct_order, take_orders
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, documented, found, missing
from cloud_hub.web.needs import waiting_for_people
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem

ORDERS_EXAMPLE = [
    {
        "order_id": "A-1001",
        "address": "Mannerheimintie 5, 00100 Helsinki",
        "slot_from": "2026-11-23T10:00",
        "slot_to": "2026-11-23T14:00",
        "parcels": 2,
        "service": "signature",
        "floor": 3,
        "has_lift": True,
    }
]

_TAKEN_EXAMPLE = {
    "accepted": ["A-1001"],
    "places": {
        "A-1001": {
            "address": "Mannerheimintie 5, 00100 Helsinki",
            "confidence": 1.0,
            "reason": "street and number are on the map",
        }
    },
    "repeats": [],
    "doubtful": [
        {"order_id": "A-1002", "what_found": "'Manerheimtie 500': no such number", "do": "choose a candidate"}
    ],
    "refused": [],
    "notices": [],
}

_ORDERS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"type": "array", "items": {"type": "object"}},
                        {"type": "object", "properties": {"orders": {"type": "array", "items": {"type": "object"}}}},
                    ]
                },
                "example": ORDERS_EXAMPLE,
            },
            "text/csv": {
                "schema": {"type": "string"},
                "example": 'order_id,address,slot_from,slot_to\nA-1001,"Mannerheimintie 5",10:00,14:00\n',
            },
        },
    }
}

CORRECTION_EXAMPLE = {"lat": 60.1699, "lon": 24.9384, "by": "anna"}


def orders_pages(desk: Desk, picture: Picture) -> APIRouter:
    """What was sold: taken in, corrected, asked about."""
    router = APIRouter(tags=["orders"])

    @router.post(
        "/api/orders",
        summary="Hand in orders",
        description='A JSON list, {"orders": [...]} or CSV as the body, with its content type (see docs/orders.md). '
        "Every row is answered: accepted, a repeat, doubtful (its place is not sure; nothing is guessed) or refused.",
        responses=documented(_TAKEN_EXAMPLE),
        openapi_extra=_ORDERS_BODY,
    )
    async def hand_in(
        request: Request,
        day: Annotated[
            str | None,
            Query(description="The day bare times (HH:MM) mean; the hub's day when absent", examples=["2026-11-23"]),
        ] = None,
    ) -> Json:
        body, is_csv = await _handed_body(request)
        return Json(await run_in_threadpool(take_orders, desk, picture, body, is_csv, day))

    @router.get("/api/orders", summary="Every order and what became of it")
    def orders(
        state: Annotated[Literal["accepted", "doubtful"] | None, Query(description="Only orders of this state")] = None,
    ) -> Json:
        return Json(picture.orders(state))

    @router.get("/api/orders/doubtful", summary="Orders that wait for somebody to say where they go")
    def doubtful() -> Json:
        return Json(picture.orders("doubtful"))

    @router.get(
        "/api/needs-you",
        summary="Orders that wait for a person, and why",
        description="Doubtful ones, and those whose last visit failed without anything that follows.",
    )
    def needs_you() -> Json:
        return Json(waiting_for_people(picture))

    @router.get("/api/orders/{order_id}", summary="One order", responses=missing("order"))
    def one_order(order_id: str) -> Json:
        return Json(found(picture.order(order_id), f"order '{order_id[:80]}' is unknown"))

    @router.get(
        "/api/orders/{order_id}/why",
        summary="Why this order is as it is",
        description="The decisions that touched it, oldest first: which van got it with what plan, every window told, "
        "each with the sentence a person reads.",
        responses=missing("order"),
    )
    def why(order_id: str) -> Json:
        found(picture.order(order_id), f"order '{order_id[:80]}' is unknown")
        return Json(picture.why(order_id))

    @router.post(
        "/api/orders/{order_id}/correction",
        summary="Say where a doubtful order goes",
        description="By one of its candidates (from 0) or by a position. The answer is remembered by the address text.",
        responses=missing("order"),
    )
    def correct(order_id: str, correction: Annotated[dict[str, Any], Body(examples=[CORRECTION_EXAMPLE])]) -> Json:
        return Json(correct_order(desk, picture, order_id, correction))

    return router


async def _handed_body(request: Request) -> tuple[bytes, bool]:
    """The body, and whether it is CSV. Raises Problem 415.

    Types a page may post without asking first (text/plain, a form, none at all) are refused, for a browser would hand
    in a foreign page's orders to a hub on its own machine (Fetch Standard, CORS-safelisted request headers).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "text/csv"):
        raise Problem(415, f"content type '{kind[:80]}', expected application/json or text/csv: say which it is")
    return await request.body(), kind == "text/csv"
