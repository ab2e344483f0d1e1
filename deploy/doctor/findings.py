"""One thing that was looked at, and a way to look at many that ends whatever they do."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from shared.logs import told

LIMIT_S = 10.0
"""Longer than any look waits of its own accord; only a name server or a disk that hangs comes to it."""

ASK_AS = "ask as whom it runs as: sudo -u waywarden waywarden doctor …"

Severity = Literal["well", "worth a look", "wrong", "not seen"]


class Finding(NamedTuple):
    """One thing that was looked at. `mend` is the command or step that puts it right; empty when all is well.

    `graver` is how bad it is when it is not well: wrong, worth a look, or not seen when it could not be looked at.
    """

    what: str
    is_well: bool
    found: str
    mend: str = ""
    graver: Severity = "wrong"

    @property
    def severity(self) -> Severity:
        """How it stands."""
        return "well" if self.is_well else self.graver


class Look(NamedTuple):
    """Something to look at, under a name; `see` says what is found there and may take its time, or raise."""

    what: str
    see: Callable[[], Iterable[Finding]]


def examined(looks: Sequence[Look], limit_s: float = LIMIT_S) -> Iterator[Finding]:
    """What all the looks find, in their order. They look at once, and what takes longer than the limit, or breaks, is a
    finding by itself. What was found before that is told too.
    """
    begun = [(look, *_begun(look)) for look in looks]
    deadline = time.monotonic() + limit_s
    for look, thread, found in begun:
        thread.join(max(0.0, deadline - time.monotonic()))
        is_late = thread.is_alive()
        yield from found.copy()
        if is_late:
            yield unseen(look.what, f"no answer within {limit_s:.0f} s", "look whether its disk, host or name hangs")


def unseen(what: str, why: str, mend: str) -> Finding:
    """Something that could not be looked at."""
    return Finding(what, False, why, mend, "not seen")


def worth_a_look(what: str, is_well: bool, found: str, mend: str) -> Finding:
    """Something that is no fault yet when it is not well."""
    return Finding(what, is_well, found, mend, "worth a look")


def exit_status(findings: Iterable[Finding]) -> int:
    """0 when nothing is wrong, 1 when something is, 2 when nothing is but something could not be looked at."""
    severities = {finding.severity for finding in findings}
    return 1 if "wrong" in severities else 2 if "not seen" in severities else 0


def _begun(look: Look) -> tuple[threading.Thread, list[Finding]]:
    found: list[Finding] = []

    def see() -> None:
        try:
            # One by one: what was found before a look hangs is not lost with it.
            for finding in look.see():
                found.append(finding)
        except PermissionError as closed:
            found.append(unseen(look.what, f"{closed.filename} may not be read by this user", ASK_AS))
        except Exception as wrong:  # noqa: BLE001 - a doctor who faints helps nobody.
            found.append(unseen(look.what, f"the look itself broke: {told(wrong)}", "report it, with this line"))

    thread = threading.Thread(target=see, name=f"look at {look.what}", daemon=True)
    thread.start()
    return thread, found
