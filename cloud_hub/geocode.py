"""An address line to a place on the map, with how sure we are and why; never a place in silence.

Every step multiplies the confidence: the street (exact, abbreviated, misspelt), the number (exact, inside a range, the
building without its stair, interpolated) and the town (postcode and city agree, are unknown, differ). Candidates at or
above `ACCEPTED_FROM` may be driven to; anything else waits for a person, whose answer is remembered by the text.

Finnish and German forms are read: "Mannerheimintie 5 A 12, 00100 Helsinki", "Hauptstr. 12a", "3-5", "Annank. 5".
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

from shared.quantities import Position, metres_between

ACCEPTED_FROM = 0.8
"""Confidence from which a candidate may be driven to without a person's look."""

SAME_DOOR_M = 25.0
"""Entries of one house number this close together are one door for a van: one parking place serves them."""

LONGEST_ADDRESS = 300
AMBIGUOUS_FROM_M = 150.0
CANDIDATES_SHOWN = 5


class KnownAddress(Protocol):
    """What we read of an address in a city bundle."""

    @property
    def street(self) -> str: ...
    @property
    def number(self) -> str: ...
    @property
    def postcode(self) -> str: ...
    @property
    def city(self) -> str: ...
    @property
    def position(self) -> Position: ...
    @property
    def kind(self) -> str: ...


class HouseNumber(msgspec.Struct, frozen=True):
    """A house number: "5" is 5 to 5, "14-20" is 14 to 20, "7b" has the letter b, which may also be a stair."""

    low: int
    high: int
    letter: str = ""

    def __str__(self) -> str:
        numbers = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{numbers} {self.letter.upper()}".rstrip()


class Written(msgspec.Struct, frozen=True):
    """An address line taken apart. Empty texts and an absent number are things the line does not say."""

    street: str
    number: HouseNumber | None
    rest: str = ""
    postcode: str = ""
    city: str = ""


class Candidate(msgspec.Struct, frozen=True):
    """One place an address line may mean; `confidence` in 0..1, `door` names what one parking place serves."""

    position: Position
    address: str
    confidence: float
    reason: str
    door: str


class Found(msgspec.Struct, frozen=True):
    """What an address line may mean, the surest first.

    `objection` says what is wrong with the place as a person gave it; a person then has to look, however sure the
    candidates are.
    """

    text: str
    candidates: tuple[Candidate, ...]
    objection: str = ""

    @property
    def place(self) -> Candidate | None:
        """The candidate that may be driven to; absent when a person has to look."""
        if self.candidates and self.candidates[0].confidence >= ACCEPTED_FROM and not self.objection:
            return self.candidates[0]
        return None

    @property
    def doubt(self) -> str:
        """Why no candidate may be driven to, in words; empty when one may."""
        if self.place is not None:
            return ""
        if self.objection:
            return f"{self.text!r}: {self.objection}"
        if not self.candidates:
            return f"{self.text!r}: no street of the map is like it"
        best = self.candidates[0]
        return f"{self.text!r}: {best.reason}; the nearest is {best.address} ({best.confidence:.2f})"


class Correction(msgspec.Struct, frozen=True):
    """Where a person says an address line is."""

    position: Position
    by: str


class Corrections(msgspec.Struct, frozen=True):
    """What people have said about address lines, by the text as it was written (case, spaces and accents aside)."""

    remembered: dict[str, Correction] = {}

    def with_correction(self, text: str, position: Position, by: str) -> "Corrections":
        """The same memory with one more answer; a later answer for the same text replaces the earlier one."""
        return Corrections({**self.remembered, normal_text(text): Correction(position, by)})

    def of(self, text: str) -> Correction | None:
        """What was said about this text; absent when nobody was asked."""
        return self.remembered.get(normal_text(text))


class Geocoder:
    """The addresses of one city bundle, indexed by street."""

    def __init__(self, addresses: Iterable[KnownAddress]) -> None:
        self._streets: dict[str, _Street] = {}
        self._by_spelling: dict[str, str] = {}
        self._cells: defaultdict[tuple[int, int], list[_Entry]] = defaultdict(list)
        for address in addresses:
            self._learn(address)
        for street in self._streets.values():
            street.entries.sort(key=lambda entry: (entry.address.kind != "address", str(entry.number)))
            street.name_doors()
        self._keys = list(self._streets)

    def find(self, text: str, corrections: Corrections | None = None) -> Found:
        """The places this line may mean, at most five, the surest first."""
        said = None if corrections is None else corrections.of(text)
        if said is not None:
            door = self.door_near(said.position)
            return Found(text, (Candidate(said.position, text.strip(), 1.0, f"corrected by {said.by}", door),))
        written = read_address(text)
        streets = self._streets_like(written.street)
        candidates = [candidate for street in streets for candidate in _candidates_on(street, written)]
        return Found(text, _surest(candidates))

    def door_near(self, position: Position) -> str:
        """The door of the nearest address within 25 m, else a name made of the position itself."""
        row, column = _cell(position)
        near = [
            (metres_between(position, entry.position), entry.door)
            for cell in ((row + up, column + right) for up in (-1, 0, 1) for right in (-1, 0, 1))
            for entry in self._cells.get(cell, ())
        ]
        metres, door = min(near, default=(SAME_DOOR_M + 1, ""))
        return door if metres <= SAME_DOOR_M else f"@{position.lat:.4f},{position.lon:.4f}"

    def _learn(self, address: KnownAddress) -> None:
        number = read_house_number(address.number)
        # A mall writes "Kaivopiha, Mannerheimintie": the street is what follows the last comma.
        name = address.street.rpartition(",")[2].strip()
        # Somebody wrote "Pohjoisesplanadi 33" for a street: its number is already in its own field.
        name = re.sub(r"\s+\d+\s*$", "", name)
        key = _street_key(name)
        if number is None or not key:
            return
        street = self._streets.setdefault(key, _Street(key, name))
        entry = _Entry(address, number, name)
        street.entries.append(entry)
        self._by_spelling.setdefault(key, key)
        self._by_spelling.setdefault(_without_umlaut_letters(key), key)
        self._cells[_cell(address.position)].append(entry)

    def _streets_like(self, written: str) -> list["_LikeStreet"]:
        for spelling, confidence, note in _spellings(written):
            key = self._by_spelling.get(spelling) or self._by_spelling.get(_without_umlaut_letters(spelling))
            if key is not None:
                return [_LikeStreet(self._streets[key], confidence, note)]
        return self._streets_misspelt(written)

    def _streets_misspelt(self, written: str) -> list["_LikeStreet"]:
        spelling = _street_key(written)
        if len(spelling) < 4:
            return []
        # What tells streets apart is not their common end: Hauptstrasse and Hardtstrasse differ in two letters of five.
        telling = len(_COMMON_END.sub("", spelling)) or len(spelling)
        slips_allowed = max(1, min(3, telling // 4))
        close = process.extract(spelling, self._keys, scorer=OSA.distance, score_cutoff=slips_allowed, limit=4)
        if not close:
            loose = process.extract(spelling, self._keys, scorer=fuzz.ratio, score_cutoff=60, limit=3)
            return [
                _LikeStreet(self._streets[key], 0.5 * ratio / 100, f"no street {written!r}, {self._streets[key].name}?")
                for key, ratio, _ in loose
            ]
        return [
            _LikeStreet(
                self._streets[key],
                1 - 0.5 * slips / telling - 0.025 * slips,
                f"{written!r} read as {self._streets[key].name} ({int(slips)} letter{'s' if slips > 1 else ''} off)",
            )
            for key, slips, _ in close
        ]


def read_address(text: str) -> Written:
    """An address line taken apart; nothing is refused, what is not understood is simply not there."""
    line = unicodedata.normalize("NFC", text[:LONGEST_ADDRESS])
    segments, postcode, city = _without_town(line)
    for segment in segments:
        match = _STREET_AND_NUMBER.match(segment) or _NUMBER_AND_STREET.match(segment)
        if match:
            number, rest = _number_of(match)
            return Written(match["street"].strip(" ,-"), number, rest, postcode, city)
    named = [segment for segment in segments if re.search(r"[^\W\d_]", segment)]
    return Written(named[0] if named else "", None, "", postcode, city)


def read_house_number(text: str) -> HouseNumber | None:
    """The house number in a text like "14-20", "7 B, inner court" or "2, floor 2"; absent when there is none."""
    match = _NUMBER.search(text)
    return _number_of(match)[0] if match else None


def normal_text(text: str) -> str:
    """A text without what people write differently and mean the same: case, accents, spaces, punctuation."""
    return " ".join(_folded(text).split())


_NUMBER_PARTS = (
    r"(?<!\d)(?P<low>\d{1,4})(?![.\d])\s*(?:[-\u2013\u2014/]\s*(?P<high>\d{1,4})(?!\d))?\s*"
    r"(?P<letter>[^\W\d_](?![^\W\d_]))?"
)
_NUMBER = re.compile(_NUMBER_PARTS, re.ASCII)
# A street has a letter before its number; "17. Juni" is an ordinal and no house number.
_STREET_AND_NUMBER = re.compile(rf"(?P<street>[^\n]*?[^\W\d_][^\n]*?){_NUMBER_PARTS}(?P<rest>.*)$")
_NUMBER_AND_STREET = re.compile(rf"{_NUMBER_PARTS}\s+(?P<street>[^\W\d_]\D*)(?P<rest>)$")
_POSTCODE = re.compile(r"(?<![\d\w])(?:(?:FIN?|DE?|A|CH)[- ])?(\d{5})(?!\d)", re.IGNORECASE)
_COUNTRIES = frozenset(("finland", "suomi", "fi", "fin", "deutschland", "germany", "de", "saksa"))


def _without_town(line: str) -> tuple[list[str], str, str]:
    """The segments that may hold the street, the postcode and the city."""
    postcodes = list(_POSTCODE.finditer(line))
    if not postcodes:
        segments = _segments(line)
        has_town = len(segments) > 1 and not any(character.isdigit() for character in segments[-1])
        return (segments[:-1], "", segments[-1]) if has_town else (segments, "", "")
    found = postcodes[-1]
    before, after = _segments(line[: found.start()]), _segments(line[found.end() :])
    city = after[0] if after else ""
    return before or after[1:], found[1], city


def _segments(line: str) -> list[str]:
    segments = [segment.strip() for segment in re.split(r"[,;\n\r\t]", line)]
    return [segment for segment in segments if segment and normal_text(segment) not in _COUNTRIES]


def _number_of(match: re.Match[str]) -> tuple[HouseNumber, str]:
    """The house number and what stands behind it (stair, apartment)."""
    low, letter = int(match["low"]), (match["letter"] or "").casefold()
    high = int(match["high"] or low)
    rest = match.groupdict().get("rest") or ""
    if match["high"] and not 0 < abs(high - low) <= 60:
        # "5/12" or "5-128" is a building and a flat, not a row of sixty houses.
        return HouseNumber(low, low, letter), f"{high} {rest}".strip()
    return HouseNumber(min(low, high), max(low, high), letter), rest.strip()


# --- spellings ------------------------------------------------------------------------------------------------------


def _folded(text: str) -> str:
    """Lower case, accents off, everything but letters and digits a space. "ß" becomes "ss"."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = (character for character in plain if not unicodedata.combining(character))
    return "".join(character if character.isalnum() else " " for character in kept)


def _street_key(street: str) -> str:
    """The street without case, accents, spaces and hyphens, and with "str." written out."""
    return "".join(re.sub(r"str$", "strasse", token) for token in _folded(street).split())


def _without_umlaut_letters(key: str) -> str:
    """ "mueller" as "muller", so that both spellings of an umlaut meet."""
    return key.replace("ae", "a").replace("oe", "o").replace("ue", "u")


# Ends of Finnish, Swedish and German street names that are cut short with a full stop.
_SHORT_ENDS = {
    "k": ("katu",),
    "t": ("tie",),
    "tn": ("tie", "tien"),
    "kj": ("kuja",),
    "p": ("polku", "puisto"),
    "g": ("gatan",),
    "v": ("vagen",),
    "pl": ("platz",),
    "w": ("weg",),
    "a": ("allee",),
}
_SHORT_STARTS = {
    "p": ("pohjoinen", "pohjois", "pieni"),
    "pohj": ("pohjoinen", "pohjois"),
    "e": ("etelainen", "etela"),
    "et": ("etelainen", "etela"),
    "it": ("itainen",),
    "l": ("lantinen",),
    "lant": ("lantinen",),
    "i": ("iso", "itainen"),
    "is": ("iso",),
    "pien": ("pieni",),
    "st": ("sankt",),
}
_SHORTENED = 0.97
_COMMON_END = re.compile("(?:strasse|gasse|weg|platz|allee|katu|tie|kuja|polku|puisto|ranta|aukio|gatan|vagen)$")


def _spellings(written: str) -> list[tuple[str, float, str]]:
    """The street as written, then with its abbreviations written out; each with a confidence and a note."""
    plain = _street_key(written)
    tokens = _folded(written).split()
    spellings = [(plain, 1.0, "")] if plain else []
    ends = re.search(r"([^\W\d_]{1,2})\.?\s*$", written) if written.rstrip().endswith(".") else None
    starts = tokens[0] if len(tokens) > 1 else ""
    longer = []
    stem = "".join(tokens)
    for short in sorted(_SHORT_ENDS, key=len, reverse=True):
        if (ends or (tokens and tokens[-1] == short)) and stem.endswith(short):
            longer += [stem.removesuffix(short) + end for end in _SHORT_ENDS[short]]
    longer += [start + _street_key(" ".join(tokens[1:])) for start in _SHORT_STARTS.get(starts, ())]
    return spellings + [(spelling, _SHORTENED, f"{written!r} written out") for spelling in longer]


# --- candidates -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Entry:
    """One known address of a street."""

    address: KnownAddress
    number: HouseNumber
    street: str
    door: str = ""

    @property
    def position(self) -> Position:
        return self.address.position

    def __str__(self) -> str:
        town = f"{self.address.postcode} {self.address.city}".strip()
        return f"{self.street} {self.number}" + (f", {town}" if town else "")


@dataclass(slots=True)
class _Street:
    """One street name and everything known on it, in every town that has it."""

    key: str
    name: str
    entries: list[_Entry] = field(default_factory=list)

    def name_doors(self) -> None:
        """Give entries of one number within 25 m of each other one door, named by the first of them."""
        anchors: defaultdict[str, list[_Entry]] = defaultdict(list)
        for entry in self.entries:
            number = str(HouseNumber(entry.number.low, entry.number.high))
            known = anchors[number]
            near = (place for place, anchor in enumerate(known) if _is_same_door(anchor, entry))
            at = next(near, len(known))
            if at == len(known):
                known.append(entry)
            entry.door = f"{self.name} {number}" + (f" #{at + 1}" if at else "")


def _is_same_door(anchor: _Entry, entry: _Entry) -> bool:
    return metres_between(anchor.position, entry.position) <= SAME_DOOR_M


@dataclass(frozen=True, slots=True)
class _LikeStreet:
    """A street a line may mean, how surely, and what had to be assumed for it."""

    street: _Street
    confidence: float
    note: str


def _candidates_on(like: _LikeStreet, written: Written) -> list[Candidate]:
    entries = like.street.entries
    if written.number is None:
        middle = sorted(entries, key=lambda entry: entry.number.low)[len(entries) // 2]
        return [_candidate(middle, like, written, 0.3, "no house number: the middle of the street")]
    scored = [(*_number_match(entry.number, written.number), entry) for entry in entries]
    matching = [
        _candidate(entry, like, written, confidence, note) for confidence, note, entry in scored if confidence > 0
    ]
    if matching:
        return matching
    return _neighbours(like, written, written.number)


def _number_match(known: HouseNumber, wanted: HouseNumber) -> tuple[float, str]:
    """How surely a known number is the wanted one, 0 when it is not; and what had to be assumed."""
    if known == wanted:
        return 1.0, ""
    is_same_number = known.low == wanted.low and known.high == wanted.high
    if is_same_number and wanted.letter and not known.letter:
        return 0.93, f"the map has {known} without {wanted.letter.upper()}"
    if is_same_number and known.letter and not wanted.letter:
        return 0.87, f"the map has only {known}"
    if is_same_number:
        return 0.78, f"the map has {known}, not {wanted}"
    if known.low <= wanted.low <= wanted.high <= known.high:
        return (0.92 if (wanted.low - known.low) % 2 == 0 else 0.6), f"inside {known}"
    if wanted.low <= known.low <= known.high <= wanted.high and (known.low - wanted.low) % 2 == 0:
        return 0.9, f"{known} is part of {wanted}"
    if known.low <= wanted.high and wanted.low <= known.high:
        return 0.7, f"{known} overlaps {wanted}"
    return 0.0, ""


def _neighbours(like: _LikeStreet, written: Written, number: HouseNumber) -> list[Candidate]:
    """Where the number would be between its neighbours on the same side: a hint to the person, never an answer."""
    same_side = [entry for entry in like.street.entries if (entry.number.low - number.low) % 2 == 0]
    ordered = sorted(same_side or like.street.entries, key=lambda entry: entry.number.low)
    below = [entry for entry in ordered if entry.number.high < number.low][-1:]
    above = [entry for entry in ordered if entry.number.low > number.low][:1]
    missing = f"no number {number} on {like.street.name}"
    if below and above and metres_between(below[0].position, above[0].position) < 300:
        lower, upper = below[0], above[0]
        share = (number.low - lower.number.high) / (upper.number.low - lower.number.high)
        position = Position(
            lower.position.lat + share * (upper.position.lat - lower.position.lat),
            lower.position.lon + share * (upper.position.lon - lower.position.lon),
        )
        note = f"{missing}: guessed between {lower.number} and {upper.number}"
        guess = _candidate(lower if share < 0.5 else upper, like, written, 0.45, note)
        address = f"{like.street.name} {number}"
        door = f"@{position.lat:.4f},{position.lon:.4f}"
        return [msgspec.structs.replace(guess, position=position, address=address, door=door)]
    return [_candidate(entry, like, written, 0.25, f"{missing}: its neighbour") for entry in below + above]


def _candidate(entry: _Entry, like: _LikeStreet, written: Written, number: float, note: str) -> Candidate:
    town, town_note = _town_match(entry.address, written)
    confidence = round(like.confidence * number * town, 3)
    reason = "; ".join(part for part in (like.note, note, town_note) if part) or "street and number are on the map"
    return Candidate(entry.position, str(entry), confidence, reason, entry.door)


def _town_match(known: KnownAddress, written: Written) -> tuple[float, str]:
    if written.postcode and known.postcode:
        if written.postcode != known.postcode:
            return 0.75, f"postcode {known.postcode} on the map, {written.postcode} written"
        return 1.0, ""
    if written.city and known.city and not _is_same_town(written.city, known.city):
        return 0.5, f"{known.city} on the map, {written.city} written"
    if not (written.postcode or written.city):
        return 0.97, "no town written"
    return 0.98, ""


def _is_same_town(written: str, known: str) -> bool:
    """ "Lauf" is "Lauf a.d.Pegnitz"; a slip of the pen is forgiven."""
    wanted, had = normal_text(written), normal_text(known)
    return had.startswith(wanted) or wanted.startswith(had) or fuzz.ratio(wanted, had) >= 85


def _surest(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """At most five, one per door, the surest first; two equally sure places far apart make neither sure."""
    by_door: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: (-candidate.confidence, candidate.door)):
        by_door.setdefault(candidate.door, candidate)
    surest = list(by_door.values())[:CANDIDATES_SHOWN]
    if len(surest) > 1:
        first, rivals = surest[0], surest[1:]
        for rival in rivals:
            is_as_sure = rival.confidence >= first.confidence - 0.04
            if is_as_sure and metres_between(first.position, rival.position) > AMBIGUOUS_FROM_M:
                reason = f"{first.reason}; as likely {rival.address}"
                surest[0] = msgspec.structs.replace(first, confidence=min(first.confidence, 0.6), reason=reason)
                break
    return tuple(surest)


def _cell(position: Position) -> tuple[int, int]:
    """A grid of at least 25 m up to 70 degrees north: neighbours within 25 m are in the cells around."""
    return int(position.lat // 0.0005), int(position.lon // 0.001)


def corrections_from(rows: Iterable[Mapping[str, object]]) -> Corrections:
    """Corrections from rows of `text`, `lat`, `lon` and `by`, later rows winning. Raises msgspec.ValidationError."""
    corrections = Corrections()
    for row in rows:
        said = msgspec.convert(row, _SaidPlace, strict=False)
        corrections = corrections.with_correction(said.text, Position(said.lat, said.lon), said.by)
    return corrections


class _SaidPlace(msgspec.Struct, frozen=True):
    text: str
    lat: float
    lon: float
    by: str
