"""Make a day of orders for real addresses of a city bundle, the same for the same seed.

    python -m deploy.days.make_orders --seed 5 > deploy/days/helsinki-orders.csv

The mix is one city centre's last mile for three vans: homes with two-hour slots, businesses that were promised 10:00
or 12:00, shops with their opening hours, several doors at one parking place, and a few collections. Three rows are
wrong on purpose: one street is misspelt, one house number and one street do not exist.
"""

import argparse
import csv
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TextIO

from cloud_hub.geocode import Geocoder, read_house_number
from shared.citymap import Address, CityMap, shipped_city
from shared.labels import make_dhl, make_dpd, make_posti, make_s10, make_sscc, make_ups, mod37_36_check
from shared.quantities import metres_between

COLUMNS = (
    "order_id", "address", "slot_from", "slot_to", "parcels", "service", "floor", "has_lift", "is_business",
    "customer_ref", "open_from", "open_to", "tier", "litres", "kilograms",
    "name", "email", "phone", "language", "consent", "on_its_way", "door_code", "safe_place", "neighbour", "note",
)  # fmt: skip

FARTHEST_FROM_STREET_M = 60.0
# How many homes have which slot: two hours that begin on every hour of the morning, the early ones sold most. Three
# vans that leave at 07:30 are busy until the early afternoon, so a delay always meets somebody with little slack.
HOME_SLOTS = {
    ("08:00", "10:00"): 24,
    ("09:00", "11:00"): 20,
    ("10:00", "12:00"): 18,
    ("11:00", "13:00"): 16,
    ("12:00", "14:00"): 14,
}
SHOP_SLOTS = (("08:00", "12:00"), ("09:00", "13:00"), ("10:00", "14:00"))
OFFICES, SHOPS = 12, 16


PHONES = tuple(f"+4670174{number:04d}" for number in range(605, 700))
"""Swedish numbers that PTS, the regulator there, keeps free for films and books (070-1740605 to 070-1740699): nobody
has them. No such range of Finland is known to us.
"""

LANGUAGES = (("fi", 75), ("sv", 15), ("en", 10))
FIRST_NAMES = {
    "fi": ("Aino", "Veikko", "Helmi", "Eino", "Sylvi", "Toivo", "Lempi", "Urho", "Saima", "Onni", "Impi", "Oiva"),
    "sv": ("Astrid", "Folke", "Elsa", "Sixten", "Greta", "Holger", "Märta", "Ragnar"),
    "en": ("Ada", "Grace", "Alan", "Edith", "Niklaus", "Hedy"),
}
LAST_NAMES = {
    "fi": ("Keksitty", "Satunen", "Tarunen", "Kuvitelma", "Mallinen", "Esimerkki", "Olematon", "Sepitelmä"),
    "sv": ("Påhittig", "Sagolund", "Exempelström", "Diktander"),
    "en": ("Sample", "Fictional", "Madeup", "Instance"),
}
"""Names nobody is called: the surnames say that they are invented."""

SAFE_PLACES = {
    "fi": ("pyörävarasto", "rappukäytävän kaappi", "kuistin penkki"),
    "sv": ("cykelförrådet", "skåpet i trappan"),
    "en": ("the bicycle shed", "the cupboard on the landing"),
}
NOTES = {
    "fi": ("ovikello ei soi, koputa", "sisäänkäynti pihan puolelta", "varo koiraa"),
    "sv": ("ingång från gården", "ring två gånger"),
    "en": ("entrance from the yard", "please knock, the bell is broken"),
}


@dataclass(slots=True)
class Day:
    """The rows made so far, and what they are made with."""

    city: CityMap
    geocoder: Geocoder
    luck: Random
    town: str
    rows: list[dict[str, str]] = field(default_factory=list)
    parcels_made: int = 0

    def add(self, address: str, slot: tuple[str, str], service: str, **more: str) -> None:
        """One more order; its parcels are made here, its number when the day is whole."""
        is_business = more.get("is_business") == "yes"
        count = self.luck.choices((1, 2, 3), (60, 27, 13) if is_business else (78, 17, 5))[0]
        make = self._label_maker(is_business, service == "collection")
        parcels = [_printed(make(self._next_serial())) for _ in range(count)]
        litres = sum(round(self.luck.lognormvariate(2.4, 0.7), 1) for _ in parcels)
        row = {
            "address": address,
            "slot_from": slot[0],
            "slot_to": slot[1],
            "service": service,
            "parcels": " ".join(parcels),
            "litres": f"{litres:.1f}",
            "kilograms": f"{litres * self.luck.uniform(0.12, 0.3):.1f}",
            **more,
        }
        self.rows.append(row)

    def _label_maker(self, is_business: bool, is_collected: bool) -> Callable[[int], str]:
        """Whose labels one order's parcels carry; a collection has the return label of a post."""
        if is_collected:
            return lambda serial: make_s10("CE", serial, "FI")
        makers: tuple[Callable[[int], str], ...] = (
            lambda serial: make_posti(643_000, serial),
            lambda serial: make_sscc("6414141", serial),
            lambda serial: make_s10("CE", serial, "FI"),
            lambda serial: make_dhl(390_000_000_000 + serial),
            lambda serial: make_dpd(998, serial),
            lambda serial: make_ups("4F7E12", "68", serial),
        )
        weights = (25, 45, 5, 10, 5, 10) if is_business else (40, 8, 17, 15, 12, 8)
        return self.luck.choices(makers, weights)[0]

    def _next_serial(self) -> int:
        self.parcels_made += 1
        return 4_711_000 + 37 * self.parcels_made


def main() -> None:
    """Write the orders as CSV to standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=5, help="the same seed makes the same orders (default 5)")
    parser.add_argument("--city", type=Path, default=shipped_city(), help="folder of a city bundle (default: Helsinki)")
    arguments = parser.parse_args()
    write_orders(CityMap.load(arguments.city), arguments.seed, sys.stdout)


def write_orders(city: CityMap, seed: int, out: TextIO) -> None:
    """Write a day of orders for addresses of this city. Raises ValueError when the city has too few addresses."""
    day = Day(city, Geocoder(city.addresses), Random(seed), _town(city))
    doors, shops = _doors(day), _shops(day)
    if len(doors) < 60 or len(shops) < SHOPS:
        raise ValueError(
            f"{city.name}: found {len(doors)} doors and {len(shops)} shops that keep hours, expected 60 and {SHOPS}: "
            "take a larger extract"
        )
    day.luck.shuffle(doors)
    _add_homes(day, doors[OFFICES:])
    _add_offices(day, doors[:OFFICES])
    _add_shops(day, shops)
    _misspell_one(day)
    _add_doubtful(day)
    day.luck.shuffle(day.rows)
    people = Random(f"customers {seed}")  # Their own luck: who waits does not change what is delivered where.
    phones = list(PHONES)
    people.shuffle(phones)
    table = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for at, row in enumerate(day.rows, start=1):
        customer = f"C-{20_000 + 7 * at}"
        who = _customer(people, customer, row, phones)
        table.writerow({"order_id": f"HEL-{1000 + at}", "customer_ref": customer, **row, **who})


def _doors(day: Day) -> list[Address]:
    """Plain addresses that are found again by their own text, at a street a van can stop at; one per house number."""
    doors: dict[str, Address] = {}
    for address in day.city.addresses:
        if address.kind == "address" and _is_found_again(day, address):
            doors.setdefault(f"{address.street} {address.number}", address)
    return [doors[text] for text in sorted(doors)]


def _shops(day: Day) -> list[tuple[Address, str, str]]:
    """Shops that open by 11:00 on a Monday and close after 14:00, with those hours; one per address."""
    shops: dict[str, tuple[Address, str, str]] = {}
    for address in day.city.addresses:
        hours = _monday_hours(address.opening_hours)
        if address.kind == "shop" and hours and hours[0] <= "11:00" and _is_found_again(day, address):
            shops.setdefault(f"{address.street} {address.number}", (address, *hours))
    found = [shops[text] for text in sorted(shops)]
    day.luck.shuffle(found)
    return found


_HOURS = re.compile(r"Mo-(?:Th|Fr|Sa|Su) (\d{1,2}):(\d\d)-(\d\d):(\d\d)(?:;|$)")


def _monday_hours(opening_hours: str) -> tuple[str, str] | None:
    """The hours of a Monday from an OSM opening_hours text of the simplest kind; absent for any other."""
    match = _HOURS.match(opening_hours)
    if match is None:
        return None
    opens, closes = f"{int(match[1]):02d}:{match[2]}", f"{match[3]}:{match[4]}"
    return (opens, closes) if opens < closes <= "24:00" and closes > "14:00" else None


def _is_found_again(day: Day, address: Address) -> bool:
    if read_house_number(address.number) is None or not address.street or "," in address.street:
        return False
    place = day.geocoder.find(_line(day, address)).place
    if place is None or metres_between(place.position, address.position) > 30:
        return False
    return day.city.snap(address.position).metres_off <= FARTHEST_FROM_STREET_M


def _town(city: CityMap) -> str:
    """The town most addresses are in; the map does not say it of all of them."""
    return Counter(address.city for address in city.addresses if address.city).most_common(1)[0][0]


def _line(day: Day, address: Address, home: str = "") -> str:
    """The address as a shop's form has it: street, number, stair and home, postcode and town."""
    street = f"{address.street} {read_house_number(address.number)}{home}"
    return f"{street}, {address.postcode} {day.town}".replace("  ", " ").replace(",  ", ", ")


def _add_homes(day: Day, doors: Sequence[Address]) -> None:
    """Homes, every fourth house with two to four customers, each with a slot of their own or a neighbour's."""
    slots = [slot for slot, homes in HOME_SLOTS.items() for _ in range(homes)]
    day.luck.shuffle(slots)
    for door in doors:
        neighbours = day.luck.choices((1, 2, 3, 4), (72, 17, 8, 3))[0]
        levels = door.levels or 5
        has_lift = "yes" if day.luck.random() < (0.5 if levels >= 4 else 0.1) else ""
        for slot in _slots_of_neighbours(day, slots, neighbours):
            floor = day.luck.randrange(levels)
            home = f" {day.luck.choice('AABBC')} {1 + 3 * floor + day.luck.randrange(3)}"
            is_lettered = door.number.strip()[-1:].isalpha()
            service = day.luck.choices(
                ("hand_over", "leave_safe", "signature", "age_check", "collection"), (54, 20, 16, 6, 4)
            )[0]
            tier = day.luck.choices(("", "economy", "plus"), (80, 10, 10))[0]
            line = _line(day, door, "" if is_lettered else home)
            day.add(line, slot, service, floor=str(floor), has_lift=has_lift, tier=tier)


def _slots_of_neighbours(day: Day, slots: list[tuple[str, str]], neighbours: int) -> list[tuple[str, str]]:
    """Slots taken off the heap for one house: two neighbours out of three are at home at the same time."""
    taken: list[tuple[str, str]] = []
    while slots and len(taken) < neighbours:
        is_alike = bool(taken) and taken[0] in slots and day.luck.random() < 0.65
        slot = taken[0] if is_alike else slots[-1]
        slots.remove(slot)
        taken.append(slot)
    return taken


def _add_offices(day: Day, doors: Sequence[Address]) -> None:
    """Businesses that paid for 10:00 or for 12:00."""
    for at, door in enumerate(doors):
        latest, tier = ("10:00", "premium") if at % 2 else ("12:00", "plus")
        service = day.luck.choices(("hand_over", "signature"), (60, 40))[0]
        floor = str(day.luck.randrange(min(door.levels or 5, 6)))
        slot = ("08:00", latest)
        day.add(_line(day, door), slot, service, floor=floor, has_lift="yes", is_business="yes", tier=tier)


def _add_shops(day: Day, shops: Sequence[tuple[Address, str, str]]) -> None:
    """Shops take deliveries while they are open; three of them also hand over what customers returned."""
    for at, (shop, opens, closes) in enumerate(shops[:SHOPS]):
        slot = day.luck.choice([slot for slot in SHOP_SLOTS if slot[1] > max(opens, "09:30") and slot[1] <= closes])
        service = "collection" if at < 3 else day.luck.choice(("hand_over", "hand_over", "signature"))
        day.add(_line(day, shop), slot, service, is_business="yes", open_from=opens, open_to=closes)


def _customer(people: Random, customer: str, row: dict[str, str], phones: list[str]) -> dict[str, str]:
    """Who waits for an order, how they may be told, and what they said about their door. Nobody real."""
    language = people.choices([name for name, _ in LANGUAGES], [share for _, share in LANGUAGES])[0]
    first, last = people.choice(FIRST_NAMES[language]), people.choice(LAST_NAMES[language])
    is_business = row.get("is_business") == "yes"
    agrees = people.choices(("email", "email sms", "sms", "none"), (44, 38, 12, 6))[0]
    phone = phones.pop() if phones and "sms" in agrees else ""
    agreed = agrees if phone or "sms" not in agrees else "email"
    # What may not be used is not handed over.
    says = {
        "name": f"{last} Oy" if is_business else f"{first} {last}",
        "email": f"{_ascii(first)}.{_ascii(last)}.{customer[2:]}@example.org" if "email" in agreed else "",
        "phone": phone,
        "language": language,
        "consent": agreed,
        "on_its_way": "yes" if people.random() < 0.2 else "",
    }
    chances = [people.random() for _ in range(4)]
    if is_business:
        return says
    may_be_left = row["service"] in ("hand_over", "leave_safe")
    if chances[0] < 0.5:
        says["door_code"] = str(people.randrange(1000, 10_000))
    if may_be_left and chances[1] < 0.06:
        says["safe_place"] = people.choice(SAFE_PLACES[language])
    elif may_be_left and chances[2] < 0.08:
        says["neighbour"] = f"{people.choice(LAST_NAMES[language])}, A {people.randrange(1, 30)}"
    if chances[3] < 0.12:
        says["note"] = people.choice(NOTES[language])
    return says


def _ascii(name: str) -> str:
    """The name as it stands in an address: without dots and rings."""
    return unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()


def _misspell_one(day: Day) -> None:
    """Leave a letter out of one street; the address is still found, and says so."""
    for row in day.rows:
        misspelt = row["address"][:4] + row["address"][5:]
        found = day.geocoder.find(misspelt)
        if found.place is not None and "1 letter off" in found.place.reason and len(misspelt.split()[0]) > 9:
            row["address"] = misspelt
            return


def _add_doubtful(day: Day) -> None:
    """Two orders for the list of corrections: a house number and a street that do not exist."""
    street = day.rows[-1]["address"].split(" ")[0]
    numbers = range(900, 999, 2)
    missing = next(number for number in numbers if day.geocoder.find(f"{street} {number}, {day.town}").place is None)
    day.add(f"{street} {missing}, {day.town}", ("12:00", "14:00"), "hand_over", floor="2", has_lift="yes")
    day.add(f"Tulppaanipolku 3, {day.town}", ("10:00", "12:00"), "signature")


def _printed(canonical: str) -> str:
    """A label's text as printed for people: a GS1 key with its identifier, a DPD number with its check character."""
    scheme, _, identity = canonical.partition(":")
    if scheme == "SSCC":
        return f"(00){identity}"
    return identity + (mod37_36_check(identity) if scheme == "DPD" else "")


if __name__ == "__main__":
    main()
