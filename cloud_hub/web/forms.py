"""How requests are read and answers are written, the same on every page."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import Response

from cloud_hub.web.problems import MEDIA_TYPE, Problem

T = TypeVar("T")


class Json(Response):
    """JSON by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of a value made of dicts, lists and structs."""
        return msgspec.json.encode(content)


def read(body: Mapping[str, Any], kind: type[T]) -> T:
    """The body as a value. Raises Problem 422, which says what was found and expected."""
    _refuse_unwritable(body)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as wrong:
        raise Problem(422, str(wrong)) from None


def _refuse_unwritable(body: Mapping[str, Any]) -> None:
    """Raises Problem 422 for what Python's JSON reads and nobody can write down again: half a surrogate pair (RFC 8259,
    8.2), NaN, infinity. The core would meet it in its commit, and the process would end.
    """
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as wrong:
        # The error's own words hold the text.
        found = f"the body cannot be kept ({type(wrong).__name__})"
        raise Problem(422, f"{found}, expected Unicode text and finite numbers: send it so") from None


def found(what: T | None, why_not: str) -> T:
    """What was looked for. Raises Problem 404 when there is nothing."""
    if what is None:
        raise Problem(404, why_not)
    return what


def missing(what: str) -> dict[int | str, dict[str, Any]]:
    """The documentation of a 404."""
    return {404: {"description": f"The {what} is unknown", "content": {MEDIA_TYPE: {}}}}


def documented(example: Any) -> dict[int | str, dict[str, Any]]:
    """The documentation of an answer, by an example of it."""
    return {200: {"content": {"application/json": {"example": json.loads(json.dumps(example))}}}}
