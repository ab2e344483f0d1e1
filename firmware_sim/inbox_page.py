"""The page of the test inbox: what each customer got, newest first, rendered as a telephone would show it."""

import html
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MOST_SHOWN = 300
_LINK = re.compile(r"https?://[^\s<>\"')]+")

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
article { border: 1px solid #8888; border-radius: .5rem; padding: .75rem 1rem; margin: .5rem 0 }
header { display: flex; gap: .75rem; align-items: baseline; flex-wrap: wrap }
.channel { font-size: .8rem; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .5rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: .5rem 0 }
a { overflow-wrap: anywhere }
iframe { width: 100%; height: 24rem; border: 1px solid #8888; background: #fff }
"""


class Shown(NamedTuple):
    """One message: when it came (epoch ms), by which channel, for whom, and what it says; "" for what it lacks."""

    received_ms: int
    channel: str
    to: str
    name: str
    subject: str
    text: str
    html: str


def page(messages: Sequence[Shown], utc_offset_s: int) -> str:
    """The whole page as HTML. The mail's own HTML is shown in a frame that may do nothing."""
    newest = sorted(messages, key=lambda shown: -shown.received_ms)
    left_out = f"<p>The newest {MOST_SHOWN} are shown.</p>" if len(newest) > MOST_SHOWN else ""
    by_customer: dict[str, list[Shown]] = {}
    for shown in newest[:MOST_SHOWN]:
        by_customer.setdefault(shown.to, []).append(shown)
    sections = "".join(_section(to, own, utc_offset_s) for to, own in by_customer.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Test inbox</title><style>{STYLE}</style><body><main><h1>Test inbox</h1>"
        f"<p>{len(newest)} messages. Everything ends here; nothing has left this machine.</p>{left_out}"
        f"{sections}</main></body></html>"
    )


def _section(to: str, messages: Sequence[Shown], utc_offset_s: int) -> str:
    name = next((shown.name for shown in messages if shown.name), "")
    heading = html.escape(f"{name} ({to})" if name else to)
    return f"<section><h2>{heading}</h2>{''.join(_article(shown, utc_offset_s) for shown in messages)}</section>"


def _article(shown: Shown, utc_offset_s: int) -> str:
    at = datetime.fromtimestamp(shown.received_ms / 1000, UTC) + timedelta(seconds=utc_offset_s)
    subject = f"<strong>{html.escape(shown.subject)}</strong>" if shown.subject else ""
    return (
        f"<article><header><time>{at:%H:%M}</time><span class=channel>{html.escape(shown.channel)}</span>{subject}"
        f"</header>{_body(shown)}{_links(shown.text)}</article>"
    )


def _body(shown: Shown) -> str:
    if not shown.html:
        return f"<pre>{html.escape(shown.text)}</pre>"
    title = html.escape(shown.subject or "mail", quote=True)
    return f'<iframe sandbox="" title="{title}" srcdoc="{html.escape(shown.html, quote=True)}"></iframe>'


def _links(text: str) -> str:
    """What the message links to, to be opened from here: inside the frame nothing can be."""
    found = dict.fromkeys(link.rstrip(".,;") for link in _LINK.findall(text))
    return "".join(
        f'<p><a href="{html.escape(link, quote=True)}" rel="noreferrer">{html.escape(link)}</a></p>' for link in found
    )
