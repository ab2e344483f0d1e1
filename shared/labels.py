"""What the barcode on a parcel says, in one canonical text, or why it is refused.

The kinds keep apart what names one parcel and what does not: an SSCC (`logistic_unit`) names whatever was packed
under it, a pallet as well as a parcel; a last-mile parcel usually carries its carrier's own number (`carrier_parcel`),
a postal item's (`postal_item`) or the shop's own (`own_parcel`); a GTIN alone (`trade_item`) names a product, so every
copy of it scans the same.

Carriers are data (`label_patterns.toml`). GS1 element strings are split here by the rules of the GS1 General
Specifications, sections 3.2 and 7.8, because only the lengths are needed to find an identity: the `biip` package does
the same and much more, and costs an agent 21 MB of its 96 MB of memory. The tests hold this module against it.
"""

import functools
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

LabelKind = Literal[
    "logistic_unit", "trade_item", "serial_item", "postal_item", "carrier_parcel", "own_parcel", "gs1_other"
]

LONGEST_LABEL = 256
"""Characters. A GS1-128 symbol holds 48, the 2-D codes on parcels seldom more than 200."""

GS = "\x1d"
"""How a scanner transmits FNC1 between GS1 element strings."""


class LabelRefused(ValueError):
    """A scan that is no label we can use."""


class UnknownLabel(LabelRefused):
    """No pattern and no standard we know fits this text."""


class LabelChecksumWrong(LabelRefused):
    """The text has the shape of a known label but its check digit is wrong: a misread or a typing error."""


class AmbiguousLabel(LabelRefused):
    """The text reads as more than one label."""


class LabelEmpty(LabelRefused):
    """The scan holds nothing."""


class LabelTooLong(LabelRefused):
    """The scan is longer than any label on a parcel."""


class LabelGarbled(LabelRefused):
    """The scan holds characters no label has."""


class LabelPatternsUnreadable(ValueError):
    """The file of label patterns does not say what it must."""


class Label(msgspec.Struct, frozen=True):
    """One label, read.

    `canonical` is "SCHEME:identity" and reads to itself again. `carrier` is absent when the label does not tell it.
    `elements` are the GS1 application identifiers and values in the order printed; empty for other labels.
    """

    kind: LabelKind
    canonical: str
    carrier: str | None = None
    elements: tuple[tuple[str, str], ...] = ()

    @property
    def names_one_unit(self) -> bool:
        """Whether two things with this label are the same thing: what custody can be kept of."""
        return self.kind not in ("trade_item", "gs1_other")


@dataclass(frozen=True, slots=True)
class CarrierPattern:
    """One carrier's label: its shape, its check digit rule, and the shape of its group "id" when it has one."""

    carrier: str
    name: str
    shape: re.Pattern[str]
    check: str
    symbologies: tuple[str, ...]
    identity: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class LabelBook:
    """The patterns a reader knows."""

    patterns: tuple[CarrierPattern, ...]
    sscc_issuers: tuple[tuple[str, str], ...]
    s10_operators: Mapping[str, str]

    def only(self, *carriers: str) -> "LabelBook":
        """The same book with these carriers' own patterns alone: makes 12 bare digits certain in such a depot."""
        return LabelBook(
            tuple(pattern for pattern in self.patterns if pattern.carrier in carriers),
            self.sscc_issuers,
            self.s10_operators,
        )


def read_label(text: str, book: LabelBook | None = None) -> Label:
    """The label this scan, or this typed text, names.

    `text` may open with the AIM symbology identifier ("]C1"), hold FNC1 as GS (0x1D) and end with the scanner's CR or
    LF. A canonical text reads to itself. `book` are the carriers to think of; the shipped ones when absent.

    Raises a `LabelRefused` by name: LabelEmpty, LabelTooLong, LabelGarbled, LabelChecksumWrong, AmbiguousLabel or
    UnknownLabel.
    """
    book = shipped_labels() if book is None else book
    stripped = _refuse_garbage(text)
    symbology, body = _without_aim_identifier(stripped)
    scheme, separator, identity = body.partition(":")
    if separator and scheme in _known_schemes(book):
        return _read_canonical(scheme, identity, body, book)
    if symbology in GS1_SYMBOLOGIES or body.startswith(("(", GS)) or GS in body:
        return _read_gs1(body, book)
    readings = _Readings()
    compact = body.replace(" ", "").upper()
    _try_s10(compact, book, readings)
    _try_carriers(compact, symbology, book, readings)
    _try_bare_gs1(compact, symbology, book, readings)
    return readings.the_one(stripped)


# The AIM identifiers that promise GS1 element strings: GS1-128, DataBar and composite, Data Matrix, QR, DotCode.
GS1_SYMBOLOGIES = ("C1", "e0", "e1", "e2", "d2", "Q3", "J1")

_OWN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?/[0-9]{1,3}")


class _Readings:
    """Every way one text can be read, and the ways that failed only by their check digit."""

    def __init__(self) -> None:
        self.fitting: dict[str, Label] = {}
        self.misread: list[str] = []

    def add(self, label: Label) -> None:
        self.fitting[label.canonical] = label

    def the_one(self, text: str) -> Label:
        if len(self.fitting) == 1:
            return next(iter(self.fitting.values()))
        if self.fitting:
            raise AmbiguousLabel(
                f"{text!r} reads as {' or '.join(self.fitting)}: "
                "let the scanner send AIM identifiers, or name the carriers in use"
            )
        if self.misread:
            raise LabelChecksumWrong(
                f"{text!r} looks like {' or '.join(self.misread)} but its check digit is wrong: scan it again"
            )
        raise UnknownLabel(
            f"{text!r} ({len(text)} characters) fits no label we know, expected SSCC, GS1-128, UPU S10 or a carrier's: "
            "add its pattern to label_patterns.toml"
        )


def _refuse_garbage(text: str) -> str:
    stripped = text.strip(" \t\r\n\0")
    if not stripped:
        raise LabelEmpty(f"found an empty scan ({len(text)} characters of padding), expected a label: scan it again")
    if len(stripped) > LONGEST_LABEL:
        raise LabelTooLong(
            f"found {len(stripped)} characters, expected at most {LONGEST_LABEL}: scan the parcel's linear barcode"
        )
    if stripped.startswith("[)>"):
        raise UnknownLabel(
            "found an ISO 15434 envelope, expected one label: scan the linear barcode beside the 2-D code"
        )
    garbled = sorted({character for character in stripped if character != GS and not " " <= character <= "~"})
    if garbled:
        found = ", ".join(f"U+{ord(character):04X}" for character in garbled[:5])
        raise LabelGarbled(
            f"found {found} in a scan of {len(stripped)} characters, expected printable ASCII: "
            "check the scanner's setting"
        )
    return stripped


def _without_aim_identifier(text: str) -> tuple[str, str]:
    if len(text) > 3 and text[0] == "]" and text[1].isalpha():
        return text[1:3], text[3:]
    return "", text


# --- canonical texts ------------------------------------------------------------------------------------------------


def _known_schemes(book: LabelBook) -> set[str]:
    return {"SSCC", "GTIN", "SGTIN", "S10", "WW", "GS1"} | {pattern.carrier.upper() for pattern in book.patterns}


def _read_canonical(scheme: str, identity: str, text: str, book: LabelBook) -> Label:
    if scheme == "SSCC":
        return _sscc_label(identity, book, ())
    if scheme == "GTIN":
        return Label("trade_item", f"GTIN:{_right_gtin(identity)}")
    if scheme == "SGTIN":
        gtin, _, serial = identity.partition(".")
        return _label_of((_right_element("01", gtin, text), _right_element("21", serial, text)), book)
    if scheme == "GS1":
        pairs = (pair.partition("=") for pair in identity.split("|"))
        return _label_of(tuple(_right_element(ai, value, text) for ai, _, value in pairs), book)
    if scheme == "WW":
        if not _OWN.fullmatch(identity):
            raise UnknownLabel(
                f"found {text!r}, expected WW:order/number, the label a shop prints itself: print it again"
            )
        return Label("own_parcel", text)
    readings = _Readings()
    if scheme == "S10":
        _try_s10(identity, book, readings)
    else:
        _try_canonical_carrier(scheme, identity, book, readings)
    return readings.the_one(text)


def _try_canonical_carrier(scheme: str, identity: str, book: LabelBook, readings: _Readings) -> None:
    """A carrier's identity as we write it: the whole text, or the group "id" of one of its shapes."""
    for pattern in book.patterns:
        if pattern.carrier.upper() != scheme:
            continue
        if pattern.identity is None:
            _try_pattern(pattern, identity, readings)
        elif pattern.identity.fullmatch(identity):
            readings.add(Label("carrier_parcel", f"{scheme}:{identity}", pattern.carrier))


# --- postal items and carriers --------------------------------------------------------------------------------------

_S10 = re.compile(r"[A-Z]{2}[0-9]{9}[A-Z]{2}")


def _try_s10(compact: str, book: LabelBook, readings: _Readings) -> None:
    if not _S10.fullmatch(compact):
        return
    if not CHECKS["s10"](compact[2:11]):
        readings.misread.append("a UPU S10 item")
        return
    readings.add(Label("postal_item", f"S10:{compact}", book.s10_operators.get(compact[-2:])))


def _try_carriers(compact: str, symbology: str, book: LabelBook, readings: _Readings) -> None:
    for pattern in book.patterns:
        if not (symbology and pattern.symbologies) or symbology[0] in pattern.symbologies:
            _try_pattern(pattern, compact, readings)


def _try_pattern(pattern: CarrierPattern, compact: str, readings: _Readings) -> None:
    match = pattern.shape.fullmatch(compact)
    if match is None:
        return
    groups = match.groupdict()
    if not _check_holds(pattern.check, groups.get("checked") or compact):
        readings.misread.append(f"a {pattern.name}")
        return
    identity = groups.get("id") or compact
    readings.add(Label("carrier_parcel", f"{pattern.carrier.upper()}:{identity}", pattern.carrier))


# --- GS1 ------------------------------------------------------------------------------------------------------------

# Figure 7.8.5-2 of the GS1 General Specifications: element strings of predefined length, application identifier
# included; they need no FNC1 behind them.
_PREDEFINED = {"00": 20, "01": 16, "02": 16, "03": 16, "04": 18} | {str(ai): 8 for ai in range(11, 20)} | {"20": 4}
_PREDEFINED |= {str(ai): 10 for ai in range(31, 37)} | {"41": 16}

# How many digits an application identifier has is told by its first two (section 3.2). Pairs not here are not given
# out.
_IDENTIFIER_DIGITS = dict.fromkeys(
    ("00", "01", "02", "03", "10", "11", "12", "13", "15", "16", "17", "20", "21", "22", "30", "37"), 2
)
_IDENTIFIER_DIGITS |= {str(ai): 2 for ai in range(90, 100)}
_IDENTIFIER_DIGITS |= dict.fromkeys(("23", "24", "25", "40", "41", "42", "71"), 3)
_IDENTIFIER_DIGITS |= dict.fromkeys(("31", "32", "33", "34", "35", "36", "39", "43", "70", "72", "80", "81", "82"), 4)

_LONGEST_ELEMENT = 90
NOT_IN_GS1 = f"{GS} |"  # Outside the GS1 character set 82; we write "|" between the elements of a canonical text.
_DIGITS_ONLY_PAIRS = frozenset(("00", "01", "02", "03", "11", "12", "13", "15", "16", "17", "20", "41"))
_BRACKETED = re.compile(r"\(([0-9]{2,4})\)([^()]+)")


def _read_gs1(body: str, book: LabelBook) -> Label:
    return _label_of(_split_gs1(body), book)


def _label_of(elements: tuple[tuple[str, str], ...], book: LabelBook) -> Label:
    values = dict(elements)
    if "00" in values:
        return _sscc_label(values["00"], book, elements)
    if "01" in values and "21" in values:
        return Label("serial_item", f"SGTIN:{_right_gtin(values['01'])}.{values['21']}", elements=elements)
    if "01" in values:
        return Label("trade_item", f"GTIN:{_right_gtin(values['01'])}", elements=elements)
    return Label("gs1_other", "GS1:" + "|".join(f"{ai}={value}" for ai, value in elements), elements=elements)


def _split_gs1(body: str) -> tuple[tuple[str, str], ...]:
    """Identifiers and values in the order printed. Raises UnknownLabel naming where the text stops making sense."""
    if body.startswith("("):
        return _split_bracketed(body)
    rest, elements = body.removeprefix(GS), []
    while rest:
        identifier = rest[: _IDENTIFIER_DIGITS.get(rest[:2], 0)]
        if not identifier.isdigit():
            raise UnknownLabel(
                f"found {rest[:4]!r} in {body!r} where a GS1 application identifier was expected: "
                "check the scanner's FNC1"
            )
        predefined = _PREDEFINED.get(rest[:2])
        element, _, rest = (
            (rest[:predefined], "", rest[predefined:].removeprefix(GS)) if predefined else rest.partition(GS)
        )
        elements.append(_right_element(identifier, element[len(identifier) :], body))
    if not elements:
        raise UnknownLabel(f"found {body!r}, a GS1 symbol without any element string: scan it again")
    return tuple(elements)


def _split_bracketed(body: str) -> tuple[tuple[str, str], ...]:
    """The human-readable form "(00)1234...", as typed from the label."""
    found = _BRACKETED.findall(body)
    if "".join(f"({ai}){value}" for ai, value in found) != body:
        raise UnknownLabel(
            f"found {body!r}, expected (identifier)value pairs as printed below a GS1 barcode: type it again"
        )
    return tuple(_right_element(ai, value.strip(), body) for ai, value in found)


def _right_element(identifier: str, value: str, body: str) -> tuple[str, str]:
    if not identifier.isdigit() or _IDENTIFIER_DIGITS.get(identifier[:2]) != len(identifier):
        raise UnknownLabel(f"found ({identifier}) in {body!r}, which is no GS1 application identifier: scan it again")
    wanted = _PREDEFINED.get(identifier[:2])
    is_right = len(value) == wanted - len(identifier) if wanted else 0 < len(value) <= _LONGEST_ELEMENT
    if (
        not is_right
        or any(character in value for character in NOT_IN_GS1)
        or (identifier[:2] in _DIGITS_ONLY_PAIRS and not value.isdigit())
    ):
        expected = (
            f"{wanted - len(identifier)} characters" if wanted else f"1 to {_LONGEST_ELEMENT} characters without spaces"
        )
        raise UnknownLabel(f"found {value!r} behind ({identifier}) in {body!r}, expected {expected}: scan it again")
    return identifier, value


def _sscc_label(sscc: str, book: LabelBook, elements: tuple[tuple[str, str], ...]) -> Label:
    if not (len(sscc) == 18 and sscc.isdigit()):
        raise UnknownLabel(f"found the SSCC {sscc!r}, expected 18 digits: scan it again")
    if not CHECKS["gs1_mod10"](sscc):
        raise LabelChecksumWrong(
            f"found the SSCC {sscc}, expected check digit {gs1_check_digit(sscc[:-1])}: scan it again"
        )
    carrier = next((carrier for prefix, carrier in book.sscc_issuers if sscc[1:].startswith(prefix)), None)
    return Label("logistic_unit", f"SSCC:{sscc}", carrier, elements)


def _right_gtin(gtin: str) -> str:
    if not (gtin.isdigit() and len(gtin) in (8, 12, 13, 14)):
        raise UnknownLabel(f"found the GTIN {gtin!r}, expected 8, 12, 13 or 14 digits: scan it again")
    if not CHECKS["gs1_mod10"](gtin):
        raise LabelChecksumWrong(
            f"found the GTIN {gtin}, expected check digit {gs1_check_digit(gtin[:-1])}: scan it again"
        )
    return gtin.zfill(14)


def _try_bare_gs1(compact: str, symbology: str, book: LabelBook, readings: _Readings) -> None:
    """GS1 keys without an identifier in front: typed in, or from a scanner that does not send AIM identifiers."""
    if not compact.isdigit() and not re.match(r"0[012][0-9]{14}", compact):
        return
    try:
        if len(compact) == 18 and compact.isdigit() and not symbology:
            readings.add(_sscc_label(compact, book, ()))
        elif len(compact) in (8, 12, 13, 14) and compact.isdigit() and symbology[:1] in ("", "E", "I", "e"):
            readings.add(Label("trade_item", f"GTIN:{_right_gtin(compact)}"))
        elif re.match(r"0[012][0-9]{14}", compact) and len(compact) >= 16:
            readings.add(_read_gs1(compact, book))
    except LabelChecksumWrong:
        readings.misread.append(f"a GS1 key of {len(compact)} digits" if compact.isdigit() else "a GS1 element string")
    except UnknownLabel:
        return


# --- check digits ---------------------------------------------------------------------------------------------------


def gs1_check_digit(digits: str) -> int:
    """The GS1 modulo-10 check digit for these digits (weights 3 and 1 from the right; General Specifications 7.9.1)."""
    return -sum(int(digit) * (3, 1)[at % 2] for at, digit in enumerate(reversed(digits))) % 10


def s10_check_digit(eight_digits: str) -> int:
    """The check digit of a UPU S10 item: weights 8 6 4 2 3 5 9 7, modulo 11 (UPU standard S10, section 5.3)."""
    rest = (
        11 - sum(int(digit) * weight for digit, weight in zip(eight_digits, (8, 6, 4, 2, 3, 5, 9, 7), strict=True)) % 11
    )
    return {10: 0, 11: 5}.get(rest, rest)


def ups_check_digit(fifteen: str) -> int:
    """The check digit of a UPS 1Z number from the 15 characters behind "1Z".

    Letters count 2 to 9, 0, 1 ..., every second character is doubled.
    """
    values = [int(character) if character.isdigit() else (ord(character) - 63) % 10 for character in fifteen]
    return -(sum(values[0::2]) + 2 * sum(values[1::2])) % 10


def mod37_36_check(text: str) -> str:
    """The check character of ISO/IEC 7064, MOD 37,36, for capital letters and digits."""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    carry = 36
    for character in text:
        carry = (carry + alphabet.index(character)) % 36 or 36
        carry = carry * 2 % 37
    return alphabet[(37 - carry) % 36]


def _weighted_mod10(digits: str, weights: tuple[int, int], plus: int = 0) -> int:
    """Modulo 10 over the digits from the right with two weights in turn."""
    return -(plus + sum(int(digit) * weights[at % 2] for at, digit in enumerate(reversed(digits)))) % 10


def _ends_with(rule: Callable[[str], object]) -> Callable[[str], bool]:
    """Whether a text's last character is what the rule makes of all before it."""
    return lambda text: text[-1] == str(rule(text[:-1]))


def _check_holds(rule: str, text: str) -> bool:
    """Whether the rule is kept; a text the rule has no arithmetic for does not keep it."""
    try:
        return CHECKS[rule](text)
    except ValueError:
        return False


CHECKS: Mapping[str, Callable[[str], bool]] = {
    "none": lambda _text: True,
    "gs1_mod10": _ends_with(gs1_check_digit),
    "s10": _ends_with(s10_check_digit),
    "ups_1z": lambda text: text[-1] == str(ups_check_digit(text[2:-1])),
    "identcode": _ends_with(lambda digits: _weighted_mod10(digits, (4, 9))),
    "mod10_plus_1": _ends_with(lambda digits: _weighted_mod10(digits, (3, 1), plus=1)),
    "mod7": _ends_with(lambda digits: int(digits) % 7),
    "iso7064_mod37_36": _ends_with(mod37_36_check),
}


# --- labels to print ------------------------------------------------------------------------------------------------


def make_sscc(company_prefix: str, serial: int, extension: int = 0) -> str:
    """The canonical SSCC of a company's unit. Raises ValueError when prefix and serial do not fit into 16 digits."""
    room = 16 - len(company_prefix)
    if not (
        company_prefix.isdigit() and 4 <= len(company_prefix) <= 12 and 0 <= serial < 10**room and 0 <= extension <= 9
    ):
        raise ValueError(
            f"found prefix {company_prefix!r}, serial {serial}, extension {extension}: they must make up 17 digits"
        )
    digits = f"{extension}{company_prefix}{serial:0{room}d}"
    return f"SSCC:{digits}{gs1_check_digit(digits)}"


def make_gtin(company_prefix: str, item: int) -> str:
    """The canonical GTIN-13 of a company's item, as 14 digits."""
    digits = f"{company_prefix}{item:0{12 - len(company_prefix)}d}"
    return f"GTIN:0{digits}{gs1_check_digit(digits)}"


def make_s10(service: str, serial: int, country: str) -> str:
    """The canonical UPU S10 number: service indicator, serial below 100,000,000, country of the operator."""
    eight = f"{serial:08d}"
    text = f"{service}{eight}{s10_check_digit(eight)}{country}"
    if not _S10.fullmatch(text):
        raise ValueError(
            f"found {service!r}, {serial}, {country!r}, "
            "expected two capital letters, up to eight digits, two capital letters"
        )
    return f"S10:{text}"


def make_ups(shipper: str, service: str, serial: int) -> str:
    """The canonical UPS 1Z number: shipper (6 characters), service (2), serial below 10,000,000."""
    fifteen = f"{shipper}{service}{serial:07d}"
    if not re.fullmatch(r"[0-9A-Z]{15}", fifteen):
        raise ValueError(
            f"found {shipper!r}, {service!r}, {serial}, expected 6 + 2 capital letters or digits, and 7 digits"
        )
    return f"UPS:1Z{fifteen}{ups_check_digit(fifteen)}"


def make_posti(contract: int, serial: int) -> str:
    """The canonical Posti parcel number: contract (6 digits) and serial (11 digits)."""
    return f"POSTI:JJFI{contract:06d}{serial:011d}"


def make_dhl(serial: int) -> str:
    """The canonical DHL licence plate of an 18-digit serial."""
    return f"DHL:JJD{serial:018d}"


def make_dpd(depot: int, serial: int) -> str:
    """The canonical DPD parcel number: depot (4 digits) and serial (10 digits)."""
    return f"DPD:{depot:04d}{serial:010d}"


def own_label(order_id: str, number: int) -> str:
    """The canonical label a shop prints itself for the number-th parcel (from 1) of an order that names no barcodes."""
    return f"WW:{order_id}/{number}"


def scan_text(canonical: str) -> str:
    """What a scanner sends for a label of this canonical text: the AIM identifier, then the symbol's content."""
    scheme, _, identity = canonical.partition(":")
    match scheme:
        case "SSCC":
            return f"]C100{identity}"
        case "GTIN":
            return f"]E0{identity[1:]}" if identity.startswith("0") else f"]I1{identity}"
        case "SGTIN":
            gtin, _, serial = identity.partition(".")
            return f"]d201{gtin}21{serial}"
        case "GS1":
            return "]C1" + GS.join(pair.replace("=", "", 1) for pair in identity.split("|"))
        case "WW":
            return f"]Q1{canonical}"
        case "DPD":
            return f"]C0%0000000{identity}101246"
        case _:
            # Bare 12 digits are printed as interleaved 2 of 5 by those who use them.
            return f"]I0{identity}" if len(identity) == 12 and identity.isdigit() else f"]C0{identity}"


# --- the patterns ---------------------------------------------------------------------------------------------------


def label_book(toml_text: str) -> LabelBook:
    """The patterns in this TOML text, laid out as in `label_patterns.toml`. Raises LabelPatternsUnreadable."""
    try:
        table = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise LabelPatternsUnreadable(f"label patterns are no TOML: {error}") from None
    patterns = tuple(_pattern(entry) for entry in _tables(table, "pattern"))
    issuers = tuple((_text(entry, "prefix"), _text(entry, "carrier")) for entry in _tables(table, "sscc_issuer"))
    operators = table.get("s10_operators", {})
    if not (isinstance(operators, dict) and all(isinstance(operator, str) for operator in operators.values())):
        raise LabelPatternsUnreadable(
            'found another thing at [s10_operators], expected a table of country = "operator"'
        )
    return LabelBook(patterns, issuers, operators)


@functools.cache
def shipped_labels() -> LabelBook:
    """The patterns in the package's own `label_patterns.toml`: a constant that is kept as data."""
    return label_book(Path(__file__).with_name("label_patterns.toml").read_text(encoding="utf-8"))


def _tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = table.get(key, [])
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise LabelPatternsUnreadable(f"found another thing at {key!r}, expected [[{key}]] entries")
    return entries


def _text(entry: dict[str, Any], key: str) -> str:
    found = entry.get(key)
    if not isinstance(found, str) or not found:
        raise LabelPatternsUnreadable(f"found {found!r} at {key!r} of {entry!r}, expected a text")
    return found


def _pattern(entry: dict[str, Any]) -> CarrierPattern:
    carrier, name, check = _text(entry, "carrier"), _text(entry, "name"), entry.get("check", "none")
    if check not in CHECKS:
        raise LabelPatternsUnreadable(f"pattern {name!r}: found check {check!r}, expected one of {', '.join(CHECKS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", carrier):
        raise LabelPatternsUnreadable(
            f"pattern {name!r}: found carrier {carrier!r}, expected lower-case letters, digits and _"
        )
    try:
        shape = re.compile(_text(entry, "shape"), re.ASCII)
        identity = re.compile(_source_of_id(shape), re.ASCII) if "id" in shape.groupindex else None
    except re.error as error:
        raise LabelPatternsUnreadable(f"pattern {name!r}: its shape is no regular expression: {error}") from None
    symbologies = entry.get("symbologies", [])
    if not (isinstance(symbologies, list) and all(isinstance(letter, str) for letter in symbologies)):
        raise LabelPatternsUnreadable(
            f"pattern {name!r}: found symbologies {symbologies!r}, expected a list of letters"
        )
    return CarrierPattern(carrier, name, shape, check, tuple(symbologies), identity)


def _source_of_id(shape: re.Pattern[str]) -> str:
    """The expression inside the group "id" of a shape."""
    source = shape.pattern[shape.pattern.index("(?P<id>") :]
    depth = 0
    for at, character in enumerate(source):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return source[: at + 1]
    return source
