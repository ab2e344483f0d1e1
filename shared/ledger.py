"""The hash-chained record of decisions, and its verification.

Everything the system does on its own is a decision. Each node chains its
records with SHA-256, so that a changed, cut or rewritten record is found
and the first bad one can be named.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

import msgspec

from shared.quantities import EpochMs
from shared.work import AgentId

FIRST_LINK = "0" * 64
"""What the first record of a chain names as its predecessor."""


class Input(msgspec.Struct, frozen=True):
    """One thing a decision looked at: its value in words, how old it was and how far it could be trusted."""

    name: str
    value: str
    age_s: float = 0.0
    quality: str = "good"

    def __post_init__(self) -> None:
        _make_floats(self, "age_s")


class Alternative(msgspec.Struct, frozen=True):
    """One thing that could have been done, and what it would have cost.

    `cost_s` is in weighted seconds by the `routes` evaluator; `late_s` the plain lateness, `driving_s` the driving in
    it.
    """

    what: str
    cost_s: float
    late_s: float = 0.0
    driving_s: float = 0.0
    changed_arcs: int = 0

    def __post_init__(self) -> None:
        _make_floats(self, "cost_s", "late_s", "driving_s")


class Decision(msgspec.Struct, frozen=True):
    """One decision: cause, inputs, alternatives, choice, verdict and the sentence a person reads."""

    decision_id: str
    by: AgentId
    kind: str
    at_ms: EpochMs
    sentence: str
    cause: str
    inputs: tuple[Input, ...]
    alternatives: tuple[Alternative, ...]
    chosen: int
    verdict: str
    approved_by: str
    about: tuple[str, ...] = ()
    model: str = ""
    seed: int = 0
    iterations: int = 0
    previous: str = FIRST_LINK

    def link(self) -> str:
        """The SHA-256 of this record, which the next one names as `previous`."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def _make_floats(record: msgspec.Struct, *names: str) -> None:
    """A whole number given where a float belongs would be hashed as `5` here and, read back, as `5.0` there."""
    for name in names:
        msgspec.structs.force_setattr(record, name, float(getattr(record, name)))


def first_broken(chain: Iterable[Decision], begins_after: str = FIRST_LINK) -> Decision | None:
    """The first record that does not follow from the one before it; None when the whole chain holds."""
    link = begins_after
    for decision in chain:
        if decision.previous != link:
            return decision
        link = decision.link()
    return None


_ID = re.compile(r"[\w.:-]*\w")


def spoken(sentence: str, names: Mapping[str, str]) -> str:
    """A record's sentence as people read it: ids replaced by what they are called.

    Records hold ids alone. Addresses are personal data and must be forgettable, which a hash chain is not.
    """
    return _ID.sub(lambda word: names.get(word.group(), word.group()), sentence)
