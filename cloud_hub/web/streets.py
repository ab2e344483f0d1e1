"""Streets over HTTP: found by name or place, closed and opened again."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Query

from cloud_hub.access.asking import hand
from cloud_hub.events import ClosuresAsked
from cloud_hub.roads import StreetUnknown, Way
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem
from shared.citymap import OffTheMap
from shared.quantities import Position

CLOSURE_EXAMPLE = {"ways": [4257431], "why": "burst water main", "by": "anna"}


class _ClosureIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ways: tuple[int, ...] = ()
    street: str = ""
    lat: float | None = None
    lon: float | None = None
    why: str = ""
    by: str = "the API"


def roads_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Streets, and which of them are closed."""
    router = APIRouter(tags=["roads"])

    @router.get("/api/roads/closures", summary="Streets that are closed now")
    def closures() -> Json:
        return Json(_closures_shown(desk, picture))

    @router.post(
        "/api/roads/closures",
        summary="Close a street",
        description="By OSM way ids, by the street's name, or by a point on it. Every van gets new leg times.",
    )
    def close(said: Annotated[dict[str, Any], Body(examples=[CLOSURE_EXAMPLE])]) -> Json:
        return Json(_change_closures(desk, picture, read(said, _ClosureIn), is_closed=True))

    @router.delete(
        "/api/roads/closures",
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

    @router.get("/api/roads/ways", summary="Find a street's ways")
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

    return router


def _change_closures(desk: Desk, picture: Picture, asked: _ClosureIn, is_closed: bool) -> dict[str, Any]:
    ways, street = _meant(desk, asked)
    if not ways and is_closed:
        raise Problem(422, "no way, street or position is named, expected one of them")
    if ways:
        desk.answer(ClosuresAsked(ways, is_closed, street, asked.why[:200], hand(asked.by)))
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
