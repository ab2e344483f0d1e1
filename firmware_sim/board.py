"""The depot's screen as a driver sees it: find the own van and read its code.

The screen is the hub's; a driver who stands before a dark one reads nothing and looks again.
"""

import http.client
from urllib.parse import urlsplit

import msgspec

PATIENCE_S = 5.0
LARGEST_BOARD = 1_000_000


class _Van(msgspec.Struct):
    agent: str
    code: str = ""


class _Board(msgspec.Struct):
    vans: tuple[_Van, ...]


def code_on_board(url: str, van: str) -> str:
    """The six digits beside this van on the screen at `url`; "" when it shows none, is dark, or there is none."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return ""
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=PATIENCE_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        text = answer.read(LARGEST_BOARD)
        board = msgspec.json.decode(text, type=_Board) if answer.status == 200 else _Board(())
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return ""
    finally:
        connection.close()
    return next((row.code for row in board.vans if row.agent == van), "")
