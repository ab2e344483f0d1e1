"""The screen on the depot's wall: which van leaves when, and the code that opens its driver's page today.

Plain HTML that loads itself again, without a script: any old screen can show it, and nothing of it stays in a cache.
"""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from cloud_hub.board import shift_code
from cloud_hub.contacts import Language
from cloud_hub.fleet import AgentRecord, Vehicle
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json, found, missing
from cloud_hub.web.picture import Picture
from shared.contracts import Plan
from shared.work import Depot

AGAIN_S = 20
"""How often the screen loads itself again: a new plan is up before its driver has crossed the hall."""

SEALED = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Refresh": str(AGAIN_S),
}
"""Codes stay on the screen: nothing keeps them, and the page can load nothing that would carry them away."""


def board_pages(desk: Desk, picture: Picture) -> APIRouter:
    """The depot's screen, for eyes and for programs."""
    router = APIRouter(tags=["day"])

    @router.get(
        "/api/depots/{depot_id}/board",
        summary="Today's vans of a depot, with departure and shift code",
        description="The code opens the driver's page of that van for this day. It is the same for every plan of the "
        "day and is not shown any more once the shift has ended.",
        responses=missing("depot"),
    )
    def board(depot_id: str) -> Json:
        content = _board(desk, picture, depot_id)
        return _kept_nowhere(Json(content))

    @router.get("/depots/{depot_id}", summary="The depot's screen", response_class=HTMLResponse)
    def screen(
        depot_id: str, lang: Annotated[Language, Query(description="The language of the screen")] = "en"
    ) -> HTMLResponse:
        return HTMLResponse(_screen(_board(desk, picture, depot_id), lang), headers=SEALED)

    return router


def _kept_nowhere(answer: Json) -> Json:
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _board(desk: Desk, picture: Picture, depot_id: str) -> dict[str, Any]:
    depot = found(picture.one("depots", depot_id, Depot), f"depot '{depot_id[:80]}' is unknown")
    day = desk.today()
    agents = picture.all("agents", AgentRecord)
    plans = picture.all("plans", Plan)
    vans = [
        _van(desk, vehicle, agents.get(name), plans.get(name))
        for name, vehicle in picture.all("vehicles", Vehicle).items()
        if vehicle.depot_id == depot_id and vehicle.day == day
    ]
    return {
        "depot_id": depot.depot_id,
        "name": depot.name,
        "day": day,
        "now": _face(desk, desk.clock.now_ms()),
        "vans": sorted(vans, key=lambda van: (van["shift"] == "ended", van["depart_ms"], van["agent"])),
    }


def _van(desk: Desk, vehicle: Vehicle, agent: AgentRecord | None, plan: Plan | None) -> dict[str, Any]:
    planned = plan if plan is not None and plan.day == vehicle.day else None
    depart_ms = vehicle.begins_ms if planned is None else planned.depart_ms
    shift = "waiting" if agent is None else agent.shift
    return {
        "agent": vehicle.agent,
        "code": "" if shift == "ended" else shift_code(desk.secret, vehicle.agent, vehicle.day),
        "depart_ms": depart_ms,
        "departs": _face(desk, depart_ms),
        "stops": 0 if planned is None else len(planned.stops),
        "is_planned": planned is not None,
        "shift": shift,
    }


def _face(desk: Desk, instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, ZoneInfo(desk.settings.zone)).strftime("%H:%M")


_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "van": "Van", "departs": "Departs", "code": "Code", "stops": "Stops", "waiting": "", "begun": "out",
        "on_break": "on a break", "off_break": "out", "ended": "done", "planning": "not planned yet",
        "nobody": "No van leaves from here today.", "how": "Type the code on the driver's page of your van.",
    },
    "fi": {
        "van": "Auto", "departs": "Lähtö", "code": "Koodi", "stops": "Käynnit", "waiting": "", "begun": "ajossa",
        "on_break": "tauolla", "off_break": "ajossa", "ended": "valmis", "planning": "ei vielä suunniteltu",
        "nobody": "Täältä ei lähde tänään autoja.", "how": "Kirjoita koodi autosi kuljettajan sivulle.",
    },
    "sv": {
        "van": "Bil", "departs": "Avgång", "code": "Kod", "stops": "Stopp", "waiting": "", "begun": "ute",
        "on_break": "på rast", "off_break": "ute", "ended": "klar", "planning": "inte planerad än",
        "nobody": "Ingen bil avgår härifrån i dag.", "how": "Skriv koden på förarsidan för din bil.",
    },
}  # fmt: skip

_STYLE = """
:root { color-scheme: dark }
body { margin: 0; padding: 2vw; background: #000; color: #fff; font: 600 3vw/1.2 system-ui, sans-serif }
header { display: flex; justify-content: space-between; gap: 2vw; align-items: baseline }
h1 { font-size: 4vw; margin: 0 }
p { font-weight: 400; font-size: 2.2vw; margin: .5vw 0 1.5vw }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-size: 2vw; font-weight: 400; color: #cfcfcf; padding: 0 1vw }
td { font-size: min(4.4vw, 46vh / var(--vans)); padding: .1em .25em; border-top: .2vw solid #555; white-space: nowrap }
td.code { font-size: min(8vw, 60vh / var(--vans)); line-height: 1; letter-spacing: .08em; color: #ffd84a }
td.more { font-size: min(2.2vw, 28vh / var(--vans)); font-weight: 400 }
"""
"""Sized by the screen, so that no van is below its edge. On one a metre wide the codes of up to four vans are some 6 cm
high, those of ten 3 cm; a digit is legible from about 200 times its height (the usual rule for signs): six metres.
"""


def _screen(board: Mapping[str, Any], lang: Language) -> str:
    words = _WORDS[lang]
    name, day, now = (html.escape(str(board[field])) for field in ("name", "day", "now"))
    vans = _table(board["vans"], words) if board["vans"] else f"<p>{words['nobody']}</p>"
    return (
        f'<!doctype html><html lang="{lang}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta name="robots" content="noindex"><title>{name} {day}</title><style>{_STYLE}</style></head>'
        f"<body><main><header><h1>{name}</h1><span>{day} {now}</span></header>"
        f"<p>{words['how']}</p>{vans}</main></body></html>"
    )


def _table(vans: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    heads = "".join(f'<th scope="col">{words[column]}</th>' for column in ("van", "departs", "code", "stops"))
    rows = "".join(_row(van, words) for van in vans)
    return f'<table style="--vans:{len(vans)}"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _row(van: Mapping[str, Any], words: Mapping[str, str]) -> str:
    code = van["code"]
    state = words.get(van["shift"], "")
    more = f"{van['stops']} {state}" if van["is_planned"] else words["planning"]
    return (
        f"<tr><td>{html.escape(van['agent'])}</td><td>{van['departs']}</td>"
        f'<td class="code">{code[:3]} {code[3:]}</td><td class="more">{more.strip()}</td></tr>'
    )
