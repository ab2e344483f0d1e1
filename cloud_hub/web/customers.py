"""Customers over HTTP: seen and put right by a person, and the end of e-mails by the link in each of them."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Path, Query

from cloud_hub.access.asking import hand, sight
from cloud_hub.contact_rows import LONGEST_NAME, email_in, phone_in
from cloud_hub.contacts import LONGEST_AT_THE_DOOR, Channel, Customer, Language, NoticeKind, Wishes
from cloud_hub.events import CustomerSaid, OptOutSaid, Receipt
from cloud_hub.fleet import Order
from cloud_hub.links import PATH, LinkExpired, LinkWrong
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, found, missing, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem
from shared.work import OrderId

CUSTOMER_EXAMPLE = {
    "name": "Maija Meikäläinen",
    "email": "maija@example.fi",
    "phone": "+358401234567",
    "language": "fi",
    "consents": ["email", "sms"],
    "opted_out": ["on_its_way"],
    "wishes": {"door_code": "1234C", "safe_place": "", "neighbour": "", "note": "", "on_its_way": True},
    "by": "anna",
}

Reference = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[!-~]+( [!-~]+)*$")]


def customers_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Who the customers are, and how they are told."""
    router = APIRouter(tags=["customers"])

    @router.get(
        "/api/customers/{ref}",
        summary="One customer: contact, language, consents, opt-outs and wishes",
        responses=missing("customer"),
    )
    def customer(ref: Reference) -> Json:
        known = found(picture.one("customers", ref, Customer), f"customer '{ref}' is unknown")
        return Json(known, headers={"Cache-Control": "no-store"})

    @router.put(
        "/api/customers/{ref}",
        summary="Put a customer's entry",
        description="All of it: what is left out is empty afterwards. Opt-outs and consents too are as said here, so "
        "take none back that the customer has not taken back.",
    )
    def put(ref: Reference, said: Annotated[dict[str, Any], Body(examples=[CUSTOMER_EXAMPLE])]) -> Json:
        asked = read(said, _CustomerIn)
        known = _checked(ref, asked, desk.settings.notices.language, desk.settings.notices.country_code)
        bound = sight()
        if bound is not None and not bound.sees_customer(ref) and _is_anybodys(picture.whole, ref):
            raise Problem(404, f"customer '{ref}' is unknown")
        desk.answer(CustomerSaid(known, hand(asked.by)))
        return Json(known, headers={"Cache-Control": "no-store"})

    @router.get(
        "/api/notices/{notice_id:path}/receipts",
        summary="Every attempt to send a notice, and what came of it",
    )
    def receipts(notice_id: str) -> Json:
        kept = picture.all("receipts", Receipt, f"{notice_id}/").values()
        own = sorted((one for one in kept if one.notice_id == notice_id), key=lambda one: (one.at_ms, one.attempt))
        return Json(own)

    @router.post(
        f"{PATH}{{token}}/stop",
        summary="Stop telling this customer, in one click",
        description="What a mail program posts when its user unsubscribes (RFC 8058): no more e-mails, unless "
        "`channel` or `kind` name something else. `again=1` takes it back.",
    )
    def stop(
        token: Annotated[str, Path(max_length=400)],
        channel: Annotated[Channel | None, Query()] = None,
        kind: Annotated[NoticeKind | None, Query()] = None,
        again: bool = False,
    ) -> Json:
        order_id = _order_of(desk, token)
        named: Channel | None = "email" if channel is None and kind is None else channel
        answer = desk.answer(
            OptOutSaid(order_id, () if kind is None else (kind,), () if named is None else (named,), not again)
        )
        if not answer.is_done:
            raise Problem(404, "this delivery is no longer known")
        return Json({"stopped": not again, "channel": named, "kind": kind})

    return router


class _CustomerIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    email: str = ""
    phone: str = ""
    language: Language | None = None
    consents: tuple[Channel, ...] = ()
    opted_out: tuple[NoticeKind, ...] = ()
    wishes: Wishes = Wishes()
    opted_out_channels: tuple[Channel, ...] = ()
    customer_ref: str = ""
    by: str = "the API"


def _checked(ref: str, said: _CustomerIn, language: Language, country_code: str) -> Customer:
    """The customer as said. Raises Problem 422, which repeats nothing personal."""
    email = email_in(said.email) if said.email else ""
    if email is None:
        raise Problem(422, "email is no address, expected name@host.fi")
    phone = phone_in(said.phone, country_code) if said.phone else ""
    if phone is None:
        raise Problem(422, "phone is no number, expected +358401234567")
    if len(said.name) > LONGEST_NAME or not said.name.isprintable():
        raise Problem(422, f"name is longer than {LONGEST_NAME} characters or has control characters: correct it")
    if said.customer_ref not in ("", ref):
        raise Problem(422, "customer_ref is another than the address names, expected the same: it cannot be changed")
    for name, longest in LONGEST_AT_THE_DOOR.items():
        text = getattr(said.wishes, name)
        if len(text) > longest or not text.replace("\n", " ").isprintable():
            raise Problem(
                422, f"wishes.{name} is longer than {longest} characters or has control characters: correct it"
            )
    return Customer(
        ref, said.name.strip(), email, phone, said.language or language, tuple(dict.fromkeys(said.consents)),
        tuple(dict.fromkeys(said.opted_out)), said.wishes, tuple(dict.fromkeys(said.opted_out_channels)),
    )  # fmt: skip


def _is_anybodys(picture: Picture, ref: str) -> bool:
    """Whether the book or an order knows this reference."""
    if picture.one("customers", ref, Customer) is not None:
        return True
    return any((order.customer_ref or key) == ref for key, order in picture.all("orders", Order).items())


def _order_of(desk: Desk, token: str) -> OrderId:
    """The order of a link. Raises Problem 404, or 410 once it has expired."""
    try:
        return desk.links.read(token, desk.clock.now_ms())
    except LinkWrong as wrong:
        raise Problem(404, str(wrong)) from None
    except LinkExpired as over:
        raise Problem(410, str(over)) from None
