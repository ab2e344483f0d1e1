"""Make of a request's body what somebody said on the page, or refuse it by name."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec

from edge_agent.dialogue import (
    MOST_OBJECT_BYTES,
    ChangeSaid,
    HeadingSaid,
    ObjectSaid,
    OutcomeSaid,
    OverrideSaid,
    Said,
    ScanSaid,
    SessionSaid,
    ShiftSaid,
)
from edge_agent.page.barcodes import MOST_PICTURE_BYTES, NoReader, PictureGarbled, texts_in

S = TypeVar("S")

MOST_BODY_BYTES = 65_536
LONGEST_KEY = 190
"""Characters; some requests become several questions, whose keys are a little longer."""

_SAYS: Mapping[str, type[Said]] = {
    "/api/shift": ShiftSaid,
    "/api/heading": HeadingSaid,
    "/api/change": ChangeSaid,
    "/api/outcome": OutcomeSaid,
    "/api/scan": ScanSaid,
    "/api/override": OverrideSaid,
}
PICTURES = ("application/octet-stream",)
OBJECTS = ("image/png", "image/jpeg")
JSON = ("application/json",)
TAKES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*_SAYS, "/api/session"), JSON),
    "/api/scan-image": PICTURES,
    "/api/objects": OBJECTS,
}
"""What may be posted where. No form on a foreign web site can send these types without the page being asked first."""
MOST_BYTES: Mapping[str, int] = {"/api/scan-image": MOST_PICTURE_BYTES, "/api/objects": MOST_OBJECT_BYTES}


class Refused(Exception):
    """What came is no request the page knows."""

    def __init__(self, status: HTTPStatus, name: str, detail: str, retry_after_s: int = 0) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail, self.retry_after_s = status, name, detail, retry_after_s


class CodeTyped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a sign-in."""

    code: Annotated[str, msgspec.Meta(max_length=40)]


def said_in(path: str, body: bytes) -> Said:
    """What a JSON body says to this path. Raises Refused."""
    return _decoded(path, lambda: msgspec.json.decode(body, type=_SAYS[path]))


def session_in(body: bytes, token_digest: str) -> SessionSaid:
    """A sign-in with the hash of the token its phone will be given. Raises Refused."""
    typed = _decoded("/api/session", lambda: msgspec.json.decode(body, type=CodeTyped))
    return SessionSaid(typed.code.strip(), token_digest)


def object_in(query: Mapping[str, list[str]], media_type: str, body: bytes) -> ObjectSaid:
    """A signature or photograph. Raises Refused."""
    told = {name: query.get(name, [""])[-1] for name in ("kind", "stop_id")}
    told |= {"media_type": media_type, "content": body}  # type: ignore[dict-item]  # bytes stay bytes
    return _decoded("/api/objects", lambda: msgspec.convert(told, ObjectSaid))


def scans_in(query: Mapping[str, list[str]], body: bytes) -> list[ScanSaid]:
    """What every barcode of a picture says. Raises Refused, NoBarcode among them."""
    width, height = (_whole_number(query, name) for name in ("width", "height"))
    try:
        texts = texts_in(width, height, body)
    except PictureGarbled as wrong:
        raise Refused(HTTPStatus.BAD_REQUEST, "PictureGarbled", str(wrong)) from None
    except NoReader as wrong:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "NoReader", str(wrong)) from None
    if not texts:
        raise Refused(HTTPStatus.NOT_FOUND, "NoBarcode", "no barcode is seen in the picture; hold it closer and still")
    return [ScanSaid(text[:2_000]) for text in texts]


def _whole_number(query: Mapping[str, list[str]], name: str) -> int:
    text = query.get(name, [""])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        detail = f"{name} is '{text[:20]}', expected the picture's {name} in points"
        raise Refused(HTTPStatus.BAD_REQUEST, "PictureGarbled", detail)
    return int(text)


def _decoded(path: str, decode: Callable[[], S]) -> S:
    try:
        return decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise Refused(HTTPStatus.BAD_REQUEST, "BodyGarbled", f"{path}: {wrong}") from None
