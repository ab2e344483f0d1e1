"""What happens to orders at the counter: a file of them is taken row by row, a doubtful one is corrected."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace as replaced

from cloud_hub import intake
from cloud_hub.access.asking import caller, hand
from cloud_hub.contacts import Customer
from cloud_hub.events import Answer, OrderCorrected, OrdersHanded
from cloud_hub.fleet import Candidate, Order
from cloud_hub.geocode import Correction, Corrections, normal_text
from cloud_hub.order_rows import Refused, without_contact
from cloud_hub.orderbook import ANOTHERS, ANOTHERS_CUSTOMER
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import found, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem
from shared.citymap import OffTheMap
from shared.quantities import EpochMs, Position
from shared.work import OrderId


class _CorrectionIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: str
    lat: float | None = None
    lon: float | None = None
    candidate: int | None = None


NOT_YOURS = "it names a partner that is not yours"
NOT_PLANNED = "an order not planned yet"
_EXPECTED = {
    NOT_YOURS: "your own name or none", ANOTHERS: "a number of your own",
    ANOTHERS_CUSTOMER: "a reference of your own",
}  # fmt: skip
_DO = {NOT_YOURS: "leave partner out", ANOTHERS_CUSTOMER: "give another customer_ref"}


def take_orders(desk: Desk, picture: Picture, body: bytes, is_csv: bool, day: str | None) -> dict[str, Any]:
    """Take a body of orders, and say of every row what became of it. Raises Problem 422 when nothing can be read."""
    known = _intake_desk(desk, picture, day)
    try:
        taken = (intake.take_csv if is_csv else intake.take_json)(body, known)
    except intake.OrdersUnreadable as wrong:
        raise Problem(422, str(wrong)) from None
    now_ms = desk.clock.now_ms()
    taken, strange = _of_the_caller(taken, picture)
    depots = _depots_of_the_caller()
    orders = [
        *(_accepted(order, now_ms, depots) for order in taken.accepted if not order.is_repeat),
        *(_doubted(order, now_ms, depots) for order in taken.doubtful),
    ]
    answer = desk.answer(OrdersHanded(tuple(orders), taken.customers)) if orders or taken.customers else Answer(True)
    late = dict(answer.refused) | strange
    accepted = [order for order in taken.accepted if not order.is_repeat and order.order_id not in late]
    return {
        "accepted": [order.order_id for order in accepted],
        "places": {
            order.order_id: {
                "address": order.found_address, "confidence": round(order.confidence, 3), "reason": order.reason
            }
            for order in accepted
        },
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
                {"row_number": 0, "order_id": order_id, "what_found": why, "expected": _EXPECTED.get(why, NOT_PLANNED),
                 "do": _DO.get(why, "give a new order_id")}
                for order_id, why in late.items()
            ),
        ],
        "notices": list(taken.notices),
    }  # fmt: skip


def _of_the_caller(taken: intake.Intake, picture: Picture) -> tuple[intake.Intake, dict[str, str]]:
    """The rows as theirs who hands them in, and which of them are somebody else's, with why. A partner's orders carry
    its name whether they say so or not; what it may not know of is not repeated to it.
    """
    who = caller()
    partner = "" if who is None else who.partner
    strange: dict[str, str] = {}
    known = {order_id: order.partner for order_id, order in picture.whole.all("orders", Order).items()}

    def is_theirs(order_id: str, said: str) -> bool:
        whose = (partner or said).strip()
        if partner and said.strip() not in ("", partner):
            strange[order_id] = NOT_YOURS
        elif known.get(order_id, whose) != whose:
            strange[order_id] = ANOTHERS
        return order_id not in strange

    accepted = [order for order in taken.accepted if is_theirs(order.order_id, order.partner)]
    doubtful = [doubt for doubt in taken.doubtful if is_theirs(doubt.order.order_id, doubt.order.partner)]
    named = {order.customer_ref for order in accepted}
    named |= {doubt.order.customer_ref or doubt.order.order_id for doubt in doubtful}
    customers = [customer for customer in taken.customers if customer.customer_ref in named]
    refused = [_without_others(row) for row in taken.refused] if partner else list(taken.refused)
    if partner:
        accepted = [replaced(order, partner=partner) for order in accepted]
        doubtful = [replaced(doubt, order=replaced(doubt.order, partner=partner)) for doubt in doubtful]
    ours = replaced(
        taken, accepted=tuple(accepted), doubtful=tuple(doubtful), customers=tuple(customers), refused=tuple(refused)
    )
    return ours, strange


def _without_others(row: Refused) -> Refused:
    """A refused row without the number of the order that has the parcel already: it may be another partner's."""
    found = row.what_found
    if found.startswith("parcel ") and ", which is in order " in found:
        return replaced(row, what_found=f"{found.partition(', which is in order ')[0]}, which is in another order")
    return row


def _depots_of_the_caller() -> tuple[str, ...]:
    who = caller()
    return () if who is None or who.depots is None else who.depots


def _intake_desk(desk: Desk, picture: Picture, day: str | None) -> intake.Desk:
    """What the intake knows before it reads: the orders and parcels taken, and what people said of addresses."""
    picture = picture.whole
    orders = [order for order in picture.all("orders", Order).values() if order.state == "accepted"]
    remembered = picture.all("corrections", Correction)
    return intake.Desk(
        geocoder=desk.geocoder,
        zone=desk.settings.zone,
        day=desk.day_named(day),
        corrections=Corrections(remembered),
        known={order.order_id: order.fingerprint for order in orders},
        parcels_held={
            parcel.barcode: order.order_id
            for order in orders
            if order.stop is not None
            for parcel in order.stop.parcels
        },
        bounds=desk.roads.city.bounds,
        why_no_drive=partial(_why_no_drive, desk),
        languages={ref: customer.language for ref, customer in picture.all("customers", Customer).items()},
        language=desk.settings.notices.language,
        country_code=desk.settings.notices.country_code,
    )


def _why_no_drive(desk: Desk, position: Position) -> str:
    try:
        desk.roads.city.snap(position)
    except OffTheMap as off:
        return str(off)
    return ""


def _accepted(order: intake.OrderAccepted, now_ms: EpochMs, depots: tuple[str, ...]) -> Order:
    stop = intake.to_stop(order, order.slot)
    return Order(
        order.order_id, "accepted", now_ms, "", order.fingerprint, stop,
        confidence=order.confidence, place_reason=order.reason, customer_ref=order.customer_ref,
        partner=order.partner, depots=depots,
    )  # fmt: skip


def _doubted(doubt: intake.Doubtful, now_ms: EpochMs, depots: tuple[str, ...]) -> Order:
    # Who waits and how they are reached stays in the book of customers.
    entry = msgspec.json.encode(without_contact(doubt.order)).decode()
    candidates = tuple(
        Candidate(place.address, place.position.lat, place.position.lon, place.confidence) for place in doubt.candidates
    )
    return Order(
        OrderId(doubt.order.order_id), "doubtful", now_ms, entry, intake.fingerprint(doubt.order), None,
        (doubt.what_found, doubt.do), candidates,
        customer_ref=doubt.order.customer_ref or doubt.order.order_id,
        partner=doubt.order.partner.strip(), depots=depots,
    )  # fmt: skip


def _candidate(place: Any) -> dict[str, Any]:
    return {
        "address": place.address,
        "lat": place.position.lat,
        "lon": place.position.lon,
        "confidence": round(place.confidence, 3),
        "reason": place.reason,
    }


def correct_order(desk: Desk, picture: Picture, order_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Take a doubtful order again where a person says it goes, and show it. Raises Problem 404, 409 or 422."""
    asked = read(body, _CorrectionIn)
    order = found(picture.one("orders", order_id, Order), f"order '{order_id[:80]}' is unknown")
    if order.state != "doubtful":
        raise Problem(409, f"order '{order_id}' is {order.state}, expected a doubtful one")
    said = Correction(_corrected_place(asked, order), asked.by)
    known = _intake_desk(desk, picture, None)
    objection = known.objection_to(said.position)
    if objection:
        raise Problem(422, f"order '{order_id}' cannot go there: {objection}")
    entry = msgspec.json.decode(order.entry, type=intake.OrderIn)
    taken = _taken_again(known, entry, said)
    if not taken.accepted:
        wrong = taken.doubtful[0].what_found if taken.doubtful else taken.refused[0].what_found
        raise Problem(422, f"order '{order_id}' is still not accepted: {wrong}")
    address = entry.address.strip()
    # A text the map knows for sure was doubted for its position only: it needs no memory, and keeps its own place.
    # What a partner says is of its own order: it does not move other people's.
    who = caller()
    is_partners = who is not None and who.role == "partner"
    is_news = bool(address) and not is_partners and desk.geocoder.find(address).place is None
    remembered = (normal_text(address), msgspec.json.encode(said).decode()) if is_news else None
    accepted = _accepted(taken.accepted[0], desk.clock.now_ms(), order.depots)
    answer = desk.answer(OrderCorrected(accepted, hand(asked.by), remembered))
    if not answer.is_done:
        raise Problem(409, answer.why_not)
    return found(picture.order(order_id), f"order '{order_id[:80]}' is unknown")


def _taken_again(before: intake.Desk, entry: intake.OrderIn, said: Correction) -> intake.Intake:
    """The intake of one entry, as it was handed in, now that a person has said this of its place."""
    corrections = before.corrections
    address = entry.address.strip()
    if address:
        corrections = corrections.with_correction(address, said.position, said.by)
    else:
        entry = msgspec.structs.replace(entry, lat=said.position.lat, lon=said.position.lon)
    day = None if _has_date(entry) else before.day
    return intake.take_orders([entry], replace(before, day=day, corrections=corrections))


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
