"""The driver at the wheel, between the agent's page and the van: reads what is shown, sets off, reports what was done.

Pure decision: it is given the page as last seen, the truth of the van and an instant, and gives back what to post and
which labels were scanned. The driver looks at the page only while standing still. When the page does not answer, the
driver goes on with the order remembered, as people do, and the reports wait.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from firmware_sim import pictures
from firmware_sim.luck import Luck
from firmware_sim.person import Driver, Errand, answer, explanation, next_errand
from firmware_sim.vehicle import Arrived, Happening, Rested, Scanned, Served, StreetFoundClosed, Van
from shared.quantities import Position, Seconds
from shared.work import Depot


class Break(msgspec.Struct, frozen=True):
    """When the driver may rest, and for how long."""

    earliest_ms: int
    latest_ms: int
    duration_s: float
    taken: bool = False


class Gate(msgspec.Struct, frozen=True):
    """The depot as the page names it."""

    name: str
    position: Position
    gateway: Position
    stem_s: float = 0

    def depot(self) -> Depot:
        """The depot the van drives from."""
        return Depot(self.name, self.name, self.position, self.gateway, Seconds(round(self.stem_s)))


class Change(msgspec.Struct, frozen=True):
    """The last change of order nobody has answered yet."""

    change_id: str
    why: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Done(msgspec.Struct, frozen=True):
    """A stop the page counts as done."""

    stop_id: str


class Question(msgspec.Struct, frozen=True):
    """The page asks why the driver went to this stop when another was shown first."""

    stop_id: str


class Day(msgspec.Struct, frozen=True):
    """The page, as the driver reads it."""

    revision: int
    shift: Literal["waiting", "under_way", "on_break", "ended"] = "waiting"
    depart_ms: int | None = None
    rest: Break | None = msgspec.field(default=None, name="break")
    depot: Gate | None = None
    stops: tuple[Errand, ...] = ()
    done: tuple[Done, ...] = ()
    change: Change | None = None
    question: Question | None = None
    heading_to: str | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A signature or photograph as PNG bytes, taken at a stop."""

    kind: Literal["signature", "photo"]
    stop_id: str
    content: bytes

    @property
    def digest(self) -> str:
        """What names these bytes: SHA-256, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Post:
    """One report to the page. `scans` are the labels that must have been scanned before, `pictures` what the page must
    have been given before.
    """

    path: str
    body: dict[str, Any]
    scans: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(slots=True)
class Told:
    """What the driver did in one moment: reports in order, labels scanned, streets found closed."""

    posts: list[Post] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)
    found_closed: list[int] = field(default_factory=list)


class Wheel:
    """One driver's working day. `patience_ms` is how long the driver waits for the page after reporting a stop."""

    def __init__(self, who: Driver, luck: Luck, patience_ms: int) -> None:
        self.who = who
        self.served: dict[str, Served] = {}
        self.is_in_a_mood = False
        """Whether the next changed order is turned down, whatever it is."""
        self._luck = luck
        self._patience_ms = patience_ms
        self._is_begun = self._has_rested = self._goes_home = False
        self._answered: set[str] = set()
        self._explained: set[str] = set()
        self._reported_ms: int | None = None
        self._reported_stop = ""
        self._refused: tuple[int, int] | None = None

    def act(self, van: Van, day: Day | None, now_ms: int) -> Told:
        """What the driver does at this instant; tells the van where to go."""
        told = Told()
        for happening in van.taken():
            self._take(happening, told)
        if day is None:
            return told
        if self._goes_home:
            # The telephone rings: there is more to do.
            self._goes_home = not (self.remaining(day) and van.turn_back(now_ms))
            return told
        if van.phase != "driving":
            self._answer_change(day, now_ms, told)
            self._answer_question(day, told)
        if van.is_free and not told.posts and not self._waits_for(day, now_ms):
            self._choose(van, day, now_ms, told)
        return told

    def remaining(self, day: Day | None) -> list[Errand]:
        """The stops still to be served, in the order the page shows."""
        return [errand for errand in day.stops if errand.stop_id not in self.served] if day is not None else []

    def _take(self, happening: Happening, told: Told) -> None:
        if isinstance(happening, Scanned):
            told.scans.append(happening.barcode)
        elif isinstance(happening, StreetFoundClosed):
            told.found_closed.append(happening.way)
        elif isinstance(happening, Rested):
            told.posts.append(Post("/api/shift", {"is": "off_break"}))
        elif isinstance(happening, Arrived) and happening.stop_id is None:
            told.posts.append(Post("/api/shift", {"is": "ended"}))
        elif isinstance(happening, Served):
            self.served[happening.errand.stop_id] = happening
            self._reported_stop, self._reported_ms = happening.errand.stop_id, happening.at_ms
            told.posts.append(_outcome(happening, self._luck))

    def _answer_change(self, day: Day, now_ms: int, told: Told) -> None:
        change = day.change
        if change is None or change.change_id in self._answered:
            return
        self._answered.add(change.change_id)
        who = replace(self.who, refuses=1.0) if self.is_in_a_mood else self.who
        self.is_in_a_mood = False
        what, why = answer(who, change.change_id, self._luck)
        if what == "refused":
            self._refused = day.revision, now_ms
        body = {"change_id": change.change_id, "answer": what, "reason": why}
        told.posts.append(Post("/api/change", body))

    def _answer_question(self, day: Day, told: Told) -> None:
        """Asked once, answered once or not at all."""
        if day.question is None or day.question.stop_id in self._explained:
            return
        stop_id = day.question.stop_id
        self._explained.add(stop_id)
        why = explanation(stop_id, self._luck)
        if why is not None:
            told.posts.append(Post("/api/override", {"stop_id": stop_id, "reason": why}))

    def _waits_for(self, day: Day, now_ms: int) -> bool:
        """Whether the page has yet to take in the last report or refusal, and patience lasts."""
        if self._refused is not None:
            revision, refused_ms = self._refused
            if day.revision <= revision and now_ms < refused_ms + self._patience_ms:
                return True
            self._refused = None
        if self._reported_ms is None:
            return False
        if any(done.stop_id == self._reported_stop for done in day.done):
            self._reported_ms = None
            return False
        return now_ms < self._reported_ms + self._patience_ms

    def _choose(self, van: Van, day: Day, now_ms: int, told: Told) -> None:
        left = self.remaining(day)
        if not self._is_begun:
            if not left or day.depart_ms is None or now_ms < day.depart_ms:
                return
            self._is_begun = True
            if day.shift == "waiting":
                told.posts.append(Post("/api/shift", {"is": "begun"}))
        if not left:
            self._goes_home = True
            van.go_home(now_ms)
            return
        rest = day.rest
        if rest is not None and not rest.taken and not self._has_rested and now_ms >= self._rests_at_ms(rest):
            self._has_rested = True
            told.posts.append(Post("/api/shift", {"is": "on_break"}))
            van.rest(rest.duration_s, now_ms)
            return
        errand = next_errand(self.who, left, self._luck)
        told.posts.append(Post("/api/heading", {"stop_id": errand.stop_id}))
        van.head_to(errand, now_ms)

    def _rests_at_ms(self, rest: Break) -> float:
        return rest.earliest_ms + self.who.break_lean * (rest.latest_ms - rest.earliest_ms)


def _outcome(served: Served, luck: Luck) -> Post:
    """The report of a visit, which names signature and photograph by hash."""
    errand = served.errand
    left = set(served.parcels_left)
    own = luck.of("picture", errand.stop_id)
    signed = Picture("signature", errand.stop_id, pictures.signature(own)) if served.was_signed else None
    photo = Picture("photo", errand.stop_id, pictures.photograph(own)) if served.was_photographed else None
    body = {
        "stop_id": errand.stop_id,
        "outcome": served.outcome.value,
        "reason": served.reason,
        "signature": None if signed is None else signed.digest,
        "photo": None if photo is None else photo.digest,
        "age_checked": served.age_checked,
        "parcels_left": list(served.parcels_left),
    }
    scans = tuple(code for code in errand.parcels if code not in left)
    return Post("/api/outcome", body, scans, tuple(picture for picture in (signed, photo) if picture is not None))
