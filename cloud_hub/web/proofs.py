"""What shows that a visit happened: its scans, place and time, and the signature or photograph it names.

Pictures come from vans and are shown by browsers, so they are given out only as what they were declared to be, only
when their bytes have the digest they are asked by, and in a sandbox.
"""

import hashlib
import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Response

from cloud_hub.access.asking import sight
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.storage import HubStore
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, found, missing
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem
from shared.messages import ObjectPart
from shared.work import Stop, Visit, doubt_about_place

SHOWN_AS = {"image/png": "png", "image/jpeg": "jpg"}
"""Media types that are given out, and how their files end; a browser runs none of them."""

MOST_PARTS = 64
"""400 KB, which is the most a page hands in, come in far fewer."""

SANDBOXED = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_DIGEST = re.compile("[0-9a-f]{64}")


def proofs_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Proofs and the objects they name."""
    router = APIRouter(tags=["orders"])

    @router.get(
        "/api/orders/{order_id}/proof",
        summary="What shows that an order was visited",
        description="Every visit: outcome, instants, scans, place with its doubt, and the digests of signature and "
        "photograph, each with whether it has arrived.",
        responses=missing("order"),
    )
    def proof(order_id: str) -> Json:
        order = found(picture.one("orders", order_id, Order), f"order '{order_id[:80]}' is unknown")
        return Json(_proof(order, picture, desk.store))

    @router.get(
        "/api/objects/{digest}",
        summary="A signature or photograph",
        description="By its SHA-256. 404 until every piece of it has come from the van, and once it is forgotten.",
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in SHOWN_AS}}, **missing("object")},
    )
    def one_object(digest: Annotated[str, Path(description="64 hexadecimal digits")]) -> Response:
        if not _DIGEST.fullmatch(digest):
            raise Problem(422, "that is no digest, expected 64 hexadecimal digits")
        bound = sight()
        if bound is not None and not any(
            bound.sees("objects", key, document) for key, document in desk.store.documents("objects", f"{digest}/")
        ):
            raise Problem(404, f"object {digest[:12]}… is not here, or not all of it has come yet")
        media_type, content = assembled(desk.store, digest)
        named = f'inline; filename="{digest[:16]}.{SHOWN_AS[media_type]}"'
        return Response(content, media_type=media_type, headers=SANDBOXED | {"Content-Disposition": named})

    return router


def _proof(order: Order, picture: Picture, store: HubStore) -> dict[str, Any]:
    stops = {stop.stop_id: stop for stop in (order.stop, *order.amended) if stop is not None}
    visits = [
        _shown(stop, visit, order.is_forgotten, store)
        for stop in stops.values()
        for visit in _visits(picture.one("stops", stop.stop_id, StopRecord))
    ]
    return {
        "order_id": order.order_id,
        "is_forgotten": order.is_forgotten,
        "parcels": sorted({parcel.barcode for stop in stops.values() for parcel in stop.parcels}),
        "visits": sorted(visits, key=lambda shown: int(shown["arrived_ms"])),
    }


def _visits(record: StopRecord | None) -> tuple[Visit, ...]:
    return () if record is None else record.visits


def _shown(stop: Stop, visit: Visit, is_forgotten: bool, store: HubStore) -> dict[str, Any]:
    proof = visit.proof
    return {
        "stop_id": visit.stop_id,
        "attempt": stop.attempt,
        "service": stop.service,
        "outcome": visit.outcome.value,
        "reason": visit.reason,
        "arrived_ms": visit.arrived_ms,
        "left_ms": visit.left_ms,
        "scanned": list(proof.scanned),
        "parcels_left": list(visit.parcels_left),
        "age_checked": proof.age_checked,
        "place": None if proof.position is None else [proof.position.lat, proof.position.lon],
        "doubt_about_place": "" if is_forgotten else doubt_about_place(stop, visit),
        "objects": [
            {"kind": kind, "digest": digest, "has_arrived": _parts(store, digest) is not None}
            for kind, digest in (("signature", proof.signature), ("photo", proof.photo))
            if digest
        ],
    }


def assembled(store: HubStore, digest: str) -> tuple[str, bytes]:
    """The media type and the bytes of an object. Raises Problem 404 when it is not here, or not all of it, or not what
    its digest says; 415 when it is of a kind that is not given out.
    """
    parts = _parts(store, digest)
    if parts is None:
        raise Problem(404, f"object {digest[:12]}… is not here, or not all of it has come yet")
    content = b"".join(part.piece for part in parts)
    if hashlib.sha256(content).hexdigest() != digest:
        raise Problem(404, f"object {digest[:12]}… came damaged: its bytes have another digest")
    if parts[0].media_type not in SHOWN_AS:
        raise Problem(415, f"object {digest[:12]}… is not given out, expected one of {', '.join(SHOWN_AS)}")
    return parts[0].media_type, content


def _parts(store: HubStore, digest: str) -> list[ObjectPart] | None:
    """Every piece of an object in order; None while one is missing. The same picture may have been handed in at several
    stops: each has pieces of its own, so that forgetting one takes nothing from another.
    """
    found: dict[str, list[ObjectPart]] = {}
    for _, document in store.documents("objects", f"{digest}/"):
        part = _part.decode(document)
        found.setdefault(part.stop_id, []).append(part)
    for parts in found.values():
        parts.sort(key=lambda part: part.part)
        if len(parts) == parts[0].parts <= MOST_PARTS:
            return parts
    return None


_part = msgspec.json.Decoder(ObjectPart)
