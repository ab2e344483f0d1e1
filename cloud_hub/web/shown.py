"""The picture over HTTP: what is out there now, what was promised, decided and told, and why."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Query
from fastapi.responses import StreamingResponse

from cloud_hub.access.asking import hand, sight
from cloud_hub.access.sight import Sight
from cloud_hub.events import NoticeState, WindowAsked
from cloud_hub.fleet import AgentRecord
from cloud_hub.storage import DecisionsAsked
from cloud_hub.web.desk import Desk
from cloud_hub.web.feed import READINGS
from cloud_hub.web.forms import Json, found, missing, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Row
from shared.work import AgentId, OrderId

WINDOW_EXAMPLE = {"opens": "2026-11-23T12:00+02:00", "closes": "2026-11-23T13:30+02:00", "by": "anna"}

LOOKED_FOR_S = 5.0
"""How long a watcher is shown readings of the vehicles that were theirs."""


def picture_pages(desk: Desk, picture: Picture) -> APIRouter:
    """What is out there now, what was promised and why."""
    router = APIRouter(tags=["picture"])

    @router.get("/api/fleet", summary="Every agent: where it is, what it does, how late it is")
    def fleet() -> Json:
        return Json(picture.fleet())

    @router.get("/api/routes", summary="Planned, shown and driven order of every agent")
    def routes() -> Json:
        return Json(picture.routes())

    @router.get("/api/routes/{agent}", summary="One agent's route", responses=missing("agent"))
    def route(agent: str) -> Json:
        return Json(found(picture.route(agent), f"agent '{agent[:80]}' is unknown"))

    @router.get("/api/promises", summary="Slots, windows told with their history, and estimates")
    def promises() -> Json:
        return Json(picture.promises())

    @router.post(
        "/api/promises/{order_id}/window",
        summary="Tell a customer another window, by hand",
        description="Inside the slot. The customer gets a notice and the van is told.",
        responses=missing("order"),
    )
    def window(order_id: str, said: Annotated[dict[str, Any], Body(examples=[WINDOW_EXAMPLE])]) -> Json:
        asked = read(said, _WindowIn)
        told = TimeWindow(_instant(asked.opens), _instant(asked.closes))
        found(picture.order(order_id), f"order '{order_id[:80]}' is unknown")
        answer = desk.answer(WindowAsked(OrderId(order_id), told, hand(asked.by)))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"order_id": order_id, "told_ms": [told.opens_ms, told.closes_ms], "decision_id": answer.named[0]})

    @router.get(
        "/api/decisions",
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

    @router.get("/api/decisions/{decision_id:path}", summary="One decision", responses=missing("decision"))
    def decision(decision_id: str) -> Json:
        return Json(found(picture.decision(decision_id), f"decision '{decision_id[:80]}' is unknown"))

    @router.get("/api/chains", summary="How far each node's record of decisions holds")
    def chains() -> Json:
        return Json(picture.chains())

    @router.get("/api/notices", summary="What customers were told, and whether it arrived")
    def notices(
        state: Annotated[NoticeState | None, Query(description="Only of this state")] = None,
    ) -> Json:
        return Json(picture.notices(state))

    @router.get(
        "/api/telemetry/{agent}",
        summary="An agent's readings",
        description="Of one channel between two instants: as they were measured, or by the minute or hour with mean, "
        "least, most and number of samples, at the instant a bucket begins. Positions are not summed.",
        responses=missing("agent"),
    )
    def telemetry(
        agent: str,
        channel: Annotated[str | None, Query(description="One channel; the newest value of each when absent")] = None,
        from_ms: Annotated[int, Query(alias="from", ge=0, le=1 << 53)] = 0,
        to_ms: Annotated[int, Query(alias="to", ge=0, le=1 << 53)] = 1 << 53,
        most: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
        per: Annotated[Literal["raw", "1min", "1h"], Query(description="Raw readings, or sums by so much")] = "raw",
    ) -> Json:
        found(picture.one("agents", agent, AgentRecord), f"agent '{agent[:80]}' is unknown")
        if channel is None:
            latest = desk.telemetry.latest(AgentId(agent))
            return Json({name: {"at_ms": at_ms, "value": value} for name, (at_ms, value) in latest.items()})
        if per == "raw":
            readings = desk.telemetry.read(AgentId(agent), channel, from_ms, to_ms, most)
            return Json({"channel": channel, "at_ms": readings.at_ms.tolist(), "values": readings.values.tolist()})
        sums = desk.telemetry.summed(AgentId(agent), channel, from_ms, to_ms, per, most)
        columns = {name: column.tolist() for name, column in sums._asdict().items()}
        return Json({"channel": channel, "per": per, **columns})

    @router.get(
        "/api/feed",
        summary="Changes as they are committed",
        description="Server-sent events; the event's name is the room (agents, stops, promises, decisions ...), or "
        "`readings` when an agent's readings came, at most once a second for each.",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def feed() -> StreamingResponse:
        return StreamingResponse(
            desk.feed.watch(_seeing(sight())), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return router


def _seeing(bound: Sight | None) -> Callable[[Row], bool]:
    """Which rows a watcher is shown. One who is bound sees them as things belong when they change: a fresh look each
    time, for vehicles and orders move between depots. What is erased has no owner any more and is told to nobody bound.
    """
    if bound is None:
        return lambda _: True
    lately = [(0.0, bound)]

    def sees(row: Row) -> bool:
        if row.value is None:
            return False
        if row.room != READINGS:
            return bound.afresh().sees(row.room, row.key, row.value)
        # Of every vehicle one a second, and they say nothing but that it speaks: one look for some seconds.
        looked_s, sight = lately[0]
        if time.monotonic() - looked_s > LOOKED_FOR_S:
            sight = bound.afresh()
            lately[0] = (time.monotonic(), sight)
        return not sight.is_partners and sight.sees_agent(row.key)

    return sees


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
