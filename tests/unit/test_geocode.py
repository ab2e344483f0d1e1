"""Address lines become places only when that is safe to say."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.geocode import (
    ACCEPTED_FROM,
    Corrections,
    Geocoder,
    HouseNumber,
    corrections_from,
    read_address,
    read_house_number,
)
from shared.quantities import Position, metres_between


class Known(msgspec.Struct, frozen=True):
    street: str
    number: str
    position: Position
    postcode: str = "00100"
    city: str = "Helsinki"
    kind: str = "address"


def at(metres_north: float, metres_east: float = 0.0) -> Position:
    return Position(60.17 + metres_north / 111_195, 24.94 + metres_east / 55_300)


HELSINKI = Geocoder(
    [
        Known("Mannerheimintie", "5", at(0)),
        Known("Mannerheimintie", "9", at(100)),
        Known("Mannerheimintie", "14-20", at(200, 30)),
        Known("Annankatu", "31", at(0, 300)),
        Known("Annankatu", "31", at(8, 300), kind="shop"),
        Known("Annankatu", "31", at(90, 300), kind="shop"),
        Known("Kaivopiha, Annankatu", "33 B", at(120, 300)),
        Known("Pohjoisesplanadi", "33", at(0, 500), postcode=""),
        Known("Yrjönkatu", "13", at(0, 700), postcode="00120"),
        Known("Iso Roobertinkatu", "3", at(0, 900)),
    ]
)
LAUF = Geocoder(
    [
        Known("Hersbrucker Straße", "12a", at(0), "91207", "Lauf a.d.Pegnitz"),
        Known("Müllerweg", "4", at(100), "91207", "Lauf a.d.Pegnitz"),
        Known("Hans-Sachs-Straße", "5", at(200), "91207", "Lauf a.d.Pegnitz"),
        Known("Hardtstraße", "7", at(300), "91207", "Lauf a.d.Pegnitz"),
        Known("Straße des 17. Juni", "135", at(400), "91207", "Lauf a.d.Pegnitz"),
        Known("Marktplatz", "2", at(500), "91207", "Lauf a.d.Pegnitz"),
        Known("Dorfstraße", "1", at(600), "91207", "Lauf a.d.Pegnitz"),
        Known("Dorfstraße", "1", at(3000), "90607", "Rückersdorf"),
    ]
)


@pytest.mark.parametrize(
    ("line", "street", "number", "postcode", "city"),
    [
        ("Mannerheimintie 5 A 12, 00100 Helsinki", "Mannerheimintie", HouseNumber(5, 5, "a"), "00100", "Helsinki"),
        ("Mannerheimintie 5 00100 Helsinki", "Mannerheimintie", HouseNumber(5, 5), "00100", "Helsinki"),
        ("00100 Helsinki, Annankatu 3-5", "Annankatu", HouseNumber(3, 5), "00100", "Helsinki"),
        ("Hauptstr.12a, DE-91207 Lauf, Germany", "Hauptstr.", HouseNumber(12, 12, "a"), "91207", "Lauf"),
        ("Straße des 17. Juni 135, Berlin", "Straße des 17. Juni", HouseNumber(135, 135), "", "Berlin"),
        ("Galleria Esplanad, Aleksanterinkatu 52", "Aleksanterinkatu", HouseNumber(52, 52), "", ""),
        ("Bulevardi 5/128", "Bulevardi", HouseNumber(5, 5), "", ""),
        ("12 Bulevardi", "Bulevardi", HouseNumber(12, 12), "", ""),
        ("Annankatu", "Annankatu", None, "", ""),
        ("", "", None, "", ""),
    ],
)
def test_an_address_line_is_taken_apart(line, street, number, postcode, city):
    written = read_address(line)
    assert (written.street, written.number, written.postcode, written.city) == (street, number, postcode, city)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("29-27", HouseNumber(27, 29)),
        ("7 B, sisäpiha", HouseNumber(7, 7, "b")),
        ("2, 2. krs./Floor 2", HouseNumber(2, 2)),
        ("no number", None),
    ],
)
def test_a_house_number_is_found_in_what_maps_write(text, number):
    assert read_house_number(text) == number


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("Mannerheimintie 5, 00100 Helsinki", "Mannerheimintie 5, 00100 Helsinki"),
        ("MANNERHEIMIN TIE 5 A 12", "Mannerheimintie 5, 00100 Helsinki"),
        ("Mannerheimint. 5, Helsinki", "Mannerheimintie 5, 00100 Helsinki"),
        ("Manerheimintie 5", "Mannerheimintie 5, 00100 Helsinki"),
        ("Mannerhiemintie 5", "Mannerheimintie 5, 00100 Helsinki"),
        ("Mannerheimintie 16", "Mannerheimintie 14-20, 00100 Helsinki"),
        ("Annank. 31", "Annankatu 31, 00100 Helsinki"),
        ("Annankatu 33", "Annankatu 33 B, 00100 Helsinki"),
        ("Pohj. Esplanadi 33", "Pohjoisesplanadi 33, Helsinki"),
        ("Is. Roobertinkatu 3", "Iso Roobertinkatu 3, 00100 Helsinki"),
        ("yrjonkatu 13, 00120", "Yrjönkatu 13, 00120 Helsinki"),
    ],
)
def test_finnish_forms_are_accepted(line, address):
    place = HELSINKI.find(line).place
    assert place is not None
    assert place.address == address


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("Hersbrucker Str. 12a, 91207 Lauf", "Hersbrucker Straße 12 A, 91207 Lauf a.d.Pegnitz"),
        ("Hersbruckerstr.12 a, Lauf", "Hersbrucker Straße 12 A, 91207 Lauf a.d.Pegnitz"),
        ("Muellerweg 4", "Müllerweg 4, 91207 Lauf a.d.Pegnitz"),
        ("HANS SACHS STRASSE 5", "Hans-Sachs-Straße 5, 91207 Lauf a.d.Pegnitz"),
        ("Straße des 17. Juni 135", "Straße des 17. Juni 135, 91207 Lauf a.d.Pegnitz"),
        ("Marktpl. 2", "Marktplatz 2, 91207 Lauf a.d.Pegnitz"),
        ("Dorfstr. 1, 90607 Rückersdorf", "Dorfstraße 1, 90607 Rückersdorf"),
    ],
)
def test_german_forms_are_accepted(line, address):
    place = LAUF.find(line).place
    assert place is not None
    assert place.address == address


@pytest.mark.parametrize(
    ("map_of", "line", "why"),
    [
        (HELSINKI, "Mannerheimintie 7, Helsinki", "guessed between 5 and 9"),
        (HELSINKI, "Mannerheimintie 999", "no number 999"),
        (HELSINKI, "Mannerheimintie 15", "inside 14-20"),
        (HELSINKI, "Mannerheimintie", "no house number"),
        (HELSINKI, "Tulppaanipolku 3, 00100 Helsinki", "no street of the map"),
        (HELSINKI, "Mannerheimintie 5, 02100 Espoo", "postcode 00100 on the map"),
        (HELSINKI, "Mannerheimintie 5, Espoo", "Helsinki on the map"),
        (HELSINKI, "", "no street of the map"),
        (LAUF, "Hauptstraße 7", "no street 'Hauptstraße'"),
        (LAUF, "Dorfstraße 1", "as likely"),
    ],
)
def test_a_doubtful_line_gets_no_place_and_says_why(map_of, line, why):
    found = map_of.find(line)
    assert found.place is None
    assert why in found.doubt


def test_a_guess_between_neighbours_lies_between_them():
    best = HELSINKI.find("Mannerheimintie 7").candidates[0]
    assert best.confidence < ACCEPTED_FROM
    assert metres_between(best.position, at(50)) < 1


def test_a_correction_is_remembered_for_every_way_of_writing_the_text():
    corrections = Corrections().with_correction("Tulppaanipolku 3, Helsinki", at(120, 303), "anna")
    place = HELSINKI.find("TULPPAANIPOLKU  3,HELSINKI", corrections).place
    assert place is not None
    assert (place.position, place.confidence, place.reason) == (at(120, 303), 1.0, "corrected by anna")
    assert place.door == "Annankatu 33"
    assert (
        corrections_from([{"text": "Tulppaanipolku 3, Helsinki", **_lat_lon(at(120, 303)), "by": "anna"}])
        == corrections
    )


def test_entries_of_one_number_within_25_m_are_one_door():
    doors = {candidate.door for candidate in HELSINKI.find("Annankatu 31").candidates}
    assert doors == {"Annankatu 31", "Annankatu 31 #2"}
    assert HELSINKI.door_near(at(10, 300)) == "Annankatu 31"
    assert HELSINKI.door_near(at(45, 300)).startswith("@")


@given(st.text(max_size=400))
def test_any_text_gets_candidates_with_a_confidence_and_a_reason(line):
    found = HELSINKI.find(line)
    confidences = [candidate.confidence for candidate in found.candidates]
    assert all(0 <= confidence <= 1 for confidence in confidences)
    assert confidences == sorted(confidences, reverse=True) or found.place is None
    assert all(candidate.reason for candidate in found.candidates)
    assert (found.place is None) == bool(found.doubt)


@given(st.integers(1, 9999), st.sampled_from(["Mannerheimintie", "Annankatu", "Yrjönkatu"]))
def test_a_number_the_map_does_not_have_is_never_accepted(number, street):
    on_the_map = {"Mannerheimintie": {5, 9, 14, 16, 18, 20}, "Annankatu": {31, 33}, "Yrjönkatu": {13}}[street]
    place = HELSINKI.find(f"{street} {number}").place
    assert (place is not None) == (number in on_the_map)


def _lat_lon(position: Position) -> dict[str, float]:
    return {"lat": position.lat, "lon": position.lon}
