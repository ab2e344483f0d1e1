"""The tracking page over HTTP: opened by a signed link and nothing else, and answered there and then.

Whoever holds a link sees one delivery and may speak for its customer. So a link is judged before anything is looked
up; one that opens nothing is answered the same whatever was tried; and no page is cached, indexed, framed or told to
another site. Nothing is loaded from anywhere: styles and script are in the page and allowed by their hashes.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from prometheus_client import Counter

from cloud_hub.contacts import CHANNELS, LANGUAGES, LONGEST_AT_THE_DOOR, NOTICE_KINDS, Customer, Language
from cloud_hub.events import OptOutSaid
from cloud_hub.fleet import Order
from cloud_hub.links import PATH, LinkExpired, Links, LinkWrong
from cloud_hub.sayings import SaidWish, WishRefused, WishSaid, read_wish
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, found, missing, read
from cloud_hub.web.picture import Picture
from cloud_hub.web.problems import Problem
from cloud_hub.web.track import view as views
from cloud_hub.web.track.town import Town
from cloud_hub.web.track.view import Gone, View
from cloud_hub.web.track.words import NAMES, Words, chosen
from cloud_hub.wishes import LEAST_LEFT_MS, last_visit
from cloud_hub.workdays import Workdays
from shared.logs import log, told
from shared.work import OrderId

HERE = Path(__file__).parent
MOST_FORM_BYTES = 4_000
MOST_FIELDS = 12
LINK_OUTLASTS_MS = 48 * 3_600_000
"""A link is good until two days after the slot, as those of notices are: long enough to see how it ended."""

POLL_S = 15


class _LinkIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    days: Annotated[int, msgspec.Meta(ge=1, le=60)] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A page to be answered: its status and its HTML."""

    status: int
    html: str


class Track:
    """Makes the pages of one hub. Called from worker threads."""

    def __init__(self, desk: Desk, picture: Picture, links: Links) -> None:
        self.desk = desk
        self.picture = picture
        self.links = links
        self.zone = ZoneInfo(desk.settings.zone)
        self._workdays = Workdays(desk.settings.zone, desk.settings.redelivery.working_days)
        self._town = Town(desk.roads.city)
        desk.feed.when_forgotten(self._town.forget)
        self._style = Markup((HERE / "templates" / "page.css").read_text("utf-8"))
        self._script = Markup((HERE / "templates" / "page.js").read_text("utf-8"))
        self._pages = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.headers = _headers(self._style, self._script)
        self._refused = Counter(
            "waywarden_track_refused", "What the tracking page refused, by name.", ["what"], registry=desk.registry
        )

    # Reading a link.

    def open(self, token: str) -> View:
        """The delivery a link opens. Raises LinkWrong, LinkExpired or Gone."""
        now_ms = self.desk.clock.now_ms()
        return views.view(self.picture, self.links.read(token, now_ms), now_ms)

    def closed(self, why: Exception, language: Language) -> Shown:
        """The page for a link that opens nothing, the same for every token of its kind."""
        self._refused.labels(type(why).__name__).inc()
        status = {LinkWrong: 404, LinkExpired: 410, Gone: 410}.get(type(why), 503)
        if status == 503:
            # Never the path: whoever reads the log would hold the link.
            log("tracking_page_failed", error=told(why))
        words = Words(language, self.zone, self.desk.clock.now_ms())
        page = self._pages.get_template("gone.html")
        return Shown(status, page.render(**self._frame(words), status=status))

    # Writing pages.

    def page(
        self, token: str, shown: View, language: Language, status: int = 200, trouble: str = "", said: str = ""
    ) -> Shown:
        """The whole page. `trouble` is the key of a refusal to show, `said` of an answer that is no wish's."""
        words = Words(language, self.zone, self.desk.clock.now_ms())
        live = self.live(shown, words)
        page = self._pages.get_template("page.html")
        html = page.render(
            **self._frame(words),
            **self._parts(shown, words),
            token=token,
            live=Markup(live),
            version=version_of(live),
            trouble=trouble,
            notice=said,
            script=self._script,
            poll_s=POLL_S,
        )
        return Shown(status, html)

    def live(self, shown: View, words: Words) -> str:
        """The part of the page that changes by itself."""
        return self._pages.get_template("live.html").render(
            w=words, v=shown, map=self._map(shown, words), attribution=self._town.attribution
        )

    def _map(self, shown: View, words: Words) -> Markup:
        if shown.van is None or shown.visit is None:
            return Markup("")
        title = words("map", distance=words.metres(max(50, shown.van.metres_off)))
        # The drawing escapes every text it is given.
        return Markup(
            self._town.drawing(shown.visit.position, shown.van.position, title, words("you"), words("map.van"))
        )

    def _frame(self, words: Words) -> dict[str, Any]:
        return {
            "w": words,
            "style": self._style,
            "languages": [(language, NAMES[language]) for language in LANGUAGES],
            "shop": self.desk.settings.notices.shop,
        }

    def _parts(self, shown: View, words: Words) -> dict[str, Any]:
        visit, now_ms = shown.visit, self.desk.clock.now_ms()
        days = () if visit is None else views.days_offered(visit, now_ms, self._workdays)
        return {
            "v": shown,
            "sold": None if visit is None else (self._sold(shown.order_id) or visit).slot,
            "days": [(day.isoformat(), words.called(day)) for day in days],
            "longest": LONGEST_AT_THE_DOOR,
            "least_left_ms": LEAST_LEFT_MS,
            "answers": [_answered(said, shown, words) for said in shown.said],
            "channels": _channels(shown.customer),
            "is_silent": shown.customer is not None and set(shown.customer.opted_out) >= set(NOTICE_KINDS),
        }

    # What was said.

    def take(self, token: str, shown: View, form: Mapping[str, str], language: Language) -> Shown | str:
        """Take a form: where to go on after it was answered, or the page that says why it was not.

        Raises Problem 503 when the core does not answer.
        """
        if form.get("wish") in ("opt_out", "opt_in"):
            self._opt_out(shown.order_id, form["wish"] == "opt_out", form.get("channel", ""))
            return f"said={form['wish']}"
        visit = shown.visit
        if visit is None:
            return self._not_taken(token, shown, language, "no_visit")
        try:
            sold = self._sold(shown.order_id) or visit
            wish = read_wish(
                form,
                lambda hour, minute: views.instant_on(visit, hour, minute, self.zone),
                lambda day: views.slot_on(sold.slot, day, self.zone),
            )
        except WishRefused as refused:
            self._refused.labels(type(refused).__name__).inc()
            return self.page(token, shown, language, 422, f"refused.{type(refused).__name__}")
        answer = self.desk.answer(WishSaid(shown.order_id, wish))
        return "said=wish" if answer.named else self._not_taken(token, shown, language, answer.why_not)

    def _not_taken(self, token: str, shown: View, language: Language, why_not: str) -> Shown:
        """The page for a wish that nobody keeps: there is nothing to change, or there were too many."""
        self._refused.labels(why_not).inc()
        return self.page(token, shown, language, 429 if why_not == "too_many" else 409, f"why_not.{why_not}")

    def _opt_out(self, order_id: OrderId, is_out: bool, channel: str) -> None:
        """The customer wants no more messages (by this channel, if it is one), or wants them again."""
        channels = tuple(known for known in CHANNELS if known == channel)
        self.desk.answer(OptOutSaid(order_id, channels=channels, is_out=is_out))

    def _sold(self, order_id: OrderId) -> Any:
        order = self.picture.one("orders", order_id, Order)
        return None if order is None else order.stop


def track_pages(desk: Desk, picture: Picture) -> APIRouter:
    """The tracking page, and what the hub's own people ask about it."""
    router = APIRouter()
    track = Track(desk, picture, desk.links)

    @router.get(PATH + "{token}", include_in_schema=False)
    async def look(request: Request, token: str, lang: str | None = None, said: str = "") -> Response:
        return await run_in_threadpool(_look, track, request, token, lang, said)

    @router.get(PATH + "{token}/state", include_in_schema=False)
    async def state(request: Request, token: str, lang: str | None = None, have: str = "") -> Response:
        return await run_in_threadpool(_state, track, request, token, lang, have)

    @router.get(
        PATH + "{token}/stop",
        tags=["customers"],
        summary="Where the link under an e-mail leads a person: the tracking page, which asks what to stop",
        response_class=HTMLResponse,
        status_code=303,
    )
    async def stop(request: Request, token: str, lang: str | None = None) -> Response:
        return await run_in_threadpool(_stop, track, request, token, lang)

    @router.post(PATH + "{token}", include_in_schema=False)
    async def say(request: Request, token: str, lang: str | None = None) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_say, track, request, token, form, lang)

    @router.post(
        "/api/orders/{order_id}/link",
        tags=["orders"],
        summary="Make a tracking link",
        description="Whoever holds it sees this delivery and may speak for its customer. Good until two days after the "
        "slot, or for the `days` given.",
        responses=missing("order"),
    )
    def link(order_id: str, said: Annotated[dict[str, Any] | None, Body(examples=[{"days": 7}])] = None) -> Json:
        asked = read(said or {}, _LinkIn)
        order = found(picture.one("orders", order_id, Order), f"order '{order_id[:80]}' is unknown")
        if order.is_forgotten:
            raise Problem(410, "the customer of this order was forgotten: nobody may follow it any more")
        now_ms = desk.clock.now_ms()
        expires_ms = now_ms + asked.days * 86_400_000 if asked.days else _until(order, now_ms)
        url = desk.links.link(order.order_id, expires_ms)
        return Json({"order_id": order.order_id, "url": url, "token": url.rpartition("/")[2], "expires_ms": expires_ms})

    @router.get(
        "/api/wishes",
        tags=["picture"],
        summary="What customers asked for, and what came of it",
        description="Newest first, the customers' own words included: not for other systems. `effect` says what was "
        "done, `why_not` why nothing was; `decision_id` names the record, which holds no such word.",
    )
    def wishes(
        order_id: Annotated[str | None, Query(description="Of this order alone", max_length=64)] = None,
        most: Annotated[int, Query(ge=1, le=5000)] = 200,
    ) -> Json:
        kept = picture.all("said_wishes", SaidWish).values()
        chosen_ones = [wish for wish in kept if order_id is None or wish.order_id == order_id]
        chosen_ones.sort(key=lambda wish: (wish.said_ms, wish.wish_id), reverse=True)
        return Json([{**msgspec.to_builtins(wish), "is_done": wish.is_done} for wish in chosen_ones[:most]])

    return router


def _look(track: Track, request: Request, token: str, lang: str | None, said: str) -> Response:
    try:
        shown = track.open(token)
        key = f"said.{said}" if said in ("opt_out", "opt_in") else ""
        return _response(track, track.page(token, shown, _language(request, lang, shown), said=key))
    except Exception as wrong:  # noqa: BLE001 - a customer is shown a page whatever happens; `closed` logs the rest.
        return _response(track, track.closed(wrong, _language(request, lang)))


def _stop(track: Track, request: Request, token: str, lang: str | None) -> Response:
    try:
        track.open(token)
    except Exception as wrong:  # noqa: BLE001 - as above.
        return _response(track, track.closed(wrong, _language(request, lang)))
    # Relative, as below.
    return Response(status_code=303, headers={**track.headers, "Location": f"../{token}#stop"})


def _state(track: Track, request: Request, token: str, lang: str | None, have: str) -> Response:
    """The delivery in a few numbers, and its part of the page unless that is the version the asker has."""
    try:
        shown = track.open(token)
    except (LinkWrong, LinkExpired, Gone) as closed:
        page = track.closed(closed, _language(request, lang))
        return Json({"status": page.status}, status_code=page.status, headers=track.headers)
    words = Words(_language(request, lang, shown), track.zone, track.desk.clock.now_ms())
    live = track.live(shown, words)
    version, van = version_of(live), shown.van
    return Json(
        {
            "version": version,
            "phase": shown.phase,
            "window_ms": None if shown.window is None else list(msgspec.structs.astuple(shown.window)),
            "is_told": shown.is_told,
            "sure_pct": shown.sure_pct,
            "stops_before": shown.stops_before,
            "van": None if van is None else {
                "lat": van.position.lat, "lon": van.position.lon, "age_min": van.age_min
            },
            "outcome": shown.outcome,
            "html": None if have == version else live,
        },
        headers=track.headers,
    )  # fmt: skip


def _say(track: Track, request: Request, token: str, form: Mapping[str, str] | None, lang: str | None) -> Response:
    try:
        shown = track.open(token)
        language = _language(request, lang, shown)
        went = track.take(token, shown, form or {}, language)
    except Exception as wrong:  # noqa: BLE001 - as above.
        return _response(track, track.closed(wrong, _language(request, lang)))
    if isinstance(went, Shown):
        return _response(track, went)
    # Relative, so that the page may live below any path of a proxy; 303, so that a reload says nothing again.
    return Response(status_code=303, headers={**track.headers, "Location": f"{token}?lang={language}&{went}#said"})


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a form, each once; None when the body is none of ours."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_FORM_BYTES:
            return None
    try:
        fields = parse_qs(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="replace"
        )
    except ValueError:
        return None
    return {name: values[-1] for name, values in fields.items()}


def _channels(customer: Customer | None) -> list[tuple[str, bool]]:
    """The channels that could reach the customer, and whether each is still wanted."""
    if customer is None:
        return []
    reached = [("email", customer.email), ("sms", customer.phone)]
    return [(channel, channel not in customer.opted_out_channels) for channel, address in reached if address]


def _answered(said: SaidWish, shown: View, words: Words) -> dict[str, Any]:
    """A wish and its answer, in words."""
    wish = msgspec.to_builtins(said.wish)
    kind = wish["type"]
    text = wish.get("where") or wish.get("who") or ""
    key = f"said.{kind}"
    if kind in ("safe_place", "neighbour", "door_code") and not (text or wish.get("code")):
        key += ".empty"
    if kind == "on_its_way":
        key += ".yes" if wish["is_wanted"] else ".no"
    asked = words(
        key,
        words=text,
        clock=words.clock(wish["at_ms"]) if "at_ms" in wish else "",
        day=words.day_inside(wish["slot"][0]) if "slot" in wish else "",
    )
    holds = shown.visit is None or views.still_holds(said, shown.visit)
    why_not = said.why_not if holds else "under_way"
    is_kept = shown.has_next_time and wish.get("is_for_next", False)
    if why_not:
        answer = words.one_of(f"why_not.{why_not}", "why_not.other")
        if kind == "door_code" and is_kept and wish["code"]:
            answer = f"{answer} {words('remembered')}"
    else:
        told = said.told
        effect = f"effect.{said.effect}"
        if said.effect == "not_before" and told is not None and told == shown.window:
            effect += ".told"
        answer = words(
            effect,
            opens="" if told is None else words.clock(told.opens_ms),
            closes="" if told is None else words.clock(told.closes_ms),
            day="" if told is None else words.day_inside(told.opens_ms),
        )
        if is_kept and said.effect != "taken_back":
            answer = f"{answer} {words('remembered')}"
    return {
        "asked": asked,
        "is_done": not why_not,
        "answer": answer,
        "at": words.when(said.said_ms),
        "wants_other_day": why_not == "too_late_today" or why_not.startswith("needs_person"),
    }


def version_of(live: str) -> str:
    """Changes when the part of the page that changes by itself does."""
    return hashlib.sha256(live.encode()).hexdigest()[:16]


def _until(order: Order, now_ms: int) -> int:
    stop_id = last_visit(order)
    visit = None if stop_id is None else order.stop_named(stop_id)
    return max(now_ms, 0 if visit is None else visit.slot.closes_ms) + LINK_OUTLASTS_MS


def _language(request: Request, asked: str | None, shown: View | None = None) -> Language:
    known = None if shown is None or shown.customer is None else shown.customer.language
    return chosen(asked, known, request.headers.get("accept-language", ""))


def _response(track: Track, shown: Shown) -> Response:
    return Response(shown.html, shown.status, track.headers, "text/html; charset=utf-8")


def _headers(style: str, script: str) -> dict[str, str]:
    """What keeps a page and its address to itself: the address is the key to the page."""
    policy = (
        "default-src 'none'",
        f"style-src {_hash(style)}",
        f"script-src {_hash(script)}",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex, nofollow, noarchive",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
    }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
