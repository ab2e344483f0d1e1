"""The hub's HTTP interface: orders in, the day planned, and everything asked about.

What changes something is asked of the core and answered after its commit; what only looks reads the store.
"""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Body, FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.datastructures import UploadFile

from cloud_hub import intake
from cloud_hub.events import (
    Answer,
    ClosuresAsked,
    DayPlanAsked,
    OrderCorrected,
    OrdersHanded,
    VehiclesSaid,
    WindowAsked,
)
from cloud_hub.fleet import AgentRecord, Candidate, DeadLetter, Order, Vehicle
from cloud_hub.geocode import Correction, Corrections, Geocoder, normal_text
from cloud_hub.roads import Roads, StreetUnknown, Way
from cloud_hub.settings import HubSettings, VehicleSetting, today, vehicle_objections, vehicle_of
from cloud_hub.storage import DecisionsAsked, HubStore, TelemetryStore
from cloud_hub.web.feed import Feed
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import BodyLimit, Problem, answer_with_problems
from shared.citymap import OffTheMap
from shared.clock import Clock
from shared.quantities import EpochMs, Position, TimeWindow
from shared.work import AgentId, OrderId

ANSWER_PATIENCE_S = 30.0

DESCRIPTION = """
Orders in, plans out, windows kept, and a reason for everything.

Instants are whole milliseconds since 1970-01-01T00:00Z in the hub's domain time, in fields that end in `_ms`; windows
are pairs of them. Durations end in `_s` (seconds). Positions are WGS 84 degrees, latitude first. Every error is
problem+json (RFC 9457).
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything the interface works with."""

    settings: HubSettings
    store: HubStore
    telemetry: TelemetryStore
    ask: Callable[[Any], "Future[Any]"]
    feed: Feed
    roads: Roads
    geocoder: Geocoder
    clock: Clock
    registry: CollectorRegistry
    is_ready: Callable[[], str]
    """Why the hub cannot do its work now, in words; "" when it can."""


class Json(Response):
    """JSON by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of a value made of dicts, lists and structs."""
        return msgspec.json.encode(content)


def make_app(desk: Desk) -> FastAPI:
    """The application. Its routes are the parts below, each a page of the same book."""
    app = FastAPI(
        title="Waywarden hub",
        version="1",
        description=DESCRIPTION,
        default_response_class=Json,
        openapi_tags=[
            {"name": "orders", "description": "What was sold: taken in, corrected, asked about."},
            {"name": "day", "description": "Vehicles and the day's plan."},
            {"name": "picture", "description": "What is out there now, what was promised and why."},
            {"name": "roads", "description": "Streets, and which of them are closed."},
            {"name": "health", "description": "For those who run the hub."},
        ],
    )
    answer_with_problems(app)
    app.add_middleware(BodyLimit, most_bytes=desk.settings.most_body_bytes)
    picture = Picture(desk.store, desk.telemetry)
    _orders(app, desk, picture)
    _day(app, desk, picture)
    _shown(app, desk, picture)
    _roads(app, desk, picture)
    _health(app, desk, picture)
    return app


# Orders.

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
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


def _orders(app: FastAPI, desk: Desk, picture: Picture) -> None:
    @app.post(
        "/api/orders",
        tags=["orders"],
        summary="Hand in orders",
        description='A JSON list, {"orders": [...]}, CSV as the body, or a file as form data (see docs/orders.md). '
        "Every row is answered: accepted, a repeat, doubtful (its place is not sure; nothing is guessed) or refused.",
        responses=_documented(_TAKEN_EXAMPLE),
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
        return Json(await run_in_threadpool(_take_orders, desk, picture, body, is_csv, day))

    @app.get("/api/orders", tags=["orders"], summary="Every order and what became of it")
    def orders(
        state: Annotated[Literal["accepted", "doubtful"] | None, Query(description="Only orders of this state")] = None,
    ) -> Json:
        return Json(picture.orders(state))

    @app.get("/api/orders/doubtful", tags=["orders"], summary="Orders that wait for somebody to say where they go")
    def doubtful() -> Json:
        return Json(picture.orders("doubtful"))

    @app.get("/api/orders/{order_id}", tags=["orders"], summary="One order", responses=_missing("order"))
    def one_order(order_id: str) -> Json:
        return Json(_found(picture.order(order_id), f"order '{order_id[:80]}' is unknown"))

    @app.get(
        "/api/orders/{order_id}/why",
        tags=["orders"],
        summary="Why this order is as it is",
        description="The decisions that touched it, oldest first, each with the sentence a person reads.",
        responses=_missing("order"),
    )
    def why(order_id: str) -> Json:
        _found(picture.order(order_id), f"order '{order_id[:80]}' is unknown")
        chain = picture.why(order_id)
        return Json({"order_id": order_id, "sentences": [step["sentence"] for step in chain], "decisions": chain})

    @app.post(
        "/api/orders/{order_id}/correction",
        tags=["orders"],
        summary="Say where a doubtful order goes",
        description="By one of its candidates (from 0) or by a position. The answer is remembered by the address text.",
        responses=_missing("order"),
    )
    def correct(order_id: str, correction: Annotated[dict[str, Any], Body(examples=[CORRECTION_EXAMPLE])]) -> Json:
        return Json(_correct(desk, picture, order_id, correction))


CORRECTION_EXAMPLE = {"lat": 60.1699, "lon": 24.9384, "by": "anna"}


class _CorrectionIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: str
    lat: float | None = None
    lon: float | None = None
    candidate: int | None = None


async def _handed_body(request: Request) -> tuple[bytes, bool]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await request.form()
        for _, part in form.multi_items():
            if isinstance(part, UploadFile):
                body = await part.read()
                name = (part.filename or "").lower()
                return body, not (name.endswith(".json") or body.lstrip()[:1] in (b"[", b"{"))
        raise Problem(422, "the form has no file, expected one part with a file of orders")
    body = await request.body()
    if kind in ("text/csv", "application/csv", "text/plain", "application/vnd.ms-excel"):
        return body, True
    if kind in ("application/json", ""):
        return body, False
    raise Problem(415, f"content type '{kind[:80]}', expected application/json, text/csv or multipart/form-data")


def _take_orders(desk: Desk, picture: Picture, body: bytes, is_csv: bool, day: str | None) -> dict[str, Any]:
    counter = _counter(desk, picture, day)
    try:
        taken = (intake.take_csv if is_csv else intake.take_json)(body, counter)
    except intake.OrdersUnreadable as wrong:
        raise Problem(422, str(wrong)) from None
    now_ms = desk.clock.now_ms()
    orders = [
        *(_accepted(order, now_ms) for order in taken.accepted if not order.is_repeat),
        *(_doubted(order, now_ms) for order in taken.doubtful),
    ]
    answer = _asked(desk, OrdersHanded(tuple(orders))) if orders else Answer(True)
    late = dict(answer.refused)
    accepted = [order for order in taken.accepted if not order.is_repeat and order.order_id not in late]
    return {
        "accepted": [order.order_id for order in accepted],
        "repeats": [order.order_id for order in taken.accepted if order.is_repeat],
        "doubtful": [
            {
                "row": doubt.row_number,
                "order_id": doubt.order.order_id,
                "what_found": doubt.what_found,
                "do": doubt.do,
                "candidates": [_candidate(place) for place in doubt.candidates],
            }
            for doubt in taken.doubtful
            if doubt.order.order_id not in late
        ],
        "refused": [
            *msgspec.to_builtins(taken.refused),
            *(
                {"row_number": 0, "order_id": order_id, "what_found": why, "expected": "an order not planned yet",
                 "do": "give a new order_id"}
                for order_id, why in late.items()
            ),
        ],
        "notices": list(taken.notices),
    }  # fmt: skip


def _counter(desk: Desk, picture: Picture, day: str | None) -> intake.Desk:
    """What the intake knows before it reads: the orders and parcels taken, and what people said of addresses."""
    orders = [order for order in picture.all("orders", Order).values() if order.state == "accepted"]
    remembered = picture.all("corrections", Correction)
    return intake.Desk(
        geocoder=desk.geocoder,
        zone=desk.settings.zone,
        day=_day_of(desk, day),
        corrections=Corrections(remembered),
        known={order.order_id: order.fingerprint for order in orders},
        parcels_held={
            parcel.barcode: order.order_id
            for order in orders
            if order.stop is not None
            for parcel in order.stop.parcels
        },
        bounds=desk.roads.city.bounds,
    )


def _day_of(desk: Desk, day: str | None) -> date:
    try:
        return date.fromisoformat(day or _hub_day(desk))
    except ValueError:
        raise Problem(422, f"day is '{(day or '')[:40]}', expected YYYY-MM-DD") from None


def _hub_day(desk: Desk) -> str:
    return desk.settings.day or today(desk.clock.now_ms(), desk.settings.zone)


def _accepted(order: intake.OrderAccepted, now_ms: EpochMs) -> Order:
    stop = intake.to_stop(order, order.slot)
    return Order(order.order_id, "accepted", now_ms, "", order.fingerprint, stop)


def _doubted(doubt: intake.Doubtful, now_ms: EpochMs) -> Order:
    entry = msgspec.json.encode(doubt.order).decode()
    candidates = tuple(
        Candidate(place.address, place.position.lat, place.position.lon, place.confidence) for place in doubt.candidates
    )
    return Order(
        OrderId(doubt.order.order_id), "doubtful", now_ms, entry, intake.fingerprint(doubt.order), None,
        (doubt.what_found, doubt.do), candidates,
    )  # fmt: skip


def _candidate(place: Any) -> dict[str, Any]:
    return {
        "address": place.address,
        "lat": place.position.lat,
        "lon": place.position.lon,
        "confidence": round(place.confidence, 3),
        "reason": place.reason,
    }


def _correct(desk: Desk, picture: Picture, order_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    asked = _read(body, _CorrectionIn)
    order = picture.one("orders", order_id, Order)
    if order is None:
        raise Problem(404, f"order '{order_id[:80]}' is unknown")
    if order.state != "doubtful":
        raise Problem(409, f"order '{order_id}' is {order.state}, expected a doubtful one")
    position = _corrected_place(asked, order)
    entry = msgspec.json.decode(order.entry, type=intake.OrderIn)
    said = Correction(position, asked.by)
    text = entry.address.strip()
    known = picture.all("corrections", Correction)
    counter = _counter(desk, picture, None)
    if text:
        known[normal_text(text)] = said
        corrected = entry
    else:
        corrected = msgspec.structs.replace(entry, lat=position.lat, lon=position.lon)
    counter = intake.Desk(
        counter.geocoder, counter.zone, None if _has_date(entry) else counter.day, Corrections(known), counter.known,
        counter.parcels_held, None, counter.bounds,
    )  # fmt: skip
    taken = intake.take_orders([corrected], counter)
    if not taken.accepted:
        wrong = taken.doubtful[0].what_found if taken.doubtful else taken.refused[0].what_found
        raise Problem(422, f"order '{order_id}' is still not accepted: {wrong}")
    remembered = (normal_text(text), msgspec.json.encode(said).decode()) if text else None
    accepted = _accepted(taken.accepted[0], desk.clock.now_ms())
    answer = _asked(desk, OrderCorrected(accepted, asked.by, remembered))
    if not answer.is_done:
        raise Problem(409, answer.why_not)
    shown: dict[str, Any] = _found(picture.order(order_id), f"order '{order_id[:80]}' is unknown")
    return shown


def _has_date(entry: intake.OrderIn) -> bool:
    return len(entry.slot_from.strip()) > len("00:00:00")


def _corrected_place(asked: _CorrectionIn, order: Order) -> Position:
    if asked.candidate is not None:
        if not 0 <= asked.candidate < len(order.candidates):
            raise Problem(422, f"candidate {asked.candidate}, expected 0 to {len(order.candidates) - 1}")
        chosen = order.candidates[asked.candidate]
        return Position(chosen.lat, chosen.lon)
    if asked.lat is None or asked.lon is None:
        raise Problem(422, "neither a candidate nor lat and lon, expected one of them")
    if not (-90 <= asked.lat <= 90 and -180 <= asked.lon <= 180):
        raise Problem(422, f"{asked.lat}, {asked.lon} is no place, expected degrees")
    return Position(asked.lat, asked.lon)


# The day.


def _day(app: FastAPI, desk: Desk, picture: Picture) -> None:
    @app.post(
        "/api/day/plan",
        tags=["day"],
        status_code=202,
        summary="Plan the day now",
        description="Every vehicle whose shift has not begun, every order that waits. The plan follows in seconds. "
        "Without a `day` the hub's own is planned.",
    )
    def plan(
        said: Annotated[dict[str, Any] | None, Body(examples=[{"day": "2026-11-23", "by": "anna"}])] = None,
    ) -> Json:
        asked = _read(said or {}, _PlanIn)
        wanted = _day_of(desk, asked.day).isoformat()
        _say_vehicles(desk, picture, wanted)
        answer = _asked(desk, DayPlanAsked(wanted, asked.by[:64]))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"day": wanted, "need": answer.named[0]}, status_code=202)

    @app.get("/api/day", tags=["day"], summary="How far the day is planned and driven")
    def the_day() -> Json:
        return Json(_day_shown(desk, picture))

    @app.get("/api/vehicles", tags=["day"], summary="Vehicles and their drivers' day")
    def vehicles() -> Json:
        return Json(list(picture.all("vehicles", Vehicle).values()))

    @app.put(
        "/api/vehicles/{agent}",
        tags=["day"],
        summary="Name a vehicle, or change its day",
        description="In local time, like the settings file's [[vehicles]].",
    )
    def vehicle(
        agent: Annotated[str, Path(max_length=64)],
        said: Annotated[
            dict[str, Any], Body(examples=[{"depot": "north", "shift_from": "08:00", "shift_to": "16:30"}])
        ],
    ) -> Json:
        setting = _read({**said, "agent": agent}, VehicleSetting)
        day = _hub_day(desk)
        objections = vehicle_objections(setting, [d.id for d in desk.settings.depots], day, desk.settings.zone)
        if objections:
            raise Problem(422, objections[0])
        vehicle = vehicle_of(setting, day, desk.settings.zone)
        for _, why_not in _asked(desk, VehiclesSaid((vehicle,))).refused:
            raise Problem(409, f"vehicle '{agent}' keeps its day: {why_not}")
        return Json(vehicle)


class _PlanIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    day: str | None = None
    by: str = "the API"


def _say_vehicles(desk: Desk, picture: Picture, day: str) -> None:
    """Another day than the one the vehicles were last named for: name them for it, as the settings say."""
    known = picture.all("vehicles", Vehicle)
    moved = tuple(
        vehicle_of(setting, day, desk.settings.zone)
        for setting in desk.settings.vehicles
        if setting.agent not in known or known[setting.agent].day != day
    )
    if moved:
        _asked(desk, VehiclesSaid(moved))


def _day_shown(desk: Desk, picture: Picture) -> dict[str, Any]:
    orders = picture.orders(None)
    states: dict[str, int] = {}
    for order in orders:
        state = order["stop_state"] or order["state"]
        states[state] = states.get(state, 0) + 1
    return {
        "day": _hub_day(desk),
        "now_ms": desk.clock.now_ms(),
        "orders": len(orders),
        "orders_by_state": dict(sorted(states.items())),
        "is_planning": bool(desk.store.documents("needs")),
        "waiting": [
            {"order_id": order["order_id"], "why": order["why_waiting"]}
            for order in orders
            if order["stop_state"] == "waiting"
        ],
    }


# The picture.


def _shown(app: FastAPI, desk: Desk, picture: Picture) -> None:
    @app.get("/api/fleet", tags=["picture"], summary="Every agent: where it is, what it does, how late it is")
    def fleet() -> Json:
        return Json(picture.fleet())

    @app.get("/api/routes", tags=["picture"], summary="Planned, shown and driven order of every agent")
    def routes() -> Json:
        return Json(picture.routes())

    @app.get("/api/routes/{agent}", tags=["picture"], summary="One agent's route", responses=_missing("agent"))
    def route(agent: str) -> Json:
        return Json(_found(picture.route(agent), f"agent '{agent[:80]}' is unknown"))

    @app.get("/api/promises", tags=["picture"], summary="Slots, windows told with their history, and estimates")
    def promises() -> Json:
        return Json(picture.promises())

    @app.post(
        "/api/promises/{order_id}/window",
        tags=["picture"],
        summary="Tell a customer another window, by hand",
        description="Inside the slot. The customer gets a notice and the van is told.",
        responses=_missing("order"),
    )
    def window(order_id: str, said: Annotated[dict[str, Any], Body(examples=[WINDOW_EXAMPLE])]) -> Json:
        asked = _read(said, _WindowIn)
        told = TimeWindow(_instant(asked.opens), _instant(asked.closes))
        _found(picture.order(order_id), f"order '{order_id[:80]}' is unknown")
        answer = _asked(desk, WindowAsked(OrderId(order_id), told, asked.by))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"order_id": order_id, "told_ms": [told.opens_ms, told.closes_ms], "decision_id": answer.named[0]})

    @app.get(
        "/api/decisions",
        tags=["picture"],
        summary="What was decided on its own, and why",
        description="In the order of the hub's commits. `after` continues behind a decision's `number`.",
    )
    def decisions(
        agent: Annotated[str | None, Query(description="Whose: an agent, or `hub`")] = None,
        kind: Annotated[str | None, Query(description="Of this kind, such as window_moved")] = None,
        about: Annotated[str | None, Query(description="About this order, stop, agent, street or decision")] = None,
        after: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
        most: Annotated[int, Query(ge=1, le=5000)] = 200,
        newest_first: bool = False,
    ) -> Json:
        return Json(picture.decisions(DecisionsAsked(agent, kind, about, after, most, newest_first)))

    @app.get(
        "/api/decisions/{decision_id:path}", tags=["picture"], summary="One decision", responses=_missing("decision")
    )
    def decision(decision_id: str) -> Json:
        return Json(_found(picture.decision(decision_id), f"decision '{decision_id[:80]}' is unknown"))

    @app.get("/api/chains", tags=["picture"], summary="How far each node's record of decisions holds")
    def chains() -> Json:
        return Json(picture.chains())

    @app.get(
        "/api/dead-letters",
        tags=["picture"],
        summary="Messages that were taken and could not be acted upon",
        description="Each with its sender, its place in the stream, the reason, and what was said.",
    )
    def dead_letters() -> Json:
        return Json(list(picture.all("dead_letters", DeadLetter).values()))

    @app.get("/api/notices", tags=["picture"], summary="What customers were told, and whether it arrived")
    def notices(
        state: Annotated[
            Literal["due", "delivered", "given_up", "kept"] | None, Query(description="Only of this state")
        ] = None,
    ) -> Json:
        return Json(picture.notices(state))

    @app.get("/api/telemetry/{agent}", tags=["picture"], summary="An agent's readings", responses=_missing("agent"))
    def telemetry(
        agent: str,
        channel: Annotated[str | None, Query(description="One channel; the newest value of each when absent")] = None,
        from_ms: Annotated[int, Query(alias="from", ge=0, le=1 << 53)] = 0,
        to_ms: Annotated[int, Query(alias="to", ge=0, le=1 << 53)] = 1 << 53,
        most: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
    ) -> Json:
        _found(picture.one("agents", agent, AgentRecord), f"agent '{agent[:80]}' is unknown")
        if channel is None:
            latest = desk.telemetry.latest(AgentId(agent))
            return Json({name: {"at_ms": at_ms, "value": value} for name, (at_ms, value) in latest.items()})
        found = desk.telemetry.read(AgentId(agent), channel, from_ms, to_ms, most)
        return Json({"channel": channel, "at_ms": found.at_ms.tolist(), "values": found.values.tolist()})

    @app.get(
        "/api/feed",
        tags=["picture"],
        summary="Changes as they are committed",
        description="Server-sent events; the event's name is the room (agents, stops, promises, decisions ...).",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def feed() -> StreamingResponse:
        return StreamingResponse(
            desk.feed.watch(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )


WINDOW_EXAMPLE = {"opens": "2026-11-23T12:00+02:00", "closes": "2026-11-23T13:30+02:00", "by": "anna"}


class _WindowIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    opens: str
    closes: str
    by: str


def _instant(text: str) -> EpochMs:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 2000 <= moment.year <= 2100:
        raise Problem(422, f"'{text[:40]}' is no instant, expected ISO 8601 with a zone like 2026-11-23T12:00+02:00")
    return EpochMs(int(moment.astimezone(UTC).timestamp() * 1000))


# Roads.

CLOSURE_EXAMPLE = {"ways": [4257431], "why": "burst water main", "by": "anna"}


class _ClosureIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ways: tuple[int, ...] = ()
    street: str = ""
    lat: float | None = None
    lon: float | None = None
    why: str = ""
    by: str = "the API"


def _roads(app: FastAPI, desk: Desk, picture: Picture) -> None:
    @app.get("/api/roads/closures", tags=["roads"], summary="Streets that are closed now")
    def closures() -> Json:
        return Json(_closures_shown(desk, picture))

    @app.post(
        "/api/roads/closures",
        tags=["roads"],
        summary="Close a street",
        description="By OSM way ids, by the street's name, or by a point on it. Every van gets new leg times.",
    )
    def close(said: Annotated[dict[str, Any], Body(examples=[CLOSURE_EXAMPLE])]) -> Json:
        return Json(_change_closures(desk, picture, _read(said, _ClosureIn), is_closed=True))

    @app.delete(
        "/api/roads/closures",
        tags=["roads"],
        summary="Open a street again",
        description="By way ids, by name, or every closed street when neither is given.",
    )
    def reopen(
        way: Annotated[list[int] | None, Query(description="OSM way ids")] = None,
        street: Annotated[str, Query(description="The street's name", max_length=200)] = "",
        by: Annotated[str, Query(description="Who asks", max_length=64)] = "the API",
    ) -> Json:
        ways = tuple(way or ())
        if not ways and not street:
            ways = tuple(picture.closures().ways)
        return Json(_change_closures(desk, picture, _ClosureIn(ways, street, why="open again", by=by), is_closed=False))

    @app.get("/api/roads/ways", tags=["roads"], summary="Find a street's ways")
    def ways(
        near: Annotated[
            str | None, Query(description="lat,lon of a point on the street", examples=["60.1699,24.9384"])
        ] = None,
        street: Annotated[str | None, Query(description="The street's name, or part of it", max_length=200)] = None,
    ) -> Json:
        if near is not None:
            return Json([_way_at(desk, near)])
        if street is None:
            raise Problem(422, "neither near nor street, expected one of them")
        return Json(_named(desk, street))


def _change_closures(desk: Desk, picture: Picture, asked: _ClosureIn, is_closed: bool) -> dict[str, Any]:
    ways, street = _meant(desk, asked)
    if not ways and is_closed:
        raise Problem(422, "no way, street or position is named, expected one of them")
    if ways:
        _asked(desk, ClosuresAsked(ways, is_closed, street, asked.why[:200], asked.by[:64]))
    return _closures_shown(desk, picture)


def _meant(desk: Desk, asked: _ClosureIn) -> tuple[tuple[int, ...], str]:
    try:
        if asked.ways:
            found: Sequence[Way] = [desk.roads.way(way) for way in asked.ways]
        elif asked.street:
            found = _named(desk, asked.street)
        elif asked.lat is not None and asked.lon is not None:
            found = [_way_at(desk, f"{asked.lat},{asked.lon}")]
        else:
            return (), ""
    except StreetUnknown as unknown:
        raise Problem(404, str(unknown)) from None
    return tuple(way.way for way in found), ", ".join(dict.fromkeys(way.street for way in found if way.street))


def _named(desk: Desk, street: str) -> Sequence[Way]:
    try:
        return desk.roads.ways_named(street)
    except StreetUnknown as unknown:
        raise Problem(404, str(unknown)) from None


def _way_at(desk: Desk, near: str) -> Way:
    lat, comma, lon = near.partition(",")
    try:
        position = Position(float(lat), float(lon))
    except ValueError:
        raise Problem(422, f"near is '{near[:60]}', expected lat,lon in degrees") from None
    if not comma or not (-90 <= position.lat <= 90 and -180 <= position.lon <= 180):
        raise Problem(422, f"near is '{near[:60]}', expected lat,lon in degrees")
    try:
        return desk.roads.way_at(position)
    except OffTheMap as off:
        raise Problem(404, str(off)) from None


def _closures_shown(desk: Desk, picture: Picture) -> dict[str, Any]:
    closures = picture.closures()
    shown = []
    for way, why in closures.ways.items():
        try:
            shown.append({**msgspec.to_builtins(desk.roads.way(way)), "why": why})
        except StreetUnknown:
            shown.append({"way": way, "street": "", "why": why})
    return {"version": closures.version, "closed": shown}


# Health.


def _health(app: FastAPI, desk: Desk, picture: Picture) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the process lives")
    def healthz() -> Json:
        return Json({"status": "live"})

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Whether the hub can do its work",
        responses={503: {"description": "It cannot"}},
    )
    def readyz() -> Json:
        why_not = desk.is_ready()
        if why_not:
            raise Problem(503, why_not)
        return Json({"status": "ready"})

    @app.get("/metrics", tags=["health"], summary="Counters for Prometheus", response_class=Response)
    def metrics() -> Response:
        return Response(generate_latest(desk.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def home() -> HTMLResponse:
        return HTMLResponse(_home(app, _day_shown(desk, picture), picture.fleet()))


def _home(app: FastAPI, day: Mapping[str, Any], fleet: Sequence[Mapping[str, Any]]) -> str:
    states = ", ".join(f"{count} {html.escape(state)}" for state, count in day["orders_by_state"].items()) or "none yet"
    vans = "".join(
        f"<tr><td>{html.escape(van['agent'])}<td>{'there' if van['is_there'] else 'away'}"
        f"<td>{html.escape(van['shift'])}"
        f"<td>{van['stops_done']} / {van['stops_done'] + van['stops_left']}<td>{van['late_s'] // 60} min"
        for van in fleet
    )
    doors = "".join(
        f"<li><a href='{path}'>{path}</a>"
        for path, methods in sorted(app.openapi()["paths"].items())
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


# Shared by the pages.


def _asked(desk: Desk, event: Any) -> Answer:
    """Ask the core, and wait for its commit."""
    try:
        answer: Answer = desk.ask(event).result(ANSWER_PATIENCE_S)
    except TimeoutError:
        raise Problem(503, f"the hub's core gave no answer in {ANSWER_PATIENCE_S:.0f} s; ask again") from None
    return answer


def _read(body: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as wrong:
        raise Problem(422, str(wrong)) from None


def _found(what: Any, why_not: str) -> Any:
    if what is None:
        raise Problem(404, why_not)
    return what


def _missing(what: str) -> dict[int | str, dict[str, Any]]:
    return {404: {"description": f"The {what} is unknown", "content": {"application/problem+json": {}}}}


def _documented(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": json.loads(json.dumps(example))}}}}
