"""Every row of orders that comes in is accepted, doubted or refused, exactly once."""

from dataclasses import replace
from datetime import date, datetime
from typing import get_args
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.contact_rows import email_in, phone_in
from cloud_hub.contacts import Customer, Wishes
from cloud_hub.correction_list import list_of_corrections, read_corrections
from cloud_hub.geocode import Corrections, Geocoder
from cloud_hub.intake import (
    COLUMNS,
    Desk,
    OrderIn,
    OrdersUnreadable,
    ZoneUnknown,
    fingerprint,
    planned_service_s,
    take_csv,
    take_json,
    take_orders,
    to_stop,
)
from firmware_sim import days
from shared.labels import make_gtin, make_s10, make_sscc
from shared.quantities import EpochMs, Position, TimeWindow
from shared.work import Service


class Known(msgspec.Struct, frozen=True):
    street: str
    number: str
    position: Position
    postcode: str = "00100"
    city: str = "Helsinki"
    kind: str = "address"


GEOCODER = Geocoder(
    [
        Known("Mannerheimintie", "5", Position(60.1690, 24.9400)),
        Known("Mannerheimintie", "9", Position(60.1700, 24.9400)),
        Known("Yrjönkatu", "13", Position(60.1660, 24.9400)),
    ]
)
DAY = date(2026, 11, 23)
DESK = Desk(GEOCODER, "Europe/Helsinki", DAY, bounds=(60.0, 24.0, 61.0, 25.0))


def order(**changes: object) -> OrderIn:
    content = {"order_id": "17", "address": "Mannerheimintie 5", "slot_from": "10:00", "slot_to": "12:00"}
    return msgspec.convert(content | changes, OrderIn)


def helsinki_ms(clock: str, day: date = DAY) -> EpochMs:
    moment = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=ZoneInfo("Europe/Helsinki"))
    return EpochMs(int(moment.timestamp() * 1000))


def test_a_csv_row_becomes_an_order_with_its_place_and_its_slot():
    sscc = make_sscc("6414141", 7)
    table = (
        "order_id,address,slot_from,slot_to,parcels,service,floor,has_lift,litres\n"
        f'A-1,"Mannerheimintie 5 A 12, 00100 Helsinki",10:00,12:00,{sscc},signature,4,yes,"12,5"\n'
    )
    intake = take_csv(table.encode(), DESK)
    (taken,) = intake.accepted
    assert intake.refused == intake.doubtful == intake.notices == ()
    assert taken.row_number == 2
    assert taken.position == Position(60.1690, 24.9400)
    assert taken.slot == TimeWindow(helsinki_ms("10:00"), helsinki_ms("12:00"))
    assert [(parcel.barcode, parcel.litres) for parcel in taken.parcels] == [(sscc, 12.5)]
    assert taken.service_s == 60 + 45 + 30 + 4 * 6 + 30 + 45


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_delimiters_encodings_and_line_ends_are_found_out(delimiter, encoding, line_end):
    rows = [
        ["Order ID", "Street", "House number", "Slot from", "Slot to"],
        ["1", "Yrjönkatu", "13", "8:00", "10.00"],
        [""] * 5,
    ]
    table = line_end.join(delimiter.join(row) for row in rows) + line_end
    intake = take_csv(table.encode(encoding), DESK)
    assert [taken.found_address for taken in intake.accepted] == ["Yrjönkatu 13, 00100 Helsinki"]
    assert "1 empty rows passed over" in intake.notices
    assert any("UTF" in notice for notice in intake.notices) == (encoding in ("latin-1", "utf-16"))


def test_a_row_says_who_waits_and_that_is_no_part_of_its_order():
    table = (
        "order_id;address;slot_from;slot_to;Customer;E-mail;mobile;lang;consent;on_its_way;door_code;colour\n"
        "1;Mannerheimintie 5;10:00;12:00;Maija;maija@example.fi;040 123 4567;FI;email, sms;yes;12C;red\n"
    )
    intake = take_csv(table.encode(), replace(DESK, country_code="358"))
    (taken,) = intake.accepted
    assert intake.customers == (
        Customer(
            "1", "Maija", "maija@example.fi", "+358401234567", "fi", ("email", "sms"),
            wishes=Wishes(door_code="12C", on_its_way=True),
        ),
    )  # fmt: skip
    assert intake.notices == ("not known and not read: colour",)
    assert (taken.customer_ref, to_stop(taken, taken.slot).door_code) == ("1", "12C")
    assert all(word not in msgspec.json.encode(taken) for word in (b"Maija", b"maija", b"4567"))


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({"email": "maija at example.fi"}, "an e-mail address that is none"),
        ({"email": "a@b.fi\nBcc: c@d.fi"}, "an e-mail address that is none"),
        ({"email": "a@b.fi, c@d.fi"}, "an e-mail address that is none"),
        ({"phone": "040 1234567"}, "a phone number that is none"),
        ({"phone": "+35840"}, "a phone number that is none"),
        ({"language": "klingon"}, "a language we do not write"),
        ({"consent": "pigeon"}, "consent to 'pigeon'"),
        ({"consent": ["sms"]}, "consent to sms without an address"),
        ({"name": "x" * 101}, "a name longer than 100"),
    ],
)
def test_a_wrong_contact_is_left_out_and_remarked_on_and_the_order_is_taken(changes, left_out):
    intake = take_orders([order(**changes)], DESK)
    assert len(intake.accepted) == 1
    (remark,) = intake.notices
    assert remark.startswith(f"order 17: {left_out}")
    assert all(customer.email == customer.phone == customer.name == "" for customer in intake.customers)


def test_contacts_without_consent_are_kept_and_counted():
    intake = take_orders([order(email="a@b.fi"), order(order_id="18", phone="+358401234567", consent="sms")], DESK)
    assert [customer.consents for customer in intake.customers] == [(), ("sms",)]
    assert intake.notices == ("contacts without consent, to whom nothing is sent: 1",)


def test_consent_to_none_is_an_opt_out_and_no_consent_says_nothing():
    said = take_orders([order(consent="none"), order(order_id="18", consent=())], DESK).customers
    assert [(each.customer_ref, each.opted_out_channels) for each in said] == [("17", ("email", "sms"))]


def test_the_same_order_with_another_phone_number_is_a_repeat_that_says_so():
    known = {"17": fingerprint(order())}
    again = take_orders([order(phone="+358401234567", consent="sms")], replace(DESK, known=known))
    assert [taken.is_repeat for taken in again.accepted] == [True]
    assert [customer.phone for customer in again.customers] == ["+358401234567"]


def test_the_content_of_an_order_has_the_fingerprint_it_had_before_contacts_came_with_it():
    content = {"address": "Bulevardi 5", "parcels": ["CE123456785FI"], "customer_ref": "C-7", "note": "bell broken"}
    taken = msgspec.convert({"order_id": "A-1", "slot_from": "10:00", "slot_to": "12:00", **content}, OrderIn)
    assert fingerprint(taken) == "93ad78d2e90d7f3a"


@given(st.text(max_size=300))
def test_an_address_that_is_taken_fits_one_header_line(text):
    taken = email_in(text)
    assert taken is None or (taken.isascii() and taken.isprintable() and taken.count("@") == 1 and " " not in taken)


@given(st.text("+0123456789 ()-./x", max_size=25), st.sampled_from(["", "358"]))
def test_a_number_that_is_taken_is_e164(text, country_code):
    taken = phone_in(text, country_code)
    assert taken is None or (taken[0] == "+" and taken[1:].isdigit() and 7 <= len(taken[1:]) <= 15)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"order_id": ""}, "order_id ''"),
        ({"order_id": "a\nb"}, "order_id"),
        ({"address": ""}, "neither an address nor"),
        ({"lat": 60.0}, "lat 60.0, lon None"),
        ({"lat": 91.0, "lon": 24.0}, "lat 91.0"),
        ({"slot_from": "noon"}, "slot_from 'noon'"),
        ({"slot_from": "25:00"}, "slot_from '25:00'"),
        ({"slot_from": "12:00", "slot_to": "10:00"}, "a slot from 12:00 to 10:00"),
        ({"slot_from": "2026-11-23"}, "slot_from"),
        ({"slot_from": "2026-11-24T10:00", "slot_to": "2026-11-24T12:00"}, "a slot beginning 2026-11-24"),
        ({"slot_to": "2026-11-25T12:00"}, "a slot from"),
        ({"open_from": "09:00"}, "open_to ''"),
        ({"open_from": "13:00", "open_to": "18:00"}, "opening hours 13:00"),
        ({"parcels": 0}, "0 parcels"),
        ({"parcels": 51}, "51 parcels"),
        ({"parcels": -1}, "-1 parcels"),
        ({"parcels": []}, "0 parcels"),
        ({"parcels": ["RB123456786GB"]}, "check digit is wrong"),
        ({"parcels": [make_gtin("6414141", 1)]}, "names a product"),
        ({"parcels": [make_s10("CE", 1, "FI")] * 2}, "twice"),
        ({"floor": 400}, "floor 400"),
        ({"service_minutes": 0}, "service_minutes 0"),
        ({"litres": -1}, "-1.0 litres"),
        ({"customer_ref": "a@b.fi"}, "customer_ref"),
        ({"customer_ref": "+358 40 1234567"}, "customer_ref"),
        ({"note": "x" * 501}, "a note longer"),
        ({"door_code": "x" * 41}, "a door_code longer"),
        ({"safe_place": "behind\x1bthe shed"}, "a safe_place with control characters"),
    ],
)
def test_what_is_wrong_with_an_order_is_named(changes, found):
    (refused,) = take_orders([order(**changes)], DESK).refused
    assert found in refused.what_found
    assert refused.expected
    assert refused.do


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("floor", "third"),
        ("floor", "1,5"),
        ("has_lift", "maybe"),
        ("service", "throw"),
        ("tier", "gold"),
        ("litres", "1.234,5"),
    ],
)
def test_a_cell_that_says_nothing_useful_refuses_its_row_alone(column, cell):
    table = (
        f"order_id;address;slot_from;slot_to;{column}\n"
        f"1;Mannerheimintie 5;10:00;12:00;{cell}\n2;Mannerheimintie 5;10:00;12:00;\n"
    )
    intake = take_csv(table.encode(), DESK)
    assert [(refused.row_number, refused.order_id) for refused in intake.refused] == [(2, "1")]
    assert [taken.order_id for taken in intake.accepted] == ["2"]


def test_a_row_with_too_many_cells_is_refused():
    table = b"order_id,address,slot_from,slot_to\n1,Mannerheimintie 5, 00100 Helsinki,10:00,12:00\n"
    (refused,) = take_csv(table, DESK).refused
    assert refused.what_found == "5 cells"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"name,place\n1,2\n",
        b"order_id,order_id,address,slot_from,slot_to\n",
        b'order_id,address,slot_from,slot_to\n1,"Mannerheimintie 5,10:00,12:00\n',
        b"PK\x03\x04 a workbook",
        b"order_id,address,slot_from,slot_to\n\x00\x01",
        b"\xff\xfe\x00",
        b"order_id,address,slot_from,slot_to\n1," + b"x" * 200_000 + b",,\n",
    ],
)
def test_a_file_that_is_no_table_of_orders_is_refused_as_a_whole(data):
    with pytest.raises(OrdersUnreadable):
        take_csv(data, DESK)


@pytest.mark.parametrize("data", [b"", b"{}", b"17", b'{"orders": 3}', b'[{"order_id":', b"[" * 100_000, b"\xff\xfe[]"])
def test_json_that_is_no_list_of_orders_is_refused_as_a_whole(data):
    with pytest.raises(OrdersUnreadable):
        take_json(data, DESK)


def test_a_wrong_order_in_json_is_refused_alone():
    good = msgspec.json.encode(order())
    data = b'{"orders": [' + good + b', 3, {"order_id": "18"}, {"order_id": "19", "colour": "1"}]}'
    intake = take_json(data, DESK)
    assert [taken.order_id for taken in intake.accepted] == ["17"]
    assert [(refused.row_number, refused.order_id) for refused in intake.refused] == [(2, ""), (3, "18"), (4, "19")]
    assert take_json(b"[" + good + b"]", DESK).accepted == intake.accepted


def test_times_with_a_zone_without_one_and_by_the_clock_are_the_same_instant():
    written = [
        ("10:00", "24:00"),
        ("2026-11-23T10:00", "2026-11-24 00:00"),
        ("2026-11-23T08:00Z", "2026-11-23T22:00+00:00"),
    ]
    orders = [order(order_id=str(at), slot_from=opens, slot_to=closes) for at, (opens, closes) in enumerate(written)]
    slots = {taken.slot for taken in take_orders(orders, DESK).accepted}
    assert slots == {TimeWindow(helsinki_ms("10:00"), helsinki_ms("00:00", date(2026, 11, 24)))}


def test_an_hour_the_clocks_skip_is_refused():
    desk = Desk(GEOCODER, "Europe/Helsinki", date(2026, 3, 29))
    (refused,) = take_orders([order(slot_from="03:30", slot_to="05:00")], desk).refused
    assert "exists in Europe/Helsinki" in refused.expected


def test_times_of_day_need_a_day():
    (refused,) = take_orders([order()], Desk(GEOCODER, "Europe/Helsinki")).refused
    assert "without a day" in refused.what_found


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "a\0b"])
def test_an_unknown_zone_is_named(zone):
    with pytest.raises(ZoneUnknown):
        take_orders([order()], Desk(GEOCODER, zone, DAY))


def test_the_same_order_again_is_a_repeat_and_other_content_is_refused():
    intake = take_orders([order(), order(), order(floor=3)], DESK)
    assert [taken.is_repeat for taken in intake.accepted] == [False, True]
    assert len(intake.new_orders) == 1
    assert "another floor than in row 1" in intake.refused[0].what_found


def test_an_order_taken_yesterday_is_known_by_its_fingerprint():
    known = {"17": fingerprint(order())}
    desk = Desk(GEOCODER, "Europe/Helsinki", DAY, known=known)
    assert take_orders([order()], desk).accepted[0].is_repeat
    assert "taken earlier" in take_orders([order(floor=1)], desk).refused[0].what_found


def test_one_parcel_is_in_one_order():
    parcel = make_s10("CE", 1, "FI")
    intake = take_orders([order(parcels=[parcel]), order(order_id="18", parcels=[parcel.removeprefix("S10:")])], DESK)
    assert f"{parcel}, which is in order 17" in intake.refused[0].what_found


def test_a_doubtful_place_is_corrected_by_a_person_once_for_all_its_orders():
    orders = [order(order_id=str(at), address="Tulppaanipolku 3") for at in range(2)]
    doubted = take_orders(orders, DESK)
    assert len(doubted.doubtful) == 2
    signed = list_of_corrections(doubted).replace("Tulppaanipolku 3,,,,", "Tulppaanipolku 3,60.166,24.94,anna,")
    corrections, refused = read_corrections(signed.encode(), Corrections())
    again = take_orders(orders, Desk(GEOCODER, "Europe/Helsinki", DAY, corrections))
    assert refused == ()
    assert [(taken.confidence, taken.reason, taken.door_group) for taken in again.accepted] == [
        (1.0, "corrected by anna", "Yrjönkatu 13")
    ] * 2


def test_a_correction_without_a_signature_changes_nothing():
    unsigned = list_of_corrections(take_orders([order(address="Mannerheimintie 7")], DESK))
    assert read_corrections(unsigned.encode(), Corrections()) == (Corrections(), ())


def test_a_position_is_taken_as_given_and_doubted_off_the_map_or_far_from_its_address():
    given = order(order_id="1", address="", lat=60.1691, lon=24.9401)
    off_the_map = order(order_id="2", address="", lat=59.0, lon=24.9)
    elsewhere = order(order_id="3", lat=60.19, lon=24.94)
    intake = take_orders([given, off_the_map, elsewhere], DESK)
    assert [(taken.position, taken.door_group) for taken in intake.accepted] == [
        (Position(60.1691, 24.9401), "Mannerheimintie 5")
    ]
    assert ["outside the map" in intake.doubtful[0].what_found, "m from" in intake.doubtful[1].what_found] == [
        True,
        True,
    ]


def test_a_position_off_the_map_is_no_candidate_but_the_place_of_its_address_is():
    typo = order(order_id="1", lat=0.0, lon=0.0)
    bare = order(order_id="2", address="", lat=0.0, lon=0.0)
    intake = take_orders([typo, bare], DESK)
    assert [[place.address for place in doubt.candidates] for doubt in intake.doubtful] == [
        ["Mannerheimintie 5, 00100 Helsinki"],
        [],
    ]
    assert "expected 60.0000 to 61.0000 north and 24.0000 to 25.0000 east" in intake.doubtful[0].what_found


def test_a_position_nobody_can_drive_to_is_doubted():
    sea = Desk(GEOCODER, "Europe/Helsinki", DAY, why_no_drive=lambda _: "nothing but water for 700 m")
    (doubt,) = take_orders([order(address="", lat=60.1, lon=24.9)], sea).doubtful
    assert "nothing but water" in doubt.what_found


def test_a_remembered_place_off_the_map_leaves_the_address_where_the_map_has_it():
    typo = Corrections().with_correction("Mannerheimintie 5", Position(0.0, 0.0), "anna")
    desk = Desk(GEOCODER, "Europe/Helsinki", DAY, typo, bounds=DESK.bounds)
    (taken,) = take_orders([order()], desk).accepted
    assert taken.position == Position(60.1690, 24.9400)


def test_an_order_becomes_a_stop_with_its_parcels_and_its_told_window():
    (taken,) = take_orders([order(parcels=2, open_from="09:00", open_to="18:00", tier="plus")], DESK).accepted
    told = TimeWindow(helsinki_ms("10:30"), helsinki_ms("11:30"))
    stop = to_stop(taken, told)
    assert (stop.told, stop.slot, stop.door_group) == (told, taken.slot, "Mannerheimintie 5")
    assert [parcel.barcode for parcel in stop.parcels] == ["WW:17/1", "WW:17/2"]
    assert stop.open_hours == TimeWindow(helsinki_ms("09:00"), helsinki_ms("18:00"))
    assert stop.lateness_weight == 5
    with pytest.raises(ValueError, match="not inside the slot"):
        to_stop(taken, TimeWindow(helsinki_ms("09:00"), helsinki_ms("11:00")))


@pytest.mark.parametrize(
    ("changes", "parcels", "seconds"),
    [
        ({}, 1, 60 + 45 + 30 + 25),
        ({"floor": 3}, 1, 60 + 45 + 3 * 30 + 30 + 25),
        ({"floor": 3, "has_lift": True}, 3, 60 + 45 + 30 + 18 + 30 + 25 + 30),
        ({"service": "leave_safe"}, 1, 60 + 45 + 20),
        ({"is_business": True, "service": "collection", "kilograms": 30}, 1, 60 + 30 + 45 + 75 + 60),
        ({"service_minutes": 12.5}, 1, 750),
    ],
)
def test_the_planned_service_time_follows_its_formula(changes, parcels, seconds):
    assert planned_service_s(order(**changes), parcels) == seconds


@given(st.sampled_from(get_args(Service)), st.integers(1, 9), st.integers(0, 12), st.booleans(), st.booleans())
def test_the_days_a_model_learns_from_plan_as_the_hub_does(service, parcels, floor, has_lift, is_business):
    planned = planned_service_s(
        order(service=service, floor=floor, has_lift=has_lift, is_business=is_business), parcels
    )
    assert days.planned_service_s(service, parcels, floor, has_lift, is_business) == planned


cells = st.text(max_size=12) | st.sampled_from(
    ["", "1", "10:00", "12:00", "Mannerheimintie 5", "60,169", "24.94", "yes", '"']
)
tables = st.builds(
    lambda header, rows, delimiter: "\n".join(delimiter.join(row) for row in [header, *rows]),
    st.permutations(COLUMNS).map(list),
    st.lists(st.lists(cells, max_size=len(COLUMNS) + 1), max_size=6),
    st.sampled_from(",;\t|"),
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | tables.map(str.encode) | st.binary(max_size=200).map(lambda row: HEADER + row))
def test_garbage_as_csv_is_refused_by_name_and_no_row_is_lost(data):
    try:
        intake = take_csv(data, DESK)
    except OrdersUnreadable:
        return
    lines = [row.row_number for outcome in (intake.accepted, intake.doubtful, intake.refused) for row in outcome]
    assert len(set(lines)) == len(lines) == intake.rows_read


HEADER = b"order_id,address,slot_from,slot_to\n"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=5), inner, max_size=9)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(json_values, max_size=6))
def test_garbage_as_json_is_refused_row_by_row(values):
    intake = take_json(msgspec.json.encode({"orders": values}), DESK)
    assert intake.rows_read == len(values)


@given(st.binary(max_size=300))
def test_random_bytes_as_json_or_as_corrections_raise_only_the_named_error(data):
    for read in (lambda: take_json(data, DESK), lambda: read_corrections(data, Corrections())):
        try:
            read()
        except OrdersUnreadable:
            pass


plausible = st.fixed_dictionaries(
    {
        "order_id": st.sampled_from(["1", "2", "3", ""]),
        "address": st.sampled_from(["Mannerheimintie 5", "Yrjönkatu 13", "Tulppaanipolku 3", ""]),
        "slot_from": st.sampled_from(["08:00", "10:00", "x"]),
        "slot_to": st.sampled_from(["12:00", "09:00"]),
        "parcels": st.integers(0, 3) | st.just([make_s10("CE", 1, "FI")]),
        "floor": st.integers(-9, 9),
    }
).map(lambda content: order(**content))


@given(st.lists(plausible, max_size=12))
def test_every_order_ends_in_exactly_one_list_and_is_planned_at_most_once(orders):
    intake = take_orders(orders, DESK)
    numbers = [row.row_number for outcome in (intake.accepted, intake.doubtful, intake.refused) for row in outcome]
    assert sorted(numbers) == list(range(1, len(orders) + 1))
    planned = [taken.order_id for taken in intake.new_orders]
    assert len(set(planned)) == len(planned)
    barcodes = [parcel.barcode for taken in intake.new_orders for parcel in taken.parcels]
    assert len(set(barcodes)) == len(barcodes)
