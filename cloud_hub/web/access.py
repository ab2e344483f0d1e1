"""Who I am and what I may, keys, who looked at whom, and the ways to sign in."""

import html
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

import msgspec
from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from cloud_hub.access.asked import Access as Accessed
from cloud_hub.access.asked import KeyAsked, KeyRevokeAsked
from cloud_hub.access.asking import caller as asking
from cloud_hub.access.asking import hand
from cloud_hub.access.identity import COOKIE, new_key, now_ms
from cloud_hub.access.keys import LONGEST_NAME, KeyRecord
from cloud_hub.access.oidc import Begun, NotBelieved, ProviderAway
from cloud_hub.access.roles import Caller, Role, is_at_least, routes_of
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, missing, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem

LOGIN_COOKIE = "ww_sign_in"
LOGIN_S = 600
DAY_MS = 86_400_000
MOST_FORM_BYTES = 4_000

KEY_EXAMPLE = {"name": "the shop's orders", "role": "partner", "partner": "shop", "days": 365, "by": "anna"}

SEALED = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class _KeyIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
    role: Role
    depots: tuple[str, ...] | None = None
    partner: Annotated[str, msgspec.Meta(max_length=64)] = ""
    days: Annotated[int, msgspec.Meta(ge=1, le=3650)] | None = None
    by: Annotated[str, msgspec.Meta(max_length=64)] = "the API"


def access_pages(desk: Desk, picture: Picture) -> APIRouter:
    """Keys, sign-ins and the record of accesses."""
    router = APIRouter(tags=["access"])
    identity = desk.access.identity

    @router.get("/api/me", summary="Who I am here, and what I may")
    def me() -> Json:
        return Json(_me(asking()), headers={"Cache-Control": "no-store"})

    @router.get("/api/keys", summary="Every key and session, without what opens them")
    def keys() -> Json:
        kept = sorted(picture.all("keys", KeyRecord).values(), key=lambda key: (key.made_ms, key.key_id))
        return Json([_key_shown(key) for key in kept], headers={"Cache-Control": "no-store"})

    @router.post(
        "/api/keys",
        status_code=201,
        summary="Make a key",
        description="The answer holds the key, once: only its hash is kept. Without `days` it is good until revoked. "
        "`depots` bind it; a `partner` sees the orders of that name alone.",
    )
    def make(said: Annotated[dict[str, Any], Body(examples=[KEY_EXAMPLE])]) -> Json:
        asked = read(said, _KeyIn)
        key, record = new_key(**_fields(desk, asked))
        answer = desk.answer(KeyAsked(record, hand(asked.by)))
        if not answer.is_done:
            raise Problem(409, answer.why_not)
        return Json({"key": key, **_key_shown(record)}, status_code=201, headers={"Cache-Control": "no-store"})

    @router.delete(
        "/api/keys/{key_id}",
        summary="Revoke a key or a session, from this moment on",
        description="Sessions opened with it end too.",
        responses=missing("key"),
    )
    def revoke(
        key_id: Annotated[str, Path(pattern="^[0-9a-f]{12}$")], by: Annotated[str, Query(max_length=64)] = "the API"
    ) -> Json:
        answer = desk.answer(KeyRevokeAsked(key_id, hand(by), now_ms()))
        if not answer.is_done:
            raise Problem(404, f"key '{key_id}' is unknown")
        return Json({"key_id": key_id, "is_revoked": True})

    @router.get(
        "/api/accesses",
        summary="Who read or changed personal data: when, by which route, about whom",
        description="Newest first. A listing of all the caller may see is about `*`. Customers are named by an HMAC of "
        "their reference, which `about` is looked up by: whoever is forgotten leaves no name behind.",
    )
    def accesses(
        day: Annotated[str, Query(description="YYYY-MM-DD, in UTC; all days when absent", pattern="^[0-9-]*$")] = "",
        subject: Annotated[str | None, Query(description="Of this key or person alone", max_length=200)] = None,
        about: Annotated[str | None, Query(description="About this order, customer or van", max_length=200)] = None,
        most: Annotated[int, Query(ge=1, le=5000)] = 200,
    ) -> Json:
        kept = picture.all("accesses", Accessed, day[:10])
        names = None if about is None else {about, identity.named("ref", about), identity.named("digest", about)}
        chosen = [
            one for one in kept.values() if subject in (None, one.subject) and (names is None or one.about in names)
        ]
        chosen.sort(key=lambda one: one.at_ms, reverse=True)
        return Json(chosen[:most], headers={"Cache-Control": "no-store"})

    # Signing in.

    @router.get("/sign-in", include_in_schema=False)
    def page(next: str = "/", why: str = "") -> HTMLResponse:
        return HTMLResponse(_page(desk, _own_path(next), why[:200]), headers=SEALED)

    @router.post("/sign-in", include_in_schema=False)
    async def by_key(request: Request) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_by_key, desk, request, form)

    @router.post("/sign-out", include_in_schema=False)
    def out() -> Response:
        who = asking()
        if who is not None and who.kind == "session":
            desk.answer(KeyRevokeAsked(who.key_id, who.name, now_ms()))
        answer = RedirectResponse("/sign-in", 303, SEALED)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    @router.get("/sign-in/provider", include_in_schema=False)
    def to_provider(request: Request, next: str = "/") -> Response:
        provider = identity.provider
        if provider is None:
            raise Problem(404, "no provider is set; sign in by a key")
        try:
            begun = provider.begin(_back(desk, request))
        except ProviderAway as away:
            raise Problem(503, str(away)) from None
        kept = msgspec.json.encode([begun.state, begun.nonce, begun.verifier, _own_path(next), now_ms()]).decode()
        answer = RedirectResponse(begun.url, 303, SEALED)
        # Lax: the way back begins at another site's page.
        answer.set_cookie(
            LOGIN_COOKIE, identity.seal(quote(kept, safe=""), "sign-in"), max_age=LOGIN_S, path="/sign-in",
            httponly=True, samesite="lax", secure=_is_https(desk, request),
        )  # fmt: skip
        return answer

    @router.get("/sign-in/back", include_in_schema=False)
    def back(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
        return _finish(desk, request, state, code, error)

    return router


# Who I am.


def _me(who: Caller | None) -> dict[str, Any]:
    if who is None:
        raise Problem(401, "nobody says who asks")
    return {
        "subject": who.subject,
        "name": who.name,
        "kind": who.kind,
        "role": who.role,
        "depots": None if who.depots is None else list(who.depots),
        "partner": who.partner,
        "may_approve": is_at_least(who, "approver"),
        "expires_ms": None if who.expires_s is None else who.expires_s * 1000,
        "may": routes_of(who),
    }


# Keys.


def _fields(desk: Desk, asked: _KeyIn) -> dict[str, Any]:
    """The fields of a new key. Raises Problem 422."""
    known = [depot.id for depot in desk.settings.depots]
    unknown = [depot for depot in asked.depots or () if depot not in known]
    if unknown:
        raise Problem(422, f"depot '{unknown[0][:64]}' is unknown, expected some of {', '.join(known)}")
    if asked.depots == ():
        raise Problem(422, "depots is empty: name some, or leave it out for all")
    if not asked.name.isprintable() or not asked.partner.isprintable():
        raise Problem(422, "name and partner must be printable: leave out control characters")
    if (asked.role == "partner") != bool(asked.partner.strip()):
        raise Problem(422, "a partner's key names its partner, and no other does: give role partner with a partner")
    if asked.role == "partner" and asked.depots is not None:
        raise Problem(422, "a partner is bound to its own orders, not to depots: leave depots out")
    expires_ms = None if asked.days is None else now_ms() + asked.days * DAY_MS
    return {
        "kind": "key", "name": asked.name.strip(), "role": asked.role, "depots": asked.depots,
        "partner": asked.partner.strip(), "expires_ms": expires_ms,
    }  # fmt: skip


def _key_shown(key: KeyRecord) -> dict[str, Any]:
    shown = {name: value for name, value in msgspec.to_builtins(key).items() if name != "digest"}
    why_dead = key.why_dead(now_ms())
    return {**shown, "is_good": not why_dead, "why_not": why_dead}


# Signing in.


def _by_key(desk: Desk, request: Request, form: Mapping[str, str]) -> Response:
    next_path = _own_path(form.get("next", "/"))
    try:
        record = desk.access.identity.key(form.get("key", "").strip())
        if record.kind != "key":
            raise NotBelieved("session_as_key", "that is a session, expected a key (ww_...)")
    except NotBelieved as wrong:
        return HTMLResponse(_page(desk, next_path, str(wrong)), 401, SEALED)
    days = desk.settings.access.screen_days if form.get("screen") else 0
    who = msgspec.structs.replace(record.caller(), kind="session")
    return _signed_in(desk, request, who, next_path, parent=record.key_id, days=days)


def _finish(desk: Desk, request: Request, state: str, code: str, error: str) -> Response:
    identity = desk.access.identity
    provider = identity.provider
    sealed = identity.unseal(request.cookies.get(LOGIN_COOKIE, ""), "sign-in")
    if provider is None or sealed is None:
        return HTMLResponse(_page(desk, "/", "no sign-in was begun in this browser: begin again"), 400, SEALED)
    begun_state, nonce, verifier, next_path, at_ms = msgspec.json.decode(_unquoted(sealed))
    if not state or state != begun_state or now_ms() - at_ms > LOGIN_S * 1000:
        why = "this is not the sign-in that was begun here, or it took too long: begin again"
        return HTMLResponse(_page(desk, next_path, why), 400, SEALED)
    if error or not code:
        why = f"the provider let nobody in ({error[:60] or 'no code'}): try again or ask its admin"
        return HTMLResponse(_page(desk, next_path, why), 403, SEALED)
    try:
        who = provider.finish(_back(desk, request), code, Begun("", state, nonce, verifier))
    except NotBelieved as wrong:
        desk.access.refused.labels(wrong.what).inc()
        return HTMLResponse(_page(desk, next_path, str(wrong)), 403, SEALED)
    except ProviderAway as away:
        return HTMLResponse(_page(desk, next_path, str(away)), 503, SEALED)
    answer = _signed_in(desk, request, who, next_path)
    answer.delete_cookie(LOGIN_COOKIE, path="/sign-in")
    return answer


def _signed_in(desk: Desk, request: Request, who: Caller, next_path: str, parent: str = "", days: int = 0) -> Response:
    """Open a session and go on to the page that was wanted. It lives for the settings' hours, or a screen's days, and
    no longer than the key it was opened with.
    """
    life_ms = days * DAY_MS if days else desk.settings.access.session_hours * 3_600_000
    expires_ms = now_ms() + life_ms
    if parent and who.expires_s is not None:
        expires_ms = min(expires_ms, who.expires_s * 1000)
    key, record = new_key(
        kind="session", name=who.name, role=who.role, depots=who.depots, partner=who.partner, expires_ms=expires_ms,
        subject=who.subject, parent=parent,
    )  # fmt: skip
    desk.answer(KeyAsked(record, who.name))
    desk.access.journal.note(who.subject, "sign-in", "", 200)
    answer = RedirectResponse(next_path, 303, SEALED)
    answer.set_cookie(
        COOKIE, desk.access.identity.cookie_of(key), max_age=(expires_ms - now_ms()) // 1000, path="/",
        httponly=True, samesite="lax", secure=_is_https(desk, request),
    )  # fmt: skip
    return answer


def _own_path(text: str) -> str:
    """A path of ours to go on to: never another site's page."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text[:500] if is_ours else "/"


def _back(desk: Desk, request: Request) -> str:
    """Where the provider sends the browser back to."""
    base = desk.settings.access.url or str(request.base_url)
    return f"{base.rstrip('/')}/sign-in/back"


def _is_https(desk: Desk, request: Request) -> bool:
    return request.url.scheme == "https" or urlsplit(desk.settings.access.url).scheme == "https"


def _unquoted(text: str) -> bytes:
    return unquote_to_bytes(text)


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=12)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 10vh auto; padding: 0 1rem }
h1 { font-size: 1.4rem } label { display: block; margin: 1rem 0 .3rem }
input[type=password] { width: 100%; box-sizing: border-box; font: inherit; padding: .5rem }
button, a.by { display: block; width: 100%; box-sizing: border-box; margin-top: 1rem; padding: .7rem; font: inherit;
  text-align: center; border: 1px solid #1b5; background: #0a5c2e; color: #fff; text-decoration: none; cursor: pointer }
p.why { border-left: 4px solid #b00020; padding: .3rem .8rem } .screen { display: flex; gap: .5rem; margin-top: 1rem }
"""


def _page(desk: Desk, next_path: str, why: str) -> str:
    provider = desk.access.identity.provider
    by = "" if provider is None else (
        f'<a class="by" href="/sign-in/provider?next={quote(next_path, safe="")}">'
        f"Sign in with {html.escape(provider.setting.name)}</a>"
    )  # fmt: skip
    trouble = f'<p class="why" role="alert">{html.escape(why)}</p>' if why else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in</title>'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<style>{_STYLE}</style></head><body><main><h1>Waywarden hub</h1>{trouble}{by}"
        '<form method="post" action="/sign-in"><label for="key">Key</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required maxlength="80">'
        f'<input type="hidden" name="next" value="{html.escape(next_path)}">'
        '<label class="screen"><input type="checkbox" name="screen" value="1"> '
        "a screen on the wall: stay signed in</label>"
        '<button type="submit">Sign in</button></form></main></body></html>'
    )
