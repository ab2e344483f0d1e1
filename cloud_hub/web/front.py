"""Answer at the hub's door from the first moment: live, not ready, and why, until the hub itself is behind it."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud_hub.web.problems import problem_response

AGAIN_S = 1


class Front:
    """ASGI: the hub's application once there is one, and until then who acts in its place."""

    def __init__(self, metrics: ASGIApp) -> None:
        """`metrics` answers at /metrics while nothing else does."""
        self._metrics = metrics
        self._app: ASGIApp | None = None
        self.why_not = "starting: the hub loads its city and its models"
        """Why nothing else is answered yet, in words."""

    def show(self, app: ASGIApp) -> None:
        """From now on this application answers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or say why not."""
        if self._app is not None or scope["type"] != "http":
            await (self._app or _nothing)(scope, receive, send)
            return
        if scope["path"] == "/healthz":
            await JSONResponse({"status": "live"})(scope, receive, send)
        elif scope["path"] == "/metrics":
            await self._metrics(scope, receive, send)
        else:
            await problem_response(503, self.why_not, {"Retry-After": str(AGAIN_S)})(scope, receive, send)


async def _nothing(_scope: Scope, _receive: Receive, send: Send) -> None:
    """A web socket is not opened before there is a hub behind it (1013, try again later: RFC 6455 registry)."""
    await send({"type": "websocket.close", "code": 1013})
