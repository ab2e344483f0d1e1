"""What a visit has to prove, by service and outcome."""

import pytest

from shared.quantities import EpochMs, Position, Seconds, TimeWindow, metres_between
from shared.work import (
    OrderId,
    Outcome,
    Parcel,
    Proof,
    Service,
    Stop,
    StopId,
    Visit,
    doubt_about_place,
    missing_from_proof,
)

DAY = TimeWindow(EpochMs(0), EpochMs(36_000_000))


def stop(service: Service) -> Stop:
    parcels = (Parcel("S10:RR123456785FI"),)
    return Stop(StopId("s1"), OrderId("o1"), "Katu 1", Position(60.1, 24.9), DAY, DAY, Seconds(240), parcels, service)


def visit(outcome: Outcome, scanned: tuple[str, ...] = (), reason: str = "", age_checked: bool = False) -> Visit:
    proof = Proof(scanned, Position(60.1, 24.9), EpochMs(1), age_checked=age_checked)
    return Visit(StopId("s1"), outcome, EpochMs(0), EpochMs(1), proof, reason)


def test_a_scanned_hand_over_needs_nothing_more() -> None:
    done = visit(Outcome.DELIVERED_TO_PERSON, ("S10:RR123456785FI",))
    assert missing_from_proof(stop("hand_over"), done) == []


def test_a_delivery_without_its_scan_is_not_proven() -> None:
    assert missing_from_proof(stop("hand_over"), visit(Outcome.DELIVERED_TO_PERSON)) == ["scans of S10:RR123456785FI"]


def test_an_age_check_must_be_done_at_the_door() -> None:
    done = visit(Outcome.DELIVERED_TO_PERSON, ("S10:RR123456785FI",))
    assert missing_from_proof(stop("age_check"), done) == ["an age check"]


def test_an_age_checked_parcel_may_not_be_left_with_a_neighbour() -> None:
    done = visit(Outcome.DELIVERED_TO_NEIGHBOUR, ("S10:RR123456785FI",), age_checked=True)
    assert missing_from_proof(stop("age_check"), done) == ["a person: 'age_check' may not be left with neighbour"]


def test_a_failed_attempt_says_why() -> None:
    assert missing_from_proof(stop("hand_over"), visit(Outcome.ATTEMPTED)) == ["a reason"]
    assert missing_from_proof(stop("hand_over"), visit(Outcome.ATTEMPTED, reason="nobody in")) == []


def test_a_degree_of_latitude_is_111_kilometres() -> None:
    assert metres_between(Position(60, 25), Position(61, 25)) == pytest.approx(111_195, rel=1e-4)


def test_a_proof_from_the_door_leaves_no_doubt_about_its_place() -> None:
    assert doubt_about_place(stop("hand_over"), visit(Outcome.DELIVERED_TO_PERSON)) == ""


def test_a_proof_from_elsewhere_says_how_far() -> None:
    elsewhere = Proof((), Position(60.11, 24.9), EpochMs(1))
    far = Visit(StopId("s1"), Outcome.DELIVERED_TO_PERSON, EpochMs(0), EpochMs(1), elsewhere)
    assert doubt_about_place(stop("hand_over"), far) == "1112 m from the door"


def test_a_proof_without_a_place_says_so() -> None:
    blind = Visit(StopId("s1"), Outcome.REFUSED, EpochMs(0), EpochMs(1), Proof((), None, EpochMs(1)), "no")
    assert doubt_about_place(stop("hand_over"), blind) == "no place was known"
