"""Who is forgotten at somebody's word, and whether the records still hold after it."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body

from cloud_hub.access.asking import hand
from cloud_hub.events import ForgetAsked
from cloud_hub.fleet import Chain
from cloud_hub.ledgers import verified
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, documented, missing, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem

FORGET_EXAMPLE = {"by": "anna", "even_open": False}

_VERIFIED_EXAMPLE = {
    "holds": False,
    "chains": [
        {"node": "hub", "records": 312, "holds": 312, "lives": 1, "first_bad": "", "wrong": "",
         "gaps": 0},
        {"node": "van-1", "records": 40, "holds": 17, "lives": 1, "first_bad": "van-1/18",
         "wrong": "it does not follow from the one before it: that one was changed or is missing", "gaps": 0},
    ],
}  # fmt: skip


def privacy_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Forgetting, and the proof that records are what they were."""
    router = APIRouter(tags=["privacy"])

    @router.post(
        "/api/customers/{customer_ref:path}/forget",
        summary="Forget a customer",
        description="Everything personal is erased in one commit, here and in the vans; records and figures stay. "
        "409 while something is still to be delivered: `even_open` has it withdrawn from its van first.",
        responses=missing("customer"),
    )
    def forget(
        customer_ref: str, said: Annotated[dict[str, Any] | None, Body(examples=[FORGET_EXAMPLE])] = None
    ) -> Json:
        asked = read(said or {}, _ForgetIn)
        answer = desk.answer(ForgetAsked(customer_ref, hand(asked.by), asked.even_open))
        if not answer.is_done:
            # The reference is not repeated: an error may be logged on its way, and it may be a name.
            raise Problem(404 if answer.why_not.startswith("no such customer") else 409, answer.why_not)
        return Json({"decision_id": answer.named[0], "orders": list(answer.named[1:])})

    @router.get(
        "/api/ledger/verify",
        summary="Whether every chain of decisions holds",
        description="Each record is read and hashed again. `first_bad` names the first that does not follow.",
        responses=documented(_VERIFIED_EXAMPLE),
    )
    def verify() -> Json:
        # How far each chain was followed is read first: what is decided meanwhile must not look like too much.
        chains = picture.all("chains", Chain)
        most = sum(chain.count for chain in chains.values())
        kept = (document for _, document in zip(range(most), desk.store.chained(), strict=False))
        return Json(verified(kept, chains))

    return router


class _ForgetIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: str = "the API"
    even_open: bool = False
