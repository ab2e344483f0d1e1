"""Who asks while a request is answered, and what they may see of the books.

Set by the gate before a request reaches its page, and carried into worker threads with the request's context: a page
that forgets to ask is bound all the same, because the picture it reads from asks here.
"""

from contextvars import ContextVar

from cloud_hub.access.roles import Caller
from cloud_hub.access.sight import Sight

_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
_sight: ContextVar[Sight | None] = ContextVar("sight", default=None)


def let_in(caller: Caller | None, sight: Sight | None) -> None:
    """From here on this request is theirs."""
    _caller.set(caller)
    _sight.set(sight)


def caller() -> Caller | None:
    """Who asks; None when nobody need say."""
    return _caller.get()


def sight() -> Sight | None:
    """What the caller may see; None when nothing is hidden from them."""
    return _sight.get()


def hand(by: str) -> str:
    """How the person behind a change is named beside its record: what a person signed in with, else what they say,
    with the name of the key they said it with.
    """
    known = _caller.get()
    if known is None or known.kind == "machine":
        return by[:64]
    if known.subject.startswith("person:") or by in ("", "the API", "the command line"):
        return known.name[:64]
    return f"{by[:40]} ({known.name[:40]})"
