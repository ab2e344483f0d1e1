"""Logs are sentences with ids: a fixed event name, then fields, one line each on standard error."""

import sys
import threading
import time

_lock = threading.Lock()


def log(event: str, **fields: object) -> None:
    """Write one line: the wall clock's time (UTC), the event's name, and its fields as name=value."""
    words = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), event]
    words += [f"{name}={_word(value)}" for name, value in fields.items()]
    with _lock:
        print(*words, file=sys.stderr, flush=True)  # noqa: T201 - this is the one place that may.


def _word(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() for c in text) else text
