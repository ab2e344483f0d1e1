"""The hub refuses to start on nonsense, and says which setting, what was found and what was expected."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.settings import costs_of, depots_of, lockers_of, read_hub_settings, vehicle_of
from shared.costs import Costs
from shared.settings import SettingsWrong

GOOD = """
[[depots]]
id = "north"
name = "North"
position = [60.29, 25.03]
[[vehicles]]
agent = "van-1"
depot = "north"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "hub.toml"
    path.write_text(text)
    return path


def test_a_depot_and_a_van_are_enough(tmp_path: Path) -> None:
    read = read_hub_settings(written(tmp_path, GOOD))
    (depot,) = depots_of(read)
    assert depot.gateway == depot.position
    vehicle = vehicle_of(read.vehicles[0], "2026-03-03", read.zone)
    assert vehicle.ends_ms - vehicle.begins_ms == int(8.5 * 3_600_000)
    assert vehicle.rest is not None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('broker_url = "x"', "unknown field `broker_url`"),
        ('zone = "Mars/Olympus"', "expected an IANA time zone"),
        ('day = "tomorrow"', "expected YYYY-MM-DD"),
        ("solver_s = 0", "expected 0.1 to 3600"),
        ('webhook = "shop"', "expected https://HOST/PATH"),
        ('region = "a/b"', "expected a name without"),
        ("http_port = 70000", "expected 0 to 65535"),
        ("[promises]\nmost_moves = -1", "most_moves"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(SettingsWrong, match=words):
        read_hub_settings(written(tmp_path, f"{line}\n{GOOD}" if "[" not in line else f"{GOOD}\n{line}\n"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('depot = "south"', "expected one of north"),
        ('depot = "north"\nshift_from = "8 am"', "expected HH:MM"),
        ('depot = "north"\nshift_to = "07:00"', "the shift begins 08:00, ends 07:00"),
        ('depot = "north"\nbreak_from = "05:00"', "does not lie in the shift"),
        ('depot = "north"\ncapacity_litres = 0', "expected more than 0"),
        ('depot = "north"\n[[vehicles]]\nagent = "van-1"\ndepot = "north"', "named twice"),
    ],
)
def test_a_vehicle_that_makes_no_sense_is_named(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(SettingsWrong, match=words):
        read_hub_settings(
            written(tmp_path, GOOD.replace('agent = "van-1"\ndepot = "north"', f'agent = "van-1"\n{change}'))
        )


@settings(max_examples=60)
@given(st.text(max_size=80) | st.sampled_from(["depots = 3", "[[depots]]", "vehicles = [1]", "region = 4"]))
def test_no_file_makes_the_hub_raise_anything_but_a_named_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("s") / "hub.toml"
    path.write_bytes(text.encode())
    with pytest.raises(SettingsWrong):
        read_hub_settings(path)


def priced(folder: Path, prices: str) -> Path:
    costs = folder / "costs.toml"
    costs.write_text(prices)
    return written(folder, f'costs = "{costs}"\n{GOOD}')


def test_prices_are_those_shipped_unless_a_file_says_others(tmp_path: Path) -> None:
    assert costs_of(read_hub_settings(written(tmp_path, GOOD))) == Costs()
    own = costs_of(read_hub_settings(priced(tmp_path, 'currency = "SEK"\nlocker = 20.0\n')))
    assert (own.currency, own.locker, own.next_day) == ("SEK", 20.0, Costs().next_day)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ("locker = -1.0", "Expected `float` >= 0"),
        ("locker = nan", "Expected `float` >= 0"),
        ("locker = inf", "locker is inf, expected an amount of money"),
        ('currency = "euros"', "currency is 'euros', expected three letters"),
        ("per_smile = 1.0", "unknown field `per_smile`"),
        ("locker =", "is not TOML"),
    ],
)
def test_prices_that_are_none_refuse_the_start(tmp_path: Path, prices: str, words: str) -> None:
    with pytest.raises(SettingsWrong, match=re.escape(words)):
        read_hub_settings(priced(tmp_path, prices))


def test_a_file_of_prices_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsWrong, match="cannot be read"):
        read_hub_settings(written(tmp_path, f'costs = "{tmp_path / "nowhere.toml"}"\n{GOOD}'))


LOCKER = '[[lockers]]\nid = "kiosk"\nname = "Kiosk"\nposition = [60.17, 24.94]\n'


def test_lockers_and_bounds_of_trying_again_are_read(tmp_path: Path) -> None:
    read = read_hub_settings(written(tmp_path, f"{GOOD}{LOCKER}capacity = 4\n[redelivery]\nmost_attempts = 2\n"))
    (locker,) = lockers_of(read)
    assert (locker.locker_id, locker.capacity, locker.most_litres) == ("kiosk", 4, 60.0)
    assert read.redelivery.most_attempts == 2


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LOCKER * 2, "locker 'kiosk' is named twice"),
        (LOCKER.replace("kiosk", "a/b"), "expected an id of 1 to 40"),
        (LOCKER.replace("60.17", "160.0"), "expected latitude and longitude"),
        (f"{LOCKER}capacity = -1\n", "has -1 compartments"),
        ("[redelivery]\nmost_attempts = 0\n", "most_attempts"),
        ("[redelivery]\nat_business = 1.5\n", "at_business"),
        ("[redelivery]\nworking_days = [0]\n", "working_days"),
        ("[redelivery]\nhope = 1\n", "hope"),
    ],
)
def test_lockers_and_bounds_that_are_nonsense_refuse_the_start(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(SettingsWrong, match=re.escape(words)):
        read_hub_settings(written(tmp_path, GOOD + lines))
