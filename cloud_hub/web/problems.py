"""Every error leaves as problem+json (RFC 9457), and no request is larger than it may be."""

import re
import traceback
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_hub.links import PATH as LINKS
from shared.logs import log

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is not done: status, what was found, expected and to be done, in words, and more fields if any."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """The answer for a problem."""
    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Problem"
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of this app leave as problem+json."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, wrong: Problem) -> JSONResponse:
        return problem_response(wrong.status, wrong.detail, **wrong.more)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, wrong: HTTPException) -> JSONResponse:
        detail = str(wrong.detail)
        if wrong.status_code == 400:
            # FastAPI's word for a body whose bytes are no UTF-8; whatever else is no JSON is a 422 of its own.
            return problem_response(422, "the body cannot be read, expected JSON in UTF-8: send it so")
        if wrong.status_code == 404 and detail == "Not Found":
            detail = f"nothing is at {request.url.path[:200]}; /docs lists what is"
        if wrong.status_code == 405:
            detail = f"{request.method} is not done at {request.url.path[:200]}; /docs lists what is"
        return problem_response(wrong.status_code, detail, dict(wrong.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, wrong: RequestValidationError) -> JSONResponse:
        objections = [
            {"where": "/".join(str(part) for part in error["loc"]), "what": error["msg"]} for error in wrong.errors()
        ]
        first = f"{objections[0]['where']}: {objections[0]['what']}" if objections else "the request is not understood"
        return problem_response(422, first, errors=objections)

    @app.exception_handler(Exception)
    async def _broken(request: Request, wrong: Exception) -> JSONResponse:
        # The route and the place in the code, never the path or the error's words: those may name a customer.
        log("request_failed", route=_route(request), error=type(wrong).__name__, at=_place(wrong))
        return problem_response(500, "the hub could not answer; its log says why. The request may be repeated")


def _route(request: Request) -> str:
    return f"{request.method} {getattr(request.scope.get('route'), 'path', 'unknown')}"


def _place(wrong: Exception) -> str:
    frames = traceback.extract_tb(wrong.__traceback__)
    return " < ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))


def _loggable(path: str) -> str:
    """The path without the token of a tracking link: whoever reads the log would hold the link."""
    return f"{LINKS}..." if path.startswith(LINKS) else path[:200]


class OwnPagesOnly:
    """ASGI: refuse what a page of another site has a browser do here.

    A hub on somebody's own machine is within reach of every page in that machine's browser. A request without a body
    needs nobody's leave; and a name in the page's own hands that leads to this machine after a moment (DNS rebinding)
    makes all of it that page's to read. So nothing is answered under a name that is not ours, and nothing is changed
    for a page that is not: browsers say where a request comes from by Sec-Fetch-Site (W3C Fetch Metadata), to a plain
    http address by Origin alone. Other clients say nothing and are not meant.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """`names` are the hub's own; addresses, `localhost` and names of the local network are always taken."""
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless another site is behind it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        said = {name: text.decode("latin-1") for name, text in scope["headers"]}
        host = said.get(b"host", "")
        if not self._is_own(host):
            return problem_response(421, f"nothing is answered as '{host[:100]}': name it in http_names if it is ours")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        site, origin = said.get(b"sec-fetch-site", ""), said.get(b"origin", "")
        if not site and origin and not scope["path"].startswith(LINKS):
            # A tracking page tells nobody where it is, so its forms come from `null`; their link speaks for them.
            site = "same-origin" if origin.partition("://")[2].lower() == host.lower() else "cross-site"
        if site in ("", "same-origin", "none"):
            return None
        return problem_response(403, f"the request comes from a {site[:20]} page, expected one of the hub's own")

    def _is_own(self, host: str) -> bool:
        name = host.lower() if host.endswith("]") else re.sub(":[0-9]*$", "", host.lower())
        if not name or name in self._names:
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            # No page of the open net has a name without a dot, nor one of these (RFC 6761, 6762).
            return "." not in name or name.endswith((".localhost", ".local"))
        return True


class BodyLimit:
    """ASGI: refuse a request body larger than it may be, before anybody reads it all."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self._most_bytes:
            await self._too_large()(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most_bytes:
                raise Problem(413, f"the body has more than {self._most_bytes} bytes: hand it in in parts")
            return message

        return counted

    def _too_large(self) -> JSONResponse:
        return problem_response(413, f"the body has more than {self._most_bytes} bytes: hand it in in parts")
