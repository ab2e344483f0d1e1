"""A day of real people and real processes: nothing personal in logs, records, readings or topics, and whoever is
forgotten is in no byte of any store.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cloud_hub.ledgers import Verdict
from tests.shells.people_day import ANNA, ANNAS, BERTTA, BERTTAS, HANDS, PeopleDay, holding


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleDay]:
    """One day for all tests of this page, which come in its order: lived, looked at, then forgotten."""
    with PeopleDay(tmp_path_factory.mktemp("people")) as day:
        day.live()
        yield day


def everybody() -> dict[str, str]:
    return {
        f"{who}'s {what}": word
        for who, words in (("anna", ANNAS), ("bertta", BERTTAS), ("", HANDS))
        for what, word in words.items()
    }


def records(store: Path) -> list[bytes]:
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as file:
        docs = [doc for (doc,) in file.execute("SELECT doc FROM decisions")]
        return docs + [word.encode() for (word,) in file.execute("SELECT word FROM decision_words")]


def test_what_is_looked_for_is_where_it_belongs(day: PeopleDay) -> None:
    found = " ".join(holding(day.hub_files(), everybody()))
    assert [what for what in everybody() if what not in found] == []
    van = " ".join(holding(day.van_files(), everybody()))
    assert all(what in van for what in ("anna's address", "anna's door code", "anna's note", "bertta's neighbour"))


def test_stores_and_keys_are_for_their_owner_alone(day: PeopleDay) -> None:
    files = [*day.hub_files(), *day.van_files(), day.folder / "hub.key"]
    assert len(files) >= 5
    assert [file.name for file in files if file.stat().st_mode & 0o077] == []


def test_no_log_holds_anything_personal(day: PeopleDay) -> None:
    logs = sorted(day.logs.iterdir())
    assert {"hub.log", "van-1.log", "broker.log"} <= {log.name for log in logs}
    assert any(log.stat().st_size for log in logs)
    assert holding(logs, everybody()) == []


def test_no_record_of_a_decision_holds_anything_personal(day: PeopleDay) -> None:
    kinds = {decision["kind"] for decision in day.hub.get("/api/decisions", params={"most": 5000}).json()}
    assert {"planned", "order_corrected", "street_closed", "customer_wish", "redelivery"} <= kinds
    kept = records(day.folder / "hub.db")
    words = everybody()
    assert [(what, doc) for doc in kept for what, word in words.items() if word.encode() in doc] == []


def test_people_still_read_who_closed_the_street_and_why(day: PeopleDay) -> None:
    (closed,) = day.hub.get("/api/decisions", params={"kind": "street_closed"}).json()
    assert closed["approved_by"].startswith("person:")
    assert closed["spoken"].startswith(f"{HANDS['operator']} closed ")
    assert closed["spoken"].endswith(f"In their words: {HANDS['words']}")
    assert closed["hand"] == {"name": HANDS["operator"], "words": HANDS["words"]}


def test_a_visit_is_proved_by_scan_place_and_signature(day: PeopleDay) -> None:
    proof = day.hub.get("/api/orders/A-1/proof").json()
    (visit,) = proof["visits"]
    assert (visit["outcome"], visit["scanned"]) == ("delivered_to_person", ["S10:CE123456785FI"])
    assert visit["doubt_about_place"] == ""
    assert visit["objects"] == [{"kind": "signature", "digest": day.digest, "has_arrived": True}]
    shown = day.hub.get(f"/api/objects/{day.digest}")
    assert shown.content == day.picture
    assert (shown.headers["content-type"], shown.headers["x-content-type-options"]) == ("image/png", "nosniff")
    assert "sandbox" in shown.headers["content-security-policy"]
    assert day.hub.get(f"/api/objects/{'0' * 64}").status_code == 404
    assert day.hub.get("/api/objects/hub.db").status_code == 422


def test_a_customer_is_forgotten_by_one_command_in_every_byte_of_every_store(day: PeopleDay) -> None:
    figures = day.hub.get("/api/promises").json()
    link = day.say_to_hub("/api/orders/A-1/link", {})["token"]
    assert day.hub.get(f"/t/{link}").status_code == 200
    done = day.command("forget", ANNA, "--hub", day.hub_url, "--by", HANDS["operator"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert holding(day.hub_files(), ANNAS | {"signature": day.digest}) == []
    day.wait(lambda: holding(day.van_files(), ANNAS | {"signature": day.digest}) == [], "the van has forgotten her too")
    assert holding(day.hub_files(), BERTTAS) != []
    assert day.hub.get("/api/promises").json() == figures
    assert day.hub.get(f"/api/objects/{day.digest}").status_code == 404
    assert day.hub.get(f"/t/{link}").status_code == 410
    assert day.hub.get("/api/orders/A-1/proof").json()["is_forgotten"]
    assert day.command("forget", ANNA, "--hub", day.hub_url).returncode == 2


def test_the_chains_still_hold_after_it(day: PeopleDay) -> None:
    online = day.command("verify", "--hub", day.hub_url)
    assert online.returncode == 0, online.stdout
    assert msgspec.convert(day.hub.get("/api/ledger/verify").json(), Verdict).holds
    living = day.command("verify", "--store", f"sqlite:///{day.folder / 'hub.db'}")
    assert living.returncode == 0, living.stdout


def test_a_forged_record_is_named_in_a_store_nobody_works_on(day: PeopleDay, tmp_path: Path) -> None:
    with sqlite3.connect(day.folder / "hub.db") as living, sqlite3.connect(tmp_path / "hub.db") as asleep:
        living.backup(asleep)
        asleep.execute("UPDATE decisions SET doc = replace(doc, 'closed', 'opened') WHERE kind = 'street_closed'")
    forged = day.command("verify", "--store", f"sqlite:///{tmp_path / 'hub.db'}")
    assert forged.returncode == 1
    assert "first bad record hub-" in forged.stdout
    assert day.command("verify", "--store", f"sqlite:///{tmp_path / 'nothing.db'}").returncode == 2


def test_readings_and_topics_hold_nothing_personal(day: PeopleDay) -> None:
    day.wait(lambda: any(topic.endswith("/telemetry") for topic in day.topics), "a batch of readings is said")
    readings = sorted(day.folder.glob("hub-telemetry.db*"))
    assert sum(file.stat().st_size for file in readings) > 10_000
    assert holding(readings, everybody()) == []
    assert {"events", "objects", "commands"} <= {topic.rpartition("/")[2] for topic in day.topics}
    assert [topic for topic in day.topics for word in everybody().values() if word in topic] == []


def test_somebody_who_waits_for_a_parcel_is_forgotten_only_when_that_is_meant(day: PeopleDay) -> None:
    refused = day.command("forget", BERTTA, "--hub", day.hub_url)
    assert (refused.returncode, "B-1" in refused.stdout) == (2, True)
    assert holding(day.hub_files(), {"name": BERTTAS["name"]}) != []
    day.say("/api/shift", **{"is": "ended"})  # The van stands at her door, and needs that place to find its way on.
    done = day.command("forget", BERTTA, "--hub", day.hub_url, "--even-open")
    assert done.returncode == 0, done.stdout + done.stderr
    words = BERTTAS | {"driver": HANDS["driver"]}
    assert holding(day.hub_files(), words) == []
    day.wait(lambda: holding(day.van_files(), words) == [], "the van has forgotten her too")
    assert day.command("verify", "--hub", day.hub_url).returncode == 0
