"""Orders from CSV, JSON or the API, row by row: accepted, doubtful or refused, and no row ever lost.

A file is refused as a whole (`OrdersUnreadable`) only when its rows cannot be told apart. A row is refused with what
was found, what was expected and what to do; it is doubtful when everything is right but its place. The columns, the
formula of the planned service time and the list of corrections (`cloud_hub.correction_list`) are described in
`docs/orders.md`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from cloud_hub.contact_rows import customer_of, refuse_unreadable
from cloud_hub.contacts import Customer, Language
from cloud_hub.geocode import Candidate, Corrections, Found, Geocoder
from cloud_hub.order_rows import (
    COLUMNS,
    OF_THE_CUSTOMER,
    OrderIn,
    OrdersUnreadable,
    Refused,
    RowWrong,
    Tier,
    csv_rows,
    decoded,
    json_rows,
)
from cloud_hub.order_times import ZoneUnknown, right_times, zone_named
from shared.labels import LabelBook, LabelRefused, own_label, read_label
from shared.quantities import Position, Seconds, TimeWindow, metres_between
from shared.work import OrderId, Parcel, Service, Stop, StopId

__all__ = [
    "COLUMNS", "LATENESS_WEIGHTS", "Desk", "Doubtful", "Intake", "OrderAccepted", "OrderIn",
    "OrdersUnreadable", "Refused", "Tier", "ZoneUnknown", "fingerprint", "planned_service_s",
    "right_position", "take_csv", "take_json", "take_orders", "to_stop",
]  # fmt: skip

LATENESS_WEIGHTS: Mapping[Tier, int] = {"economy": 1, "standard": 3, "plus": 5, "premium": 8}
"""What a minute late costs against another tier's minute."""

MOST_PARCELS = 50
SAME_PLACE_M = 300.0
"""A position further than this from the place its own address has is doubted."""


class OrderAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """An order that can be planned: everything checked, its place known.

    `found_address` is the map's own wording, `confidence` and `reason` how the place was found. `is_repeat` says that
    the same order with the same content came before: it is not planned twice. `fingerprint` is the content's.
    """

    row_number: int
    order_id: OrderId
    fingerprint: str
    is_repeat: bool
    address: str
    found_address: str
    position: Position
    confidence: float
    reason: str
    door_group: str
    slot: TimeWindow
    open_hours: TimeWindow | None
    parcels: tuple[Parcel, ...]
    service: Service
    service_s: Seconds
    floor: int
    has_lift: bool
    is_business: bool
    customer_ref: str
    lateness_weight: int
    note: str
    door_code: str
    safe_place: str
    neighbour: str
    partner: str = ""


class Doubtful(msgspec.Struct, frozen=True):
    """An order that is right but for its place: a person says where it is, and the order is handed in again."""

    row_number: int
    order: OrderIn
    candidates: tuple[Candidate, ...]
    what_found: str
    do: str


class Intake(msgspec.Struct, frozen=True):
    """What became of every row; `notices` are remarks about the file and about what was left out of its rows.

    `customers` is what the accepted and doubtful rows say of those who wait, in the order of the rows.
    """

    accepted: tuple[OrderAccepted, ...] = ()
    doubtful: tuple[Doubtful, ...] = ()
    refused: tuple[Refused, ...] = ()
    notices: tuple[str, ...] = ()
    customers: tuple[Customer, ...] = ()

    @property
    def rows_read(self) -> int:
        """The rows the file had; every one is in exactly one list."""
        return len(self.accepted) + len(self.doubtful) + len(self.refused)

    @property
    def new_orders(self) -> tuple[OrderAccepted, ...]:
        """The accepted orders that did not come before."""
        return tuple(order for order in self.accepted if not order.is_repeat)


@dataclass(frozen=True, slots=True)
class Desk:
    """What an intake knows when rows come in.

    `zone` is the IANA name of the day's time zone. Without a `day`, times must carry their date; with it, slots must
    begin on it. `known` are the fingerprints of orders taken earlier, `parcels_held` whose order a barcode is in.
    `bounds` are the map's (south, west, north, east), outside of which a position is doubted. `why_no_drive` says why
    nobody can drive to a position, "" when somebody can. `languages` are those of known customers, `language` is for
    all others; `country_code` is what a phone number with a leading 0 belongs to.
    """

    geocoder: Geocoder
    zone: str
    day: date | None = None
    corrections: Corrections = field(default_factory=Corrections)
    known: Mapping[str, str] = field(default_factory=dict)
    parcels_held: Mapping[str, str] = field(default_factory=dict)
    book: LabelBook | None = None
    bounds: tuple[float, float, float, float] | None = None
    why_no_drive: Callable[[Position], str] = lambda _: ""
    languages: Mapping[str, Language] = field(default_factory=dict)
    language: Language = "en"
    country_code: str = ""

    def objection_to(self, position: Position) -> str:
        """Why a position a person gave is not one of this map; "" when it is."""
        if self.bounds is not None and not _is_inside(position, self.bounds):
            south, west, north, east = self.bounds
            return (
                f"position {position.lat}, {position.lon} is outside the map, "
                f"expected {south:.4f} to {north:.4f} north and {west:.4f} to {east:.4f} east"
            )
        return self.why_no_drive(position)


def take_csv(data: bytes, desk: Desk) -> Intake:
    """The orders of a CSV file. Raises OrdersUnreadable when it is no table of orders, and ZoneUnknown."""
    text, notices = decoded(data)
    rows, more_notices = csv_rows(text)
    return _take(rows, desk, (*notices, *more_notices))


def take_json(data: bytes, desk: Desk) -> Intake:
    """The orders of a JSON list, or of {"orders": [...]}. Raises OrdersUnreadable, ZoneUnknown."""
    return _take(json_rows(data), desk, ())


def take_orders(orders: Sequence[OrderIn], desk: Desk) -> Intake:
    """The orders of an API call; row numbers count from 1. Raises ZoneUnknown."""
    return _take(enumerate(orders, start=1), desk, ())


def to_stop(order: OrderAccepted, told: TimeWindow) -> Stop:
    """The visit this order asks for. Raises ValueError when the told window is not inside the slot."""
    if not told.within(order.slot):
        raise ValueError(
            f"order {order.order_id}: told window {told} is not inside the slot {order.slot}: tell a part of the slot"
        )
    return Stop(
        stop_id=StopId(f"stop-{order.order_id}"),
        order_id=order.order_id,
        address=order.found_address or order.address,
        position=order.position,
        slot=order.slot,
        told=told,
        service_s=order.service_s,
        parcels=order.parcels,
        service=order.service,
        floor=order.floor,
        has_lift=order.has_lift,
        is_business=order.is_business,
        open_hours=order.open_hours,
        door_group=order.door_group,
        lateness_weight=order.lateness_weight,
        door_code=order.door_code,
        note=order.note,
        safe_place=order.safe_place,
        neighbour=order.neighbour,
    )


# Seconds: a first guess. The models multiply it and are trained on days planned by this sum (`firmware_sim.days`), so a
# change here asks for a new training.
PARKING_S = 60
WALK_S = 45
WALK_BUSINESS_S = 30
LIFT_WAIT_S = 30
LIFT_FLOOR_S = 6
STAIRS_FLOOR_S = 30
WAIT_FOR_PERSON_S = 30
WAIT_AT_RECEPTION_S = 45
MORE_PARCELS_S = 15
HEAVY_S = 60
HEAVY_FROM_KG = 20.0
AT_THE_DOOR_S: Mapping[Service, int] = {
    "hand_over": 25,
    "leave_safe": 20,
    "signature": 45,
    "age_check": 60,
    "collection": 75,
}


def planned_service_s(order: OrderIn, parcels: int) -> Seconds:
    """The planned dwell, from parking to leaving, in seconds; the order's own `service_minutes` goes first."""
    if order.service_minutes is not None:
        return Seconds(round(order.service_minutes * 60))
    seconds = PARKING_S + (WALK_BUSINESS_S if order.is_business else WALK_S)
    floors = abs(order.floor)
    if floors:
        seconds += LIFT_WAIT_S + LIFT_FLOOR_S * floors if order.has_lift else STAIRS_FLOOR_S * floors
    if order.service != "leave_safe":
        seconds += WAIT_AT_RECEPTION_S if order.is_business else WAIT_FOR_PERSON_S
    seconds += AT_THE_DOOR_S[order.service] + MORE_PARCELS_S * (parcels - 1)
    return Seconds(seconds + (HEAVY_S if order.kilograms > HEAVY_FROM_KG else 0))


# --- one row --------------------------------------------------------------------------------------------------------


def _take(rows: Iterable[tuple[int, OrderIn | Refused]], desk: Desk, notices: tuple[str, ...]) -> Intake:
    counter = _Counter(desk)
    for row_number, row in rows:
        if isinstance(row, Refused):
            counter.refused.append(row)
        else:
            counter.take(row_number, row)
    return Intake(
        tuple(counter.accepted),
        tuple(counter.doubtful),
        tuple(counter.refused),
        (*notices, *counter.remarks()),
        tuple(counter.customers),
    )


class _Counter:
    """Takes rows one after the other and remembers which orders and parcels it has seen."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.zone = zone_named(desk.zone)
        self.accepted: list[OrderAccepted] = []
        self.doubtful: list[Doubtful] = []
        self.refused: list[Refused] = []
        self.customers: list[Customer] = []
        self._left_out: list[str] = []
        self._unsaid = 0
        self.seen: dict[str, tuple[int, OrderIn]] = {}
        self.order_of_parcel = dict(desk.parcels_held)

    def take(self, row_number: int, order: OrderIn) -> None:
        try:
            is_repeat = self._is_repeat(order)
            parcels = self._right_parcels(order)
            slot, open_hours = right_times(order, self.desk.day, self.zone)
            _right_attributes(order)
            refuse_unreadable(order)
            found = self._place_of(order)
        except RowWrong as wrong:
            order_id = order.order_id[:64]
            self.refused.append(Refused(row_number, order_id, wrong.found, wrong.expected, wrong.do))
            return
        self._note_customer(order)
        self.seen.setdefault(order.order_id, (row_number, order))
        self.order_of_parcel.update({parcel.barcode: order.order_id for parcel in parcels})
        place = found.place
        if place is None:
            do = "choose a candidate or give lat and lon in the list of corrections, then hand the order in again"
            self.doubtful.append(Doubtful(row_number, order, found.candidates, found.doubt, do))
            return
        self.accepted.append(
            OrderAccepted(
                row_number=row_number,
                order_id=OrderId(order.order_id),
                fingerprint=fingerprint(order),
                is_repeat=is_repeat,
                address=order.address or place.address,
                found_address=place.address,
                position=place.position,
                confidence=place.confidence,
                reason=place.reason,
                door_group=place.door,
                slot=slot,
                open_hours=open_hours,
                parcels=parcels,
                service=order.service,
                service_s=planned_service_s(order, len(parcels)),
                floor=order.floor,
                has_lift=order.has_lift,
                is_business=order.is_business,
                customer_ref=order.customer_ref or order.order_id,
                lateness_weight=LATENESS_WEIGHTS[order.tier],
                note=order.note.strip(),
                door_code=order.door_code.strip(),
                safe_place=order.safe_place.strip(),
                neighbour=order.neighbour.strip(),
                partner=order.partner.strip(),
            )
        )

    def remarks(self) -> tuple[str, ...]:
        """What was left out of rows that were taken, and how often nobody may be told."""
        silent = f"contacts without consent, to whom nothing is sent: {self._unsaid}"
        return (*self._left_out, *((silent,) if self._unsaid else ()))

    def _note_customer(self, order: OrderIn) -> None:
        desk = self.desk
        customer, left_out = customer_of(order, desk.languages, desk.language, desk.country_code)
        self._left_out += left_out
        if customer is not None:
            self.customers.append(customer)
            self._unsaid += bool((customer.email or customer.phone) and not customer.consents)

    def _is_repeat(self, order: OrderIn) -> bool:
        if not _is_reference(order.order_id):
            raise RowWrong(
                f"order_id {order.order_id[:80]!r}", "1 to 64 printable characters", "give the shop's order number"
            )
        if order.order_id in self.seen:
            row_number, earlier = self.seen[order.order_id]
            different = [name for name in _CONTENT if getattr(order, name) != getattr(earlier, name)]
            if different:
                raise RowWrong(
                    f"order {order.order_id} again with another {', '.join(different)} than in row {row_number}",
                    "one content for one order_id",
                    "give a new order_id, or change the earlier row",
                )
            return True
        known = self.desk.known.get(order.order_id)
        if known is not None and known != fingerprint(order):
            raise RowWrong(
                f"order {order.order_id}, which was taken earlier with other content",
                "the same content, or a new order_id",
                "give a new order_id, or change the order at the hub",
            )
        return known is not None

    def _right_parcels(self, order: OrderIn) -> tuple[Parcel, ...]:
        if isinstance(order.parcels, int):
            number = order.parcels
            barcodes = [own_label(order.order_id, at) for at in range(1, min(number, MOST_PARCELS) + 1)]
        else:
            number = len(order.parcels)
            barcodes = [self._right_barcode(text, order.order_id) for text in order.parcels[:MOST_PARCELS]]
        if not 1 <= number <= MOST_PARCELS:
            raise RowWrong(f"{number} parcels", f"1 to {MOST_PARCELS}", "split the order or name its parcels")
        twice = sorted({barcode for barcode in barcodes if barcodes.count(barcode) > 1})
        if twice:
            raise RowWrong(
                f"parcel {twice[0]} twice in order {order.order_id}", "each parcel once", "remove one of them"
            )
        if not (0 <= order.litres <= 100_000 and 0 <= order.kilograms <= 100_000):
            raise RowWrong(
                f"{order.litres} litres and {order.kilograms} kilograms", "0 to 100000 of each", "correct them"
            )
        litres, kilograms = order.litres / number, order.kilograms / number
        return tuple(Parcel(barcode, litres, kilograms) for barcode in barcodes)

    def _right_barcode(self, text: str, order_id: str) -> str:
        try:
            label = read_label(text, self.desk.book)
        except LabelRefused as refusal:
            raise RowWrong(f"parcel label: {refusal}", "a label we can read", "correct the barcode") from None
        if not label.names_one_unit:
            raise RowWrong(
                f"{label.canonical}, a {label.kind.replace('_', ' ')}: it names a product or shipment, not one parcel",
                "an SSCC, a UPU S10 number, a carrier's or a shop's own parcel label",
                "give the parcel's own label, or only the number of parcels",
            )
        holder = self.order_of_parcel.get(label.canonical, order_id)
        if holder != order_id:
            raise RowWrong(
                f"parcel {label.canonical}, which is in order {holder}", "a parcel in one order", "correct the barcode"
            )
        return label.canonical

    def _place_of(self, order: OrderIn) -> Found:
        text = order.address.strip()
        if order.lat is None and order.lon is None:
            if not text:
                raise RowWrong("neither an address nor lat and lon", "one of them", "say where the order goes")
            return self._place_named(text)
        position = right_position(order.lat, order.lon)
        return self._place_at(position, text)

    def _place_named(self, text: str) -> Found:
        """The place of a text, as a person corrected it or as the map has it."""
        said = self.desk.corrections.of(text)
        objection = "" if said is None else self.desk.objection_to(said.position)
        # A correction that leads off the map is a slip of the pen somebody signed: the map is asked instead.
        return self.desk.geocoder.find(text, None if objection else self.desk.corrections)

    def _place_at(self, position: Position, text: str) -> Found:
        """A place given by its coordinates; doubted off the map, or when its own address is elsewhere.

        Off the map only the places of the text are candidates: nobody may choose one that cannot be driven to.
        """
        geocoder = self.desk.geocoder
        written = text or f"{position.lat:.6f}, {position.lon:.6f}"
        if self.desk.corrections.of(written) is not None:
            return self._place_named(written)
        objection = self.desk.objection_to(position)
        if objection:
            return Found(written, geocoder.find(text).candidates if text else (), objection)
        door = geocoder.door_near(position)
        given = Candidate(position, text or written, 1.0, "position given with the order", door)
        place = geocoder.find(text).place if text else None
        if place is not None and metres_between(place.position, position) > SAME_PLACE_M:
            metres = round(metres_between(place.position, position))
            doubt = f"position given is {metres} m from {place.address}"
            doubted = msgspec.structs.replace(given, confidence=0.5, reason=doubt)
            return Found(written, (doubted, msgspec.structs.replace(place, confidence=0.5, reason=doubt)))
        return Found(written, (given,))


_CONTENT = tuple(name for name in OrderIn.__struct_fields__ if name not in (*OF_THE_CUSTOMER, "partner"))


def fingerprint(order: OrderIn) -> str:
    """Sixteen hexadecimal digits that differ when the content of two orders differs; whose they are is no content."""
    content = {name: getattr(order, name) for name in _CONTENT}
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]


def _is_reference(text: str) -> bool:
    return 1 <= len(text) <= 64 and text.isprintable() and text.isascii() and text == text.strip()


def right_position(lat: float | None, lon: float | None) -> Position:
    """The place of these degrees. Raises RowWrong when they are none."""
    if lat is None or lon is None or not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise RowWrong(f"lat {lat}, lon {lon}", "both, in degrees: -90 to 90 and -180 to 180", "correct the position")
    return Position(lat, lon)


def _is_inside(position: Position, bounds: tuple[float, float, float, float]) -> bool:
    south, west, north, east = bounds
    return south <= position.lat <= north and west <= position.lon <= east


def _right_attributes(order: OrderIn) -> None:
    if not -5 <= order.floor <= 100:
        raise RowWrong(f"floor {order.floor}", "-5 to 100, 0 for the ground", "correct the floor")
    if order.service_minutes is not None and not 0 < order.service_minutes <= 240:
        raise RowWrong(
            f"service_minutes {order.service_minutes}", "more than 0, at most 240", "correct them or leave them out"
        )
    reference = order.customer_ref
    if reference and ("@" in reference or reference.startswith("+") or not _is_reference(reference)):
        raise RowWrong(
            "a customer_ref that is an e-mail address, a phone number or longer than 64 printable characters",
            "a reference to the shop's own record",
            "give its key there, and the address in a column of its own",
        )
    if len(order.partner) > 64 or not order.partner.isprintable():
        raise RowWrong("a partner longer than 64 characters or with control characters", "a short name", "correct it")
    if len(order.address) > 300:
        raise RowWrong("an address longer than 300 characters", "less", "shorten it")
