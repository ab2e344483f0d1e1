"""Read the rows of orders out of CSV and JSON: each becomes an order, or is refused with its reason."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Literal, TypeVar, get_args

import msgspec

from shared.work import Service

Tier = Literal["economy", "standard", "plus", "premium"]

LARGEST_FILE_BYTES = 20_000_000


class OrdersUnreadable(ValueError):
    """The file's rows cannot be told apart, so none of them was taken."""


class OrderIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order as it comes in, by `POST /api/orders` or as a row of a file.

    The place is `address`, or `lat` and `lon` (degrees, WGS 84), or both. Times are ISO 8601 with or without a zone, or
    "HH:MM" on the intake's day. `parcels` is their number, or their barcodes. `litres` and `kilograms` are the whole
    order's.

    `customer_ref` names the customer, without one the order's own number does. `name`, `email`, `phone`, `language`,
    and the channels agreed to (`consent`) go into the book of customers and nowhere else. `partner` is whose order it
    is; who hands in with a partner's key need not say it.
    """

    order_id: str
    slot_from: str
    slot_to: str
    address: str = ""
    lat: float | None = None
    lon: float | None = None
    parcels: int | tuple[str, ...] = 1
    service: Service = "hand_over"
    floor: int = 0
    has_lift: bool = False
    is_business: bool = False
    customer_ref: str = ""
    open_from: str = ""
    open_to: str = ""
    tier: Tier = "standard"
    service_minutes: float | None = None
    litres: float = 0.0
    kilograms: float = 0.0
    note: str = ""
    name: str = ""
    email: str = ""
    phone: str = ""
    language: str = ""
    consent: str | tuple[str, ...] = ()
    on_its_way: bool = False
    door_code: str = ""
    safe_place: str = ""
    neighbour: str = ""
    partner: str = ""


OF_THE_CUSTOMER = (
    "name", "email", "phone", "language", "consent", "on_its_way", "door_code", "safe_place", "neighbour",
)  # fmt: skip
"""What a shop may say anew with the same order: it is the customer's, and no part of what makes an order another."""


def without_contact(order: OrderIn) -> OrderIn:
    """The order without who waits for it and how they are reached: enough to take it again once its place is right."""
    return msgspec.structs.replace(order, name="", email="", phone="", language="", consent=(), on_its_way=False)


class Refused(msgspec.Struct, frozen=True):
    """A row that is no order. `order_id` is empty when not even that could be read."""

    row_number: int
    order_id: str
    what_found: str
    expected: str
    do: str


class RowWrong(Exception):
    """A row is refused: what was found, what was expected, what to do."""

    def __init__(self, found: str, expected: str, do: str) -> None:
        super().__init__(found)
        self.found, self.expected, self.do = found, expected, do


# --- CSV ------------------------------------------------------------------------------------------------------------

COLUMNS = OrderIn.__struct_fields__
ADDRESS_PARTS = ("street", "house_number", "postcode", "city")
_OTHER_NAMES = {
    "id": "order_id",
    "order": "order_id",
    "order_number": "order_id",
    "latitude": "lat",
    "longitude": "lon",
    "lng": "lon",
    "barcodes": "parcels",
    "lift": "has_lift",
    "business": "is_business",
    "zip": "postcode",
    "comment": "note",
    "customer_name": "name",
    "customer": "name",
    "telephone": "phone",
    "mobile": "phone",
    "e_mail": "email",
    "mail": "email",
    "lang": "language",
    "consents": "consent",
    "agreed_to": "consent",
    "neighbor": "neighbour",
}
_YES = frozenset(("1", "yes", "y", "true", "x", "ja", "kyllä", "k"))
_NO = frozenset(("", "0", "no", "n", "false", "nein", "ei", "e", "-"))


def decoded(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and remarks about how it was read. Raises OrdersUnreadable when it is no text."""
    if len(data) > LARGEST_FILE_BYTES:
        raise OrdersUnreadable(f"found {len(data)} bytes, expected at most {LARGEST_FILE_BYTES}: split the file")
    if data.startswith(b"PK\x03\x04"):
        raise OrdersUnreadable("found an Excel workbook or another archive, expected CSV: save it as CSV UTF-8")
    text, notices = _text_of(data)
    strange = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    if strange:
        line = text.count("\n", 0, strange.start()) + 1
        raise OrdersUnreadable(
            f"found the control character U+{ord(strange[0]):04X} in line {line}, expected a table as text: "
            "save it as CSV UTF-8"
        )
    return text, notices


def _text_of(data: bytes) -> tuple[str, tuple[str, ...]]:
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16"), ("the file is UTF-16, read as such",)
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        return data.decode("latin-1"), ("the file is no UTF-8, read as Latin-1: look at its accents",)


def csv_rows(text: str) -> tuple[Iterator[tuple[int, OrderIn | Refused]], tuple[str, ...]]:
    """The rows of a table of orders, each with its line, and remarks about the whole. Raises OrdersUnreadable."""
    records = records_of(text)
    if not records:
        raise OrdersUnreadable("found an empty file, expected a line of column names: see docs/orders.md")
    header = [column_name(cell) for cell in records[0][1]]
    _refuse_header(header)
    unknown = [name for name in header if name and name not in (*COLUMNS, *ADDRESS_PARTS)]
    notices = []
    if unknown:
        notices.append(f"not known and not read: {', '.join(unknown)}")
    filled = [(line, cells) for line, cells in records[1:] if any(cell.strip() for cell in cells)]
    if len(filled) < len(records) - 1:
        notices.append(f"{len(records) - 1 - len(filled)} empty rows passed over")
    return ((line, _order_of_cells(line, header, cells)) for line, cells in filled), tuple(notices)


def records_of(text: str) -> list[tuple[int, list[str]]]:
    """The records of the table, each with the line it begins in. Raises OrdersUnreadable."""
    first_line = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t|", key=lambda sign: sum(column_name(cell) in COLUMNS for cell in first_line.split(sign)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if records or any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise OrdersUnreadable(
            f"found {error} in the record of line {line}, expected CSV with quotes in pairs: correct that line"
        ) from None
    return records


def column_name(cell: str) -> str:
    """The column a cell of the header names, whichever of its names stands there."""
    name = re.sub(r"[\s-]+", "_", cell.strip().strip('"').casefold())
    return _OTHER_NAMES.get(name, name)


def _refuse_header(header: list[str]) -> None:
    missing = [name for name in ("order_id", "slot_from", "slot_to") if name not in header]
    if not ("address" in header or "street" in header or ("lat" in header and "lon" in header)):
        missing.append("address (or street, or lat and lon)")
    if missing:
        found = ", ".join(header)[:200]
        raise OrdersUnreadable(f"found the columns {found!r}, expected also {', '.join(missing)}: see docs/orders.md")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise OrdersUnreadable(f"found the column {twice[0]!r} twice, expected each once: remove one")


def _order_of_cells(line: int, header: list[str], cells: list[str]) -> OrderIn | Refused:
    row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
    try:
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            raise RowWrong(
                f"{len(cells)} cells", f"{len(header)} as in the header", "put quotes around cells with a delimiter"
            )
        return _order_of_row(row)
    except RowWrong as wrong:
        return Refused(line, row.get("order_id", "")[:64], wrong.found, wrong.expected, wrong.do)


def _order_of_row(row: Mapping[str, str]) -> OrderIn:
    def cell(name: str) -> str:
        return row.get(name, "")

    return OrderIn(
        order_id=cell("order_id"),
        slot_from=cell("slot_from"),
        slot_to=cell("slot_to"),
        address=cell("address") or _joined_address(row),
        lat=number_in(row, "lat"),
        lon=number_in(row, "lon"),
        parcels=_parcels(cell("parcels")),
        service=_one_of(row, "service", get_args(Service), "hand_over"),
        floor=int(_whole_number(row, "floor") or 0),
        has_lift=_yes_or_no(row, "has_lift"),
        is_business=_yes_or_no(row, "is_business"),
        customer_ref=cell("customer_ref"),
        open_from=cell("open_from"),
        open_to=cell("open_to"),
        tier=_one_of(row, "tier", get_args(Tier), "standard"),
        service_minutes=number_in(row, "service_minutes"),
        litres=number_in(row, "litres") or 0.0,
        kilograms=number_in(row, "kilograms") or 0.0,
        note=cell("note"),
        name=cell("name"),
        email=cell("email"),
        phone=cell("phone"),
        language=cell("language"),
        consent=cell("consent"),
        on_its_way=_yes_or_no(row, "on_its_way"),
        door_code=cell("door_code"),
        safe_place=cell("safe_place"),
        neighbour=cell("neighbour"),
    )


def _joined_address(row: Mapping[str, str]) -> str:
    street = f"{row.get('street', '')} {row.get('house_number', '')}".strip()
    town = f"{row.get('postcode', '')} {row.get('city', '')}".strip()
    return ", ".join(part for part in (street, town) if part)


def _parcels(cell: str) -> int | tuple[str, ...]:
    """A number below 100 is how many there are; anything else their barcodes, with spaces between."""
    if not cell:
        return 1
    if re.fullmatch(r"[0-9]{1,2}", cell, re.ASCII):
        return int(cell)
    return tuple(cell.split())


_Choice = TypeVar("_Choice", bound=str)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,9}(?:[.,][0-9]{1,12})?", re.ASCII)


def number_in(row: Mapping[str, str], name: str) -> float | None:
    """A number with a decimal point or comma; absent when the cell is empty. Raises RowWrong."""
    cell = row.get(name, "")
    if not cell:
        return None
    if not _DECIMAL.fullmatch(cell):
        raise RowWrong(f"{name} {cell[:40]!r}", "a number like 12.5 or 12,5", "correct it")
    return float(cell.replace(",", "."))


def _whole_number(row: Mapping[str, str], name: str) -> float | None:
    number = number_in(row, name)
    if number is not None and number != int(number):
        raise RowWrong(f"{name} {row[name][:40]!r}", "a whole number", "correct it")
    return number


def _yes_or_no(row: Mapping[str, str], name: str) -> bool:
    cell = row.get(name, "").casefold()
    if cell not in _YES | _NO:
        raise RowWrong(f"{name} {cell[:40]!r}", "yes or no", "correct it")
    return cell in _YES


def _one_of(row: Mapping[str, str], name: str, choices: tuple[_Choice, ...], default: _Choice) -> _Choice:
    cell = row.get(name, "").casefold().replace(" ", "_")
    if not cell:
        return default
    for choice in choices:
        if cell == choice:
            return choice
    raise RowWrong(f"{name} {cell[:40]!r}", ", ".join(choices), "correct it")


# --- JSON -----------------------------------------------------------------------------------------------------------


class _Wrapped(msgspec.Struct, frozen=True):
    orders: list[msgspec.Raw]


def json_rows(data: bytes) -> Iterator[tuple[int, OrderIn | Refused]]:
    """The orders of a JSON document, counted from 1. Raises OrdersUnreadable."""
    if len(data) > LARGEST_FILE_BYTES:
        raise OrdersUnreadable(f"found {len(data)} bytes, expected at most {LARGEST_FILE_BYTES}: split the file")
    body = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        rows = (
            msgspec.json.decode(body, type=_Wrapped).orders
            if body[:1] == b"{"
            else msgspec.json.decode(body, type=list[msgspec.Raw])
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise OrdersUnreadable(
            f'found {error}, expected a JSON list of orders or {{"orders": [...]}}: correct the file'
        ) from None
    return ((row_number, _order_of_json(row_number, bytes(raw))) for row_number, raw in enumerate(rows, start=1))


def _order_of_json(row_number: int, raw: bytes) -> OrderIn | Refused:
    try:
        return msgspec.json.decode(raw, type=OrderIn)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Refused(row_number, _order_id_in(raw), str(error), "the fields of docs/orders.md", "correct the field")


class _OnlyId(msgspec.Struct, frozen=True):
    order_id: str = ""


def _order_id_in(raw: bytes) -> str:
    try:
        return msgspec.json.decode(raw, type=_OnlyId).order_id[:64]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
