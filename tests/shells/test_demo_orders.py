"""The day of orders we ship is what its command makes, and comes in as it should."""

import csv
import io
from datetime import date
from pathlib import Path

import pytest

from cloud_hub.geocode import Geocoder
from cloud_hub.intake import COLUMNS, Desk, Intake, take_csv, take_json
from deploy.days import make_orders
from shared.citymap import CityMap, shipped_city
from shared.quantities import metres_between

ORDERS = Path(make_orders.__file__).with_name("helsinki-orders.csv")


@pytest.fixture(scope="module")
def city() -> CityMap:
    return CityMap.load(shipped_city())


@pytest.fixture(scope="module")
def desk(city: CityMap) -> Desk:
    return Desk(Geocoder(city.addresses), "Europe/Helsinki", date(2026, 11, 23), bounds=city.bounds)


@pytest.fixture(scope="module")
def intake(desk: Desk) -> Intake:
    return take_csv(ORDERS.read_bytes(), desk)


def test_the_orders_shipped_are_those_the_command_makes(city):
    out = io.StringIO()
    make_orders.write_orders(city, 5, out)
    assert out.getvalue() == ORDERS.read_text(encoding="utf-8")


def test_120_orders_are_accepted_and_two_wait_for_a_correction(intake):
    assert (len(intake.new_orders), len(intake.doubtful), intake.refused, intake.notices) == (120, 2, (), ())
    doubts = sorted(doubtful.what_found for doubtful in intake.doubtful)
    assert "no number 900" in doubts[0]
    assert "no street of the map" in doubts[1]


def test_the_misspelt_street_is_found_and_says_so(intake):
    assert sum("1 letter off" in taken.reason for taken in intake.accepted) == 1


def test_a_van_can_stop_near_every_order(intake, city):
    assert max(city.snap(taken.position).metres_off for taken in intake.accepted) < 80


def test_the_mix_is_a_last_mile(intake):
    taken = intake.accepted
    doors = [order.door_group for order in taken]
    assert sum(doors.count(door) > 1 for door in set(doors)) >= 12
    assert sum(order.open_hours is not None for order in taken) == 16
    assert 0.04 <= sum(order.service == "collection" for order in taken) / len(taken) <= 0.08
    assert {order.service for order in taken} == {"hand_over", "leave_safe", "signature", "age_check", "collection"}
    assert {parcel.barcode.partition(":")[0] for order in taken for parcel in order.parcels} == {
        "POSTI", "SSCC", "S10", "DHL", "DPD", "UPS",
    }  # fmt: skip


def test_every_address_of_the_shipped_town_finds_itself_or_is_doubted(city, desk):
    numbered = [known for known in city.addresses if known.street and known.number]
    places = [(known, desk.geocoder.find(f"{known.street} {known.number}").place) for known in numbered]
    found = [(known, place) for known, place in places if place is not None]
    assert len(found) > 0.95 * len(numbered)
    assert max(metres_between(known.position, place.position) for known, place in found) < 150


def test_the_columns_in_the_page_on_orders_are_all_there_are():
    page = Path(__file__).parents[2] / "docs" / "orders.md"
    table = [
        line.split("|")[1].strip(" `")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert sorted(table) == sorted(COLUMNS)


def test_the_json_example_in_the_page_on_orders_is_accepted(desk):
    page = (Path(__file__).parents[2] / "docs" / "orders.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]
    assert len(take_json(example.encode(), desk).accepted) == 1


def test_the_csv_example_in_the_page_on_orders_is_accepted(desk):
    page = (Path(__file__).parents[2] / "docs" / "orders.md").read_text(encoding="utf-8")
    example = page.partition("```csv\n")[2].partition("```")[0]
    assert len(take_csv(example.encode(), desk).accepted) == len(list(csv.reader(io.StringIO(example)))) - 1
