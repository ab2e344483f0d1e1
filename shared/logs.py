"""Logs are sentences with ids: a fixed event name, then fields, one line each on standard error."""

import sys
import threading
import time
import traceback
from pathlib import PurePath

SPEAK_OF_NOBODY = frozenset(("cloud_hub", "edge_agent", "firmware_sim", "deploy", "shared", "sqlite3"))
"""Whose errors' words may be repeated."""
PLACES = 3

_lock = threading.Lock()


def log(event: str, **fields: object) -> None:
    """Write one line: the wall clock's time (UTC), the event's name, and its fields as name=value."""
    words = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), event]
    words += [f"{name}={_word(value)}" for name, value in fields.items()]
    with _lock:
        print(*words, file=sys.stderr, flush=True)  # noqa: T201 - this is the one place that may.


def told(error: BaseException) -> str:
    """An error as it may be logged and kept: its name, its own words when they are ours or the system's, and where.

    What a library says of a text it could not read may hold that text, and the text may be somebody's name.
    """
    kind = type(error)
    if kind.__module__.partition(".")[0] in SPEAK_OF_NOBODY or isinstance(error, OSError | AssertionError):
        return f"{kind.__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)[-PLACES:]
    at = " < ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{kind.__name__} at {at}" if at else kind.__name__


def _word(value: object) -> str:
    """A value may be anybody's: no line is begun by it, no terminal commanded, no writing turned round."""
    text = str(value)
    return repr(text) if not text or not text.isprintable() or " " in text else text
