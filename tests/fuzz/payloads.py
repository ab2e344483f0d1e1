"""Messages as somebody would write them who means harm: true ones, with some of their fields made false.

Bytes drawn at random end at the first brace. What hurts is a message that is nearly right: the right sender and the
right number, and in one place a number no row can hold, a name with a NUL in it, or a hundred thousand of something.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from shared import topics, wire
from shared.ledger import Alternative, Decision, Input
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    AmendmentTaken,
    Arrived,
    ChangeAnswered,
    Decided,
    DiskTight,
    Estimate,
    EstimatesMoved,
    HeadingTo,
    Numbered,
    ObjectPart,
    OverrideExplained,
    PictureGivenUp,
    PlanRefused,
    PlanTaken,
    Presence,
    Resequenced,
    ShiftChanged,
    TimeFound,
    TooLate,
    Visited,
)
from shared.quantities import EpochMs, Position
from shared.work import AgentId, Outcome, Proof, StopId, Visit

SHORT = 4_000
"""Most of what is too long need not be a megabyte to be too long."""

NUMBERS = (
    -1, 0, 1, 2, 7, -(1 << 31), 1 << 31, (1 << 53) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**30,
    10**400, 253_402_300_800_000, -62_135_596_800_001, 1e308, -1e308, 1e-320, 0.5, float("nan"), float("inf"),
)  # fmt: skip
NAMES = (
    "", " ", "\0", "a\0b", "\x01", "\ud800", "\u202e", "\ufffe", "hub", "van-n", "van-s", "van-s/events", "/", "+", "#",
    "../../etc/passwd", "$SYS", "'; DROP TABLE decisions; --", '"', "\\", "%s", "{}", "<script>alert(1)</script>",
    "\n", "\r\n", "é", "\U0001d518", "stop-1", "stop-2", "stop-9", "order-1", "hub-000001", "begun", "ended", "self",
    "0" * 64, "x" * SHORT, "at", "agent", "c0", "lat", "lon", "value", "speed_mps", "speed_mps_n", "tableoid", "ctid",
)  # fmt: skip


def deep(levels: int) -> Any:
    """Lists in lists."""
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


THINGS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], deep(90), {"type": "heading_to"}, {"type": "plan_pushed"}, {"type": "nonsense"},
    ["stop-1"] * 300, list(range(3_000)), {str(k): k for k in range(1_000)}, [1.5, 2.5], [["stop-1", "why"]],
)  # fmt: skip
NASTY: st.SearchStrategy[Any] = (
    st.sampled_from(NUMBERS)
    | st.sampled_from(NAMES)
    | st.sampled_from(THINGS)
    | st.text(max_size=80)
    | st.integers(-(1 << 66), 1 << 66)
    | st.floats()
)

OWN = AgentId("van-n")
"""Whose certificate the attacker has."""

AT_MS = 1_772_523_000_000
"""An instant of the day that tests drive."""

DIGEST = "ab" * 32


def decision(number: int = 1, by: str = OWN) -> Decision:
    return Decision(
        f"{by}-{number:06d}", AgentId(by), "resequenced", EpochMs(AT_MS), "changed the order", "late",
        (Input("late", "7 min"),), (Alternative("keep", 10.0), Alternative("change", 8.0)), 1, "allowed", "the rules",
        ("stop-1",), "", 7, 1000,
    )  # fmt: skip


def events() -> list[AgentEvent]:
    """One of everything an agent says, each true."""
    stop, other = StopId("stop-1"), StopId("stop-2")
    estimates = (
        Estimate(stop, EpochMs(AT_MS), EpochMs(AT_MS + 60_000), EpochMs(AT_MS + 90_000)),
        Estimate(other, EpochMs(AT_MS), EpochMs(AT_MS + 60_000), EpochMs(AT_MS + 90_000)),
    )
    proof = Proof(("A1",), Position(60.17, 24.94), EpochMs(AT_MS), DIGEST, None)
    return [
        AgentStarted("van", "1.0", 1),
        PlanTaken(1),
        PlanRefused(1, "it is too long"),
        ShiftChanged("begun"),
        HeadingTo(stop),
        Arrived(stop),
        Visited(Visit(stop, Outcome.DELIVERED_TO_PERSON, EpochMs(AT_MS), EpochMs(AT_MS + 1000), proof)),
        Visited(Visit(other, Outcome.ATTEMPTED, EpochMs(AT_MS), EpochMs(AT_MS + 1000), proof, "nobody there")),
        EstimatesMoved(estimates, "traffic"),
        Resequenced("c-1", 1, (stop, other), (other, stop), decision(), estimates),
        AmendmentTaken(1, (stop,), ((other, "under way"),), (other, stop)),
        OverrideExplained(stop, other, "road", "words"),
        ObjectPart(DIGEST, "signature", stop, "image/png", 0, 1, b"\x89PNG"),
        Decided(decision(2)),
        ChangeAnswered("c-1", "refused", "no", (stop, other)),
        TooLate("plan_pushed", 1, EpochMs(AT_MS)),
        DiskTight(True),
        PictureGivenUp(DIGEST, stop),
        TimeFound(5_000, "gnss"),
    ]


class Spoilt(msgspec.Struct, frozen=True):
    """What an attacker says on one of its topics."""

    topic: str
    payload: bytes


def as_json(said: Any) -> bytes:
    """JSON of anything at all: also of what JSON has no word for, and of half of a surrogate pair."""
    return json.dumps(said, default=repr).encode()


def _places(said: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    if isinstance(said, dict):
        for name, inner in said.items():
            found += _places(inner, (*here, name))
    elif isinstance(said, list):
        for k, inner in enumerate(said[:20]):
            found += _places(inner, (*here, k))
    return found


def _is_branch(said: Any) -> bool:
    return isinstance(said, dict) or (isinstance(said, list) and any(isinstance(one, (dict, list)) for one in said))


def _at(said: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        said = said[step]
    return said


WHOLE = st.sampled_from([one for one in NUMBERS if isinstance(one, int)]) | st.integers(-(1 << 66), 1 << 66)


def _like(true: Any) -> st.SearchStrategy[Any]:
    """Something false of the same kind, which a check of kinds alone lets through."""
    if isinstance(true, bool):
        return st.just(not true)
    if isinstance(true, int):
        return WHOLE | st.sampled_from([true + 1, true - 1, -true])
    if isinstance(true, float):
        return st.floats() | st.sampled_from(NUMBERS)
    if isinstance(true, str):
        return st.sampled_from(NAMES) | st.text(max_size=80)
    if isinstance(true, list):
        return st.sampled_from([[], true * 2, true * 200, true[::-1], true[:1]])
    return NASTY


def _put(said: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copied = dict(said) if isinstance(said, dict) else list(said)
    copied[place[0]] = _put(copied[place[0]], place[1:], value)
    return copied


@st.composite
def spoilt(draw: st.DrawFn, said: Any, most: int = 3, spare: tuple[str, ...] = ()) -> Any:
    """A document with a few of its places made false; the top-level names of `spare` stay as they are."""
    document = msgspec.to_builtins(said) if isinstance(said, msgspec.Struct) else said
    for _ in range(draw(st.sampled_from([1, 1, *range(1, most + 1)]))):
        places = [place for place in _places(document) if place and place[0] not in spare]
        if draw(st.integers(0, 9)):
            # Mostly a leaf, for what is false at its root is refused as a whole.
            leaves = [place for place in places if place[-1] != "type" and not _is_branch(_at(document, place))]
            places = leaves or places
        place = draw(st.sampled_from(places))
        how = _like(_at(document, place)) if draw(st.integers(0, 7)) else NASTY
        document = _put(document, place, draw(how))
    return document


@st.composite
def bytes_of(draw: st.DrawFn, document: Any) -> bytes:
    """The document as bytes, mostly whole."""
    payload = as_json(document)
    how = draw(st.integers(0, 19))
    if how == 0:
        return payload[: draw(st.integers(0, len(payload)))]
    if how == 1:
        place = draw(st.integers(0, max(0, len(payload) - 1)))
        return payload[:place] + draw(st.binary(min_size=1, max_size=3)) + payload[place + 1 :]
    if how == 2:
        return b"\xff\xfe" + payload
    if how == 3:
        return payload.replace(b'"', b'"\xed\xa0\x80', 1)
    if how == 4:
        return b"[" * 100_000
    return payload


@st.composite
def said_by(draw: st.DrawFn, agent: AgentId = OWN, seq: Callable[[], int] = lambda: 1) -> Spoilt:
    """An event, piece of a picture, ack or presence of this agent, on a topic of its own or of another.

    Mostly the numbering is right, for else nothing would reach the core.
    """
    carries = draw(st.sampled_from(["events"] * 8 + ["objects", "acks", "presence", "presence"]))
    topic = topics.up("main", agent, carries)
    if carries in ("events", "objects"):
        event = draw(
            st.sampled_from([one for one in events() if isinstance(one, ObjectPart) == (carries == "objects")])
        )
        numbered = Numbered(agent, f"{agent}-boot", carries, seq(), EpochMs(AT_MS), 0, event)
        kept = draw(st.sampled_from([("sender", "boot", "stream", "seq")] * 9 + [()]))
        return Spoilt(topic, draw(bytes_of(draw(spoilt(numbered, spare=kept)))))
    if carries == "acks":
        ack = Ack(topics.HUB, draw(st.sampled_from(["boot", "b"])), "commands", 1, (2, 3))
        return Spoilt(topic, draw(bytes_of(draw(spoilt(ack)))))
    unacked = {"events": 1, "telemetry": 1, "objects": 1}
    there = Presence(
        agent, True, "life", f"{agent}-boot", 0, unacked, draw(st.booleans()), draw(st.sampled_from(["", "q"]))
    )
    return Spoilt(topic, draw(bytes_of(draw(spoilt(there, spare=("party",))))))


# Telemetry.


def batch_bytes(heading: Any, at_ms: np.ndarray, columns: list[np.ndarray]) -> bytes:
    """A batch whose heading may be anything."""
    words = as_json(heading)
    return b"".join(
        [len(words).to_bytes(4, "little"), words, at_ms.tobytes(), *(column.tobytes() for column in columns)]
    )


INSTANTS = st.sampled_from(
    [AT_MS, AT_MS + 1, AT_MS - 86_400_000, 0, -1, 1, 1 << 45, (1 << 53) - 1, 1 << 53, (1 << 63) - 1, -(1 << 63)]
)
CHANNELS = st.lists(st.sampled_from(NAMES) | st.text(max_size=70), min_size=0, max_size=5)


@st.composite
def batches(draw: st.DrawFn, agent: AgentId = OWN, seq: Callable[[], int] = lambda: 1) -> bytes:
    """A batch of telemetry: sometimes only its values are absurd, sometimes its channels, sometimes all of it."""
    samples = draw(st.integers(0, 5))
    channels = draw(CHANNELS | st.just(["speed_mps", "lat", "lon"]) | st.just(["speed_mps"]))
    at_ms = np.array(draw(st.lists(INSTANTS, min_size=samples, max_size=samples)), "<i8")
    columns = [
        np.array(draw(st.lists(st.floats(width=32), min_size=samples, max_size=samples)), "<f4") for _ in channels
    ]
    if draw(st.booleans()):
        at_ms = np.full(samples, AT_MS, "<i8") + np.arange(samples)
    heading = {
        "sender": agent, "boot": f"{agent}-boot", "seq": seq(), "origin": [60.17, 24.94], "channels": channels,
        "samples": samples, "thinned": 0 if samples else 1,
    }  # fmt: skip
    if draw(st.integers(0, 2)) == 0:
        heading = draw(spoilt(heading, 2))
    payload = batch_bytes(heading, at_ms, columns)
    how = draw(st.integers(0, 14))
    if how == 0:
        return payload[: draw(st.integers(0, len(payload)))]
    if how == 1:
        return draw(st.binary(min_size=4, max_size=4)) + payload[4:]
    return payload


# Commands and what else an agent hears.


def heard_by_agent() -> st.SearchStrategy[Any]:
    """What may come on an agent's topics, spoilt; commands are signed afterwards, as a hub gone bad would."""
    told = Numbered(
        topics.HUB, "b", "commands", 1, EpochMs(AT_MS), 1, HeadingTo(StopId("stop-1")), EpochMs(AT_MS), 0
    )  # fmt: skip
    ack = Ack(OWN, "b", "events", 1, (2, 3))
    there = Presence(topics.HUB, True, "life", "b", 1)
    return st.sampled_from([("commands", told), ("acks", ack), ("presence", there), ("ingest", there)]).flatmap(
        lambda one: spoilt(one[1]).flatmap(bytes_of).map(lambda payload: (one[0], payload))
    )


assert wire.MOST_BYTES > 100_000, "what is nested deepest still comes in"
