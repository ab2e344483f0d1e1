"""Machines become agents over HTTP: invited by an admin, once, by a token; renewed by their own signature."""

import base64
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body

from cloud_hub.authority import (
    Authority,
    AuthorityUnusable,
    NameWrong,
    RenewalRefused,
    RequestWrong,
    TokenRefused,
)
from cloud_hub.enrolment import Enrolment
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, documented, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import MEDIA_TYPE, Problem

LONGEST_LIFE_S = 7 * 24 * 3600
NO_STORE = {"Cache-Control": "no-store"}

INVITED = {"agent": "van-1", "token": "ww1…", "ends_ms": 1_772_550_000_000}
ENROLLED = {
    "agent": "van-1",
    "region": "main",
    "broker": "mqtts://broker.example:8883",
    "hub_public_key": "8f3b…",
    "certificate": "-----BEGIN CERTIFICATE-----…",
    "ca": "-----BEGIN CERTIFICATE-----…",
}


class _Invite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    agent: Annotated[str, msgspec.Meta(max_length=64)]
    life_s: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_LIFE_S)] = 24 * 3600


class _Enrol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    secret: Annotated[str, msgspec.Meta(max_length=100)]
    request: Annotated[str, msgspec.Meta(max_length=4_000)]
    agent: Annotated[str, msgspec.Meta(max_length=64)] = ""


class _Renew(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: Annotated[str, msgspec.Meta(max_length=8_000)]
    signature: Annotated[str, msgspec.Meta(max_length=200)]


def enrolment_pages(desk: Desk, _: Picture) -> APIRouter:
    """How machines become agents."""
    router = APIRouter(tags=["enrolment"])

    def authority(may_found: bool = False) -> tuple[Enrolment, Authority]:
        if desk.enrolment is None:
            raise Problem(503, "this hub enrols nobody: it was started without its authority")
        try:
            return desk.enrolment, desk.enrolment.authority(may_found)
        except AuthorityUnusable as wrong:
            raise Problem(503, str(wrong)) from None

    @router.get(
        "/api/authority",
        summary="The certificate of the authority that vouches for agents and servers",
        description="Public. A machine believes it for the fingerprint in its token, not for where it came from.",
    )
    def ca() -> Json:
        _, known = authority()
        return Json({"ca": known.ca_pem, "fingerprint": known.fingerprint})

    @router.get("/api/enrolments", summary="Every certificate made out, and who was invited and has not come")
    def enrolments() -> Json:
        _, known = authority()
        waiting = [{"agent": agent, "ends_ms": int(ends_s * 1000)} for agent, ends_s in known.invitations()]
        made_out = [
            {
                "serial": one.serial,
                "agent": one.agent,
                "kind": one.kind,
                "how": one.how,
                "issued_ms": int(one.issued_s * 1000),
                "ends_ms": int(one.ends_s * 1000),
                "revoked_ms": None if one.revoked_s is None else int(one.revoked_s * 1000),
                "why": one.why,
            }
            for one in known.standings()
        ]
        return Json({"certificates": made_out, "invited": waiting}, headers=NO_STORE)

    @router.post(
        "/api/enrolments",
        status_code=201,
        summary="Invite a machine to become an agent: a token, shown this once",
        responses={201: documented(INVITED)[200]},
    )
    def invite(said: Annotated[dict[str, Any], Body(examples=[{"agent": "van-1"}])]) -> Json:
        asked = read(said, _Invite)
        if desk.enrolment is not None and not desk.enrolment.agents_broker:
            raise Problem(409, "no agent could be told its broker: set broker in [authority] of the hub's settings")
        _, known = authority(may_found=True)
        try:
            made = known.invite(asked.agent, asked.life_s)
        except NameWrong as wrong:
            raise Problem(422, str(wrong)) from None
        return Json(
            {"agent": made.agent, "token": made.token, "ends_ms": int(made.ends_s * 1000)},
            status_code=201,
            headers=NO_STORE,
        )

    @router.post(
        "/api/enrol",
        summary="Become an agent: a token's secret and a certificate request for a certificate",
        description="`secret` is the token's first 20 bytes, `request` a PKCS #10 request in DER for an Ed25519 key, "
        "both in base64. `agent` may name who the machine expects to become: a token of another is then not used up. "
        "Asked again with the same key, the answer is the same.",
        responses={**documented(ENROLLED), 403: {"description": "The token is not good", "content": {MEDIA_TYPE: {}}}},
    )
    def enrol(said: Annotated[dict[str, Any], Body(examples=[{"secret": "…", "request": "…"}])]) -> Json:
        asked = read(said, _Enrol)
        ours, known = authority()
        secret, request = _bytes("secret", asked.secret), _bytes("request", asked.request)
        try:
            made = known.enrol(secret, request, asked.agent)
        except TokenRefused as wrong:
            raise Problem(403, str(wrong)) from None
        except RequestWrong as wrong:
            raise Problem(422, str(wrong)) from None
        told = {
            "agent": made.agent,
            "region": ours.region,
            "broker": ours.agents_broker,
            "hub_public_key": ours.hub_public_key,
            "certificate": made.certificate,
            "ca": known.ca_pem,
        }
        return Json(told, headers=NO_STORE)

    @router.post(
        "/api/renew",
        summary="Renew a certificate by its own key's signature",
        description="`certificate` is the present one in PEM, `signature` (base64) the Ed25519 signature of its key "
        "over `waywarden renewal`, a zero byte, and the SHA-256 of the certificate's DER.",
        responses={
            **documented({"agent": "van-1", "certificate": "-----BEGIN CERTIFICATE-----…"}),
            403: {"description": "The certificate is not to be renewed", "content": {MEDIA_TYPE: {}}},
        },
    )
    def renew(said: Annotated[dict[str, Any], Body(examples=[{"certificate": "…", "signature": "…"}])]) -> Json:
        asked = read(said, _Renew)
        _, known = authority()
        try:
            made = known.renew(asked.certificate.encode(), _bytes("signature", asked.signature))
        except RenewalRefused as wrong:
            raise Problem(403, str(wrong)) from None
        return Json({"agent": made.agent, "certificate": made.certificate}, headers=NO_STORE)

    return router


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Problem(422, f"{name} is not base64") from None
