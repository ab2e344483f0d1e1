"""What a scan may say, held against the standards, published examples and the biip package."""

import biip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.labels import (
    GS,
    AmbiguousLabel,
    LabelChecksumWrong,
    LabelEmpty,
    LabelGarbled,
    LabelPatternsUnreadable,
    LabelRefused,
    LabelTooLong,
    UnknownLabel,
    label_book,
    make_dhl,
    make_dpd,
    make_gtin,
    make_posti,
    make_s10,
    make_sscc,
    make_ups,
    own_label,
    read_label,
    scan_text,
    shipped_labels,
)

serials = st.integers(0, 9_999_999)
made_labels = st.one_of(
    st.builds(make_sscc, st.just("6414141"), serials),
    st.builds(make_s10, st.sampled_from(["CE", "RR", "UA"]), st.integers(0, 99_999_999), st.sampled_from(["FI", "DE"])),
    st.builds(make_ups, st.just("999AA1"), st.sampled_from(["01", "68"]), serials),
    st.builds(make_posti, st.integers(0, 999_999), serials),
    st.builds(make_dhl, serials),
    st.builds(make_dpd, st.integers(0, 9_999), serials),
    st.builds(make_gtin, st.just("6414141"), st.integers(0, 99_999)),
    st.builds(own_label, st.sampled_from(["#1001", "R 17", "a/b"]), st.integers(1, 99)),
)


@pytest.mark.parametrize(
    ("scan", "canonical", "kind", "carrier"),
    [
        ("1Z999AA10123456784", "UPS:1Z999AA10123456784", "carrier_parcel", "ups"),
        ("]C0 1z 999 aa1 01 2345 6784\r\n", "UPS:1Z999AA10123456784", "carrier_parcel", "ups"),
        ("RB123456785GB", "S10:RB123456785GB", "postal_item", "royal_mail"),
        ("ce 123 456 785 fi", "S10:CE123456785FI", "postal_item", "posti"),
        ("JJFI64300012345678901", "POSTI:JJFI64300012345678901", "carrier_parcel", "posti"),
        ("JJD1410302937991", "DHL:JJD1410302937991", "carrier_parcel", "dhl"),
        ("3318810025", "DHL:3318810025", "carrier_parcel", "dhl"),
        ("0081 827 0998 0000 0200 33 350 276 C", "DPD:09980000020033", "carrier_parcel", "dpd"),
        ("]C0%008182709980000020033350276", "DPD:09980000020033", "carrier_parcel", "dpd"),
        ("01015026003653c", "DPD:01015026003653", "carrier_parcel", "dpd"),
        ("]C100340433836442636597", "SSCC:340433836442636597", "logistic_unit", "dhl"),
        ("(00)006141411234567890", "SSCC:006141411234567890", "logistic_unit", None),
        ("00006141411234567890", "SSCC:006141411234567890", "logistic_unit", None),
        ("]E04006381333931", "GTIN:04006381333931", "trade_item", None),
        (f"]d2010400638133393121AB-1{GS}1726123110LOT", "SGTIN:04006381333931.AB-1", "serial_item", None),
        ("]C1010400638133393121A(1)", "SGTIN:04006381333931.A(1)", "serial_item", None),
        (f"]C1401SHIP1{GS}37002", "GS1:401=SHIP1|37=002", "gs1_other", None),
        ("]Q1WW:#1001/2", "WW:#1001/2", "own_parcel", None),
    ],
)
def test_a_published_or_printed_label_reads_to_its_canonical_text(scan, canonical, kind, carrier):
    label = read_label(scan)
    assert (label.canonical, label.kind, label.carrier) == (canonical, kind, carrier)


@pytest.mark.parametrize(
    ("scan", "refusal"),
    [
        ("", LabelEmpty),
        ("\r\n\0", LabelEmpty),
        ("A" * 257, LabelTooLong),
        ("JJFI\x07", LabelGarbled),
        ("٣٣١٨٨١٠٠٢٥", LabelGarbled),
        ("HELLO WORLD", UnknownLabel),
        ("[)>\x1e06\x1dJ", UnknownLabel),
        ("]C1", UnknownLabel),
        (f"]C1{GS}", UnknownLabel),
        ("]C10012", UnknownLabel),
        ("]C1041", UnknownLabel),
        ("GS1:71 =1", UnknownLabel),
        ("RB123456786GB", LabelChecksumWrong),
        ("1Z999AA10123456785", LabelChecksumWrong),
        ("00340433836442636598", LabelChecksumWrong),
        ("SSCC:006141411234567891", LabelChecksumWrong),
        ("3318810010", LabelChecksumWrong),
        ("008182709980000020033350276A", LabelChecksumWrong),
        ("201298452277", AmbiguousLabel),
    ],
)
def test_what_is_no_label_is_refused_by_name(scan, refusal):
    with pytest.raises(refusal):
        read_label(scan)


def test_bare_digits_are_certain_where_one_carrier_is_in_use():
    assert read_label("201298452277", shipped_labels().only("dhl")).canonical == "DHL:201298452277"


def test_a_product_code_does_not_name_one_parcel():
    assert not read_label("4006381333931").names_one_unit
    assert read_label("RB123456785GB").names_one_unit


@given(made_labels)
def test_a_canonical_text_and_its_scan_read_to_itself(canonical):
    assert read_label(canonical).canonical == canonical
    assert read_label(scan_text(canonical)).canonical == canonical


@given(made_labels.filter(lambda canonical: canonical.startswith(("SSCC", "S10", "UPS"))), st.data())
def test_one_digit_misread_is_never_the_same_parcel(canonical, data):
    digits = [at for at, character in enumerate(canonical) if character.isdigit() and at > canonical.index(":") + 2]
    at = data.draw(st.sampled_from(digits))
    wrong = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != canonical[at]]))
    misread = canonical[:at] + wrong + canonical[at + 1 :]
    try:
        assert read_label(misread).canonical != canonical
    except LabelRefused:
        pass


label_like = st.builds(
    lambda opening, pieces: opening + "".join(pieces),
    st.sampled_from(["]C1", "]d2", "]C0", "]I1", "(", GS, "SSCC:", "GS1:", "SGTIN:", "DPD:", "WW:", ""]),
    st.lists(st.sampled_from(["01", "00", "21", "37", "4006381333931", "261231", *f"AB/.|=() {GS}"]), max_size=6),
)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda scan: scan.decode("latin-1")) | label_like)
def test_garbage_is_read_or_refused_by_name_and_nothing_else(scan):
    try:
        label = read_label(scan)
    except LabelRefused:
        return
    assert read_label(label.canonical).canonical == label.canonical


element = st.sampled_from(["00", "01", "10", "21", "17", "400", "401", "3103", "37"]).flatmap(
    lambda ai: st.tuples(
        st.just(ai),
        {
            "00": serials.map(lambda serial: make_sscc("6414141", serial).removeprefix("SSCC:")),
            "01": st.integers(0, 99_999).map(lambda item: make_gtin("6414141", item).removeprefix("GTIN:")),
            "17": st.just("261231"),
            "3103": st.just("001250"),
            "37": st.integers(1, 99_999_999).map(str),
        }.get(ai, st.text("ABCXYZ0123456789-/", min_size=1, max_size=20)),
    )
)


@given(st.lists(element, min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_gs1_element_strings_are_split_as_biip_splits_them(pairs):
    body = "".join(f"{ai}{value}{'' if ai in ('00', '01', '17', '3103') else GS}" for ai, value in pairs).rstrip(GS)
    expected = biip.parse(f"]C1{body}").gs1_message
    found = read_label(f"]C1{body}").elements
    assert expected is not None
    assert found == tuple((element.ai.ai, element.value) for element in expected.element_strings)


@given(serials, st.integers(0, 9))
def test_an_sscc_we_print_is_one_to_biip(serial, extension):
    sscc = make_sscc("6414141", serial, extension).removeprefix("SSCC:")
    parsed = biip.parse(f"]C100{sscc}").sscc
    assert parsed is not None
    assert parsed.value == sscc


def test_a_carrier_is_added_as_data():
    book = label_book('[[pattern]]\ncarrier = "swift"\nname = "Swift"\nshape = \'SW(?P<id>[0-9]{6})\'\ncheck = "none"')
    assert read_label("SW123456", book).canonical == "SWIFT:123456"
    assert read_label("SWIFT:123456", book).carrier == "swift"


@pytest.mark.parametrize(
    "text",
    [
        "carrier = [",
        'pattern = "x"',
        '[[pattern]]\ncarrier = "x"',
        '[[pattern]]\ncarrier = "x"\nname = "X"\nshape = "["',
        '[[pattern]]\ncarrier = "x"\nname = "X"\nshape = "[0-9]"\ncheck = "mod97"',
        '[[pattern]]\ncarrier = "X Y"\nname = "X"\nshape = "[0-9]"',
        "s10_operators = 3",
    ],
)
def test_patterns_that_say_nothing_useful_are_refused(text):
    with pytest.raises(LabelPatternsUnreadable):
        label_book(text)
