"""The day over HTTP: vehicles, the plan, and how far it is driven."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Path

from cloud_hub.access.asking import hand, sight
from cloud_hub.events import DayPlanAsked, VehiclesSaid
from cloud_hub.fleet import Vehicle
from cloud_hub.settings import VehicleSetting, vehicle_objections, vehicle_of
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem


def day_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Vehicles and the day's plan."""
    router = APIRouter(tags=["day"])

    @router.post(
        "/api/day/plan",
        status_code=202,
        summary="Plan the day now",
        description="Every vehicle whose shift has not begun, every order that waits. The plan follows in seconds. "
        "Without a `day` the hub's own is planned. Vehicles nobody has named for that day work as the settings say; "
        "a refused plan (409) changes nothing.",
    )
    def plan(
        said: Annotated[dict[str, Any] | None, Body(examples=[{"day": "2026-11-23", "by": "anna"}])] = None,
    ) -> Json:
        asked = read(said or {}, _PlanIn)
        wanted = desk.day_named(asked.day).isoformat()
        vehicles = tuple(vehicle_of(setting, wanted, desk.settings.zone) for setting in desk.settings.vehicles)
        answer = desk.answer(DayPlanAsked(wanted, hand(asked.by), vehicles))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"day": wanted, "need": answer.named[0]}, status_code=202)

    @router.get("/api/day", summary="How far the day is planned and driven")
    def the_day() -> Json:
        return Json(day_shown(desk, picture))

    @router.get("/api/vehicles", summary="Vehicles and their drivers' day")
    def vehicles() -> Json:
        return Json(list(picture.all("vehicles", Vehicle).values()))

    @router.put(
        "/api/vehicles/{agent}",
        summary="Name a vehicle, or change its day",
        description="In local time, like the settings file's [[vehicles]].",
    )
    def vehicle(
        agent: Annotated[str, Path(max_length=64)],
        said: Annotated[
            dict[str, Any], Body(examples=[{"depot": "north", "shift_from": "08:00", "shift_to": "16:30"}])
        ],
    ) -> Json:
        setting = read({**said, "agent": agent}, VehicleSetting)
        day = desk.today()
        objections = vehicle_objections(setting, [d.id for d in desk.settings.depots], day, desk.settings.zone)
        if objections:
            raise Problem(422, objections[0])
        bound = sight()
        known = picture.whole.one("vehicles", agent, Vehicle)
        if bound is not None and not all(
            map(bound.sees_depot, {setting.depot, known.depot_id if known else setting.depot})
        ):
            raise Problem(
                403, f"vehicle '{agent}' loads, or would load, at a depot you are not bound to: ask its people"
            )
        vehicle = vehicle_of(setting, day, desk.settings.zone)
        for _, why_not in desk.answer(VehiclesSaid((vehicle,))).refused:
            raise Problem(409, f"vehicle '{agent}' keeps its day: {why_not}")
        return Json(vehicle)

    return router


class _PlanIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    day: str | None = None
    by: str = "the API"


def day_shown(desk: Desk, picture: Picture) -> dict[str, Any]:
    """The hub's day in numbers, and which orders wait and why."""
    orders = picture.orders(None)
    states: dict[str, int] = {}
    for order in orders:
        state = order["stop_state"] or order["state"]
        states[state] = states.get(state, 0) + 1
    return {
        "day": desk.today(),
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
