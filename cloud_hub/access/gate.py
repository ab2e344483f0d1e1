"""Let a request through to its page when its caller may ask it, and say why not when not.

Stands before every page and before a body is read: finds the route, its rule, and who asks; bounds how often; answers
401, 403 and 429 as problems; and sets what the caller sees (`cloud_hub.access.asking`). What was read of people is
noted when the answer begins.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from fastapi.concurrency import run_in_threadpool
from prometheus_client import Counter
from prometheus_client.registry import CollectorRegistry
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_hub.access.asking import let_in
from cloud_hub.access.bounds import Bounds
from cloud_hub.access.identity import Identity
from cloud_hub.access.journal import Journal
from cloud_hub.access.oidc import NotBelieved, ProviderAway
from cloud_hub.access.roles import Caller, Rule, objection, rule_of
from cloud_hub.access.sight import Sight
from cloud_hub.storage import HubStore

VAIN = frozenset({400, 401, 403, 404, 410})
"""Answers to a link, a token or a key that opened nothing."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
KEPT_BY_NOBODY = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Headers of everything one must be somebody to see (OWASP Secure Headers)."""

NOWHERE = Rule("known", for_partners=True)
WISHES = ("POST /t/{token}", "POST /t/{token}/stop")


class Asked(NamedTuple):
    """A request before its page: the route's name, its rule, its path's parameters, who asks from where."""

    route: str
    rule: Rule
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    address: str
    method: str
    target: str


class Problems(Protocol):
    """How a refusal is written (`cloud_hub.web.problems.problem_response`)."""

    def __call__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        """The response."""
        ...


class Access:
    """Everything the gate works with: whom to believe, how often, and where accesses are noted."""

    def __init__(self, identity: Identity, journal: Journal, store: HubStore, registry: CollectorRegistry) -> None:
        self.identity = identity
        self.journal = journal
        self.bounds = Bounds(identity.setting)
        self.store = store
        self.refused = Counter(
            "waywarden_access_refused", "Requests that were not let in, by why.", ["what"], registry=registry
        )


class Gate:
    """ASGI: the gate before every page."""

    def __init__(self, app: ASGIApp, access: Access, routes: Iterable[BaseRoute], problem: Problems) -> None:
        """`routes` are the application's, in the order it tries them; read again for each request."""
        self._app = app
        self._access = access
        self._routes = routes
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        asked = self._asked(scope)
        caller, refusal = await self._who(asked)
        refusal = refusal or self._why_not(asked, caller)
        if refusal is not None:
            if caller is not None and asked.rule.about:
                self._note(asked, caller, refusal.status_code)
            await refusal(scope, receive, send)
            return
        bound = None if caller is None or not caller.is_bound else Sight(caller, self._access.store)
        let_in(caller, bound)
        await self._app(scope, receive, self._watched(asked, caller, send))

    # Who asks.

    async def _who(self, asked: Asked) -> tuple[Caller | None, Response | None]:
        identity = self._access.identity
        cookies = _cookies(asked.headers.get("cookie", ""))
        try:
            # What is shown may have to be looked up in a database: never on the loop that serves everybody.
            is_shown = "authorization" in asked.headers or bool(cookies)
            look = identity.caller_of
            given = (asked.headers, cookies, asked.address)
            caller = await run_in_threadpool(look, *given) if is_shown else look(*given)
        except NotBelieved as wrong:
            if asked.rule.need == "nobody":
                return None, None
            return None, self._not_believed(asked, wrong)
        except ProviderAway as away:
            return None, None if asked.rule.need == "nobody" else self._refuse("provider_away", 503, str(away))
        if caller is not None and caller.kind == "session" and not _is_from_own_page(asked.headers, asked.method):
            why = "a signed-in browser must say which page asks (Origin): expected one of the hub's own"
            return None, self._refuse("foreign_page", 403, why)
        return caller, None

    def _not_believed(self, asked: Asked, wrong: NotBelieved) -> Response:
        # Tested after the key: whoever holds a good one is never locked out by a neighbour who guesses.
        wait_s = self._access.bounds.may_try(asked.address)
        self._access.bounds.failed(asked.address)
        if wait_s:
            return self._too_many("failures", wait_s)
        if _is_a_person(asked):
            return _to_sign_in(asked.target)
        return self._refuse(wrong.what, 401, str(wrong), {"WWW-Authenticate": 'Bearer error="invalid_token"'})

    # Whether they may.

    def _why_not(self, asked: Asked, caller: Caller | None) -> Response | None:
        rule, bounds = asked.rule, self._access.bounds
        is_here = self._access.identity.is_this_machine(asked.headers, asked.address)
        if not is_here:
            who = asked.address if caller is None else caller.subject
            wait_s = bounds.asked(who)
            if wait_s:
                return self._too_many("requests", wait_s)
            if rule.is_guarded and (wait_s := bounds.may_try(asked.address)):
                return self._too_many("failures", wait_s)
            if asked.route in WISHES and (wait_s := bounds.wished(asked.address)):
                return self._too_many("wishes", wait_s)
        if caller is None:
            return None if rule.need == "nobody" else self._sign_in_first(asked)
        if caller.key_id:
            self._access.journal.used(caller.key_id)
        why_not = objection(caller, rule)
        return self._refuse("role", 403, why_not) if why_not else None

    def _sign_in_first(self, asked: Asked) -> Response:
        if _is_a_person(asked):
            return _to_sign_in(asked.target)
        why = "nobody says who asks, expected Authorization: Bearer and a key (ww_...), or a sign-in at /sign-in"
        return self._refuse("nobody", 401, why, {"WWW-Authenticate": "Bearer"})

    def _refuse(self, what: str, status: int, why: str, headers: dict[str, str] | None = None) -> Response:
        self._access.refused.labels(what).inc()
        return self._problem(status, why, {"Cache-Control": "no-store", **(headers or {})})

    def _too_many(self, what: str, wait_s: int) -> Response:
        why = f"too many {what} in the last minute: ask again in {wait_s} s"
        return self._refuse(f"too_many_{what}", 429, why, {"Retry-After": str(wait_s)})

    # What came of it.

    def _watched(self, asked: Asked, caller: Caller | None, send: Send) -> Callable[[Message], Awaitable[None]]:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if asked.rule.is_guarded and status in VAIN:
                    self._access.bounds.failed(asked.address)
                    self._access.refused.labels("link_or_token").inc()
                if caller is not None and asked.rule.about:
                    self._note(asked, caller, status)
                if asked.rule.need != "nobody":
                    message = _for_the_caller_alone(message)
            await send(message)

        return watched

    def _note(self, asked: Asked, caller: Caller, status: int) -> None:
        about = asked.rule.about
        of_whom = "*" if about == "*" else self._access.identity.named(about, str(asked.params.get(about, "*")))
        self._access.journal.note(caller.subject, asked.route, of_whom, status)

    def _asked(self, scope: Scope) -> Asked:
        headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        query = scope.get("query_string", b"").decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        address = (scope.get("client") or ("", 0))[0]
        for route in self._routes:
            match, more = route.matches(scope)
            if match is Match.FULL:
                name = f"{scope['method']} {path_of(route)}"
                return Asked(
                    name, rule_of(name), more.get("path_params", {}), headers, address, scope["method"], target
                )
        # Nothing is there. Who is known is told so by the application; who is not learns nothing of what is.
        return Asked("", NOWHERE, {}, headers, address, scope["method"], target)


def _for_the_caller_alone(start: Message) -> Message:
    """The answer's beginning: nobody is to keep it, frame it or guess what it is, unless it says otherwise."""
    headers = list(start.get("headers", ()))
    said = {name.lower() for name, _ in headers}
    headers += [header for header in KEPT_BY_NOBODY if header[0] not in said]
    return {**start, "headers": headers}


def path_of(route: BaseRoute) -> str:
    """The path of a route as it was declared."""
    return str(getattr(route, "path", "")).rstrip("/") or "/"


def _cookies(text: str) -> dict[str, str]:
    if "ww_session" not in text:
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(text).items()}
    except CookieError:
        return {}


def _is_from_own_page(headers: Mapping[str, str], method: str) -> bool:
    """Whether a browser says that one of our own pages asks. `OwnPagesOnly` lets through who says nothing, for that is
    no browser; a cookie comes from a browser alone, so here silence is a no.
    """
    if method in SAFE:
        return True
    if headers.get("sec-fetch-site"):
        return headers["sec-fetch-site"] in ("same-origin", "none")
    return headers.get("origin", "").partition("://")[2].lower() == headers.get("host", "").lower() != ""


def _is_a_person(asked: Asked) -> bool:
    """Whether a browser opens a page: then it is led to the sign-in."""
    return asked.method == "GET" and asked.headers.get("accept", "").startswith("text/html")


def _to_sign_in(target: str) -> Response:
    return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", 303, {"Cache-Control": "no-store"})
