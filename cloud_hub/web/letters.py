"""Show what was taken and came to nothing, and have a person make something of it after all, or let it be."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Query

from cloud_hub.access.asking import hand, sight
from cloud_hub.events import LetterRetried, LetterSettled
from cloud_hub.fleet import DeadLetter, DeadPayload, Gap, LetterState
from cloud_hub.letters import EXCERPT, key_of
from cloud_hub.storage import TelemetryLetter
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, found, missing, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem

LOOK_EXAMPLE = {"by": "anna"}

MOST_BATCHES = 1_000
"""Batches of telemetry nobody could read, the newest of them."""


class ShownLetter(DeadLetter, frozen=True, kw_only=True):
    """A dead letter as it is shown: `key` is its name in the addresses of this page."""

    key: str


def letters_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Dead letters, and what is missing of a stream for good."""
    router = APIRouter(tags=["picture"])

    @router.get(
        "/api/dead-letters",
        summary="Messages that were taken and could not be acted upon",
        description="Each with its sender, its place in the stream, the reason, and how it begins. `state` is waiting, "
        "retried or settled; batches of telemetry nobody could read wait for ever and go by their age.",
    )
    def dead_letters(
        state: Annotated[LetterState | None, Query(description="Only of this state")] = None,
    ) -> Json:
        letters = [
            *(_shown(key, letter) for key, letter in picture.all("dead_letters", DeadLetter).items()),
            *(_batch_shown(batch) for batch in desk.telemetry.dead_letters(MOST_BATCHES) if _sees(batch.sender)),
        ]
        return Json([letter for letter in letters if state is None or letter.state == state])

    @router.post(
        "/api/dead-letters/{key:path}/retry",
        summary="Act upon a dead letter after all",
        description="For one that can be read or acted upon now: after an update of the hub, or once what it speaks of "
        "is known. It is taken once, as news of the hub's own. 409 says why not, and nothing has changed.",
        responses=missing("letter"),
    )
    def retry(key: str, said: Annotated[dict[str, Any] | None, Body(examples=[LOOK_EXAMPLE])] = None) -> Json:
        by = hand(read(said or {}, _LookIn).by)
        letter = _letter(key)
        kept = desk.store.document("dead_payloads", key)
        payload = None if kept is None else msgspec.json.decode(kept, type=DeadPayload).payload
        answer = desk.answer(LetterRetried(key, letter, payload, by))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"key": key, "state": "retried", "decision_id": answer.named[0]})

    @router.post(
        "/api/dead-letters/{key:path}/settle",
        summary="Mark a dead letter as looked at",
        description="Nothing more is to come of it. Its bytes go by their age.",
        responses=missing("letter"),
    )
    def settle(key: str, said: Annotated[dict[str, Any] | None, Body(examples=[LOOK_EXAMPLE])] = None) -> Json:
        by = hand(read(said or {}, _LookIn).by)
        answer = desk.answer(LetterSettled(key, _letter(key), by))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"key": key, "state": "settled", "decision_id": answer.named[0]})

    @router.get(
        "/api/gaps",
        summary="What is missing of an agent's streams for good",
        description="Because the hub was restored from an older copy of its store, or an agent's store was replaced.",
    )
    def gaps() -> Json:
        return Json([gap for gap in picture.all("gaps", Gap).values() if _sees(gap.sender)])

    def _letter(key: str) -> DeadLetter:
        return found(picture.one("dead_letters", key, DeadLetter), f"dead letter '{key[:120]}' is unknown")

    return router


def _sees(agent: str) -> bool:
    bound = sight()
    return bound is None or bound.sees_agent(agent)


def _shown(key: str, letter: DeadLetter) -> ShownLetter:
    return ShownLetter(**msgspec.structs.asdict(letter), key=key)


def _batch_shown(batch: TelemetryLetter) -> ShownLetter:
    said = batch.payload[:EXCERPT].decode(errors="replace")
    letter = DeadLetter(
        batch.sender, batch.boot, "telemetry", batch.seq, batch.at_ms, batch.why, said, len(batch.payload)
    )  # fmt: skip
    return _shown(key_of(letter), letter)


class _LookIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: str = "the API"
