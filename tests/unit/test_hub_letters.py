"""A dead letter is kept whole, acted upon once at a person's word, and never stalls a stream or the process."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.events import Answer, LetterRetried, LetterSettled, Spoke, Unreadable
from cloud_hub.fleet import AgentRecord, DeadLetter, DeadPayload
from cloud_hub.letters import EXCERPT
from shared import wire
from shared.ledger import Decision
from shared.messages import AgentEvent, Decided, HeadingTo, Numbered, ShiftChanged, Visited
from shared.quantities import EpochMs
from shared.steps import Row
from shared.work import Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import VAN, Driven, at, order

VISIT = Visited(
    Visit(StopId("stop-1"), Outcome.DELIVERED_TO_PERSON, at(10), EpochMs(at(10) + 60_000), Proof((), None, at(10)))
)


def driven() -> Driven:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    return hub


def heard(event: AgentEvent, seq: int, hour: float) -> bytes:
    return wire.encode(Numbered(VAN, f"{VAN}-boot", "events", seq, at(hour), 0, event))


def buried(hub: Driven, payload: bytes, seq: int = 1) -> str:
    """A message that an older release could not read; its key."""
    hub.take(Unreadable(VAN, f"{VAN}-boot", "events", seq, payload, "not one of ours"))
    return f"{VAN}/{VAN}-boot/events/{seq:012d}"


def letter(hub: Driven, key: str) -> DeadLetter:
    found: DeadLetter = hub.documents("dead_letters", DeadLetter)[key]
    return found


def payload(hub: Driven, key: str) -> bytes | None:
    kept = hub.documents("dead_payloads", DeadPayload).get(key)
    return None if kept is None else kept.payload


def retry(hub: Driven, key: str, known: DeadLetter | None = None) -> Answer:
    asked = LetterRetried(key, known or letter(hub, key), payload(hub, key), "anna")
    answer: Any = hub.take(asked).answers[0]
    assert isinstance(answer, Answer)
    return answer


def test_a_letter_of_any_size_is_kept_whole_and_shown_by_its_beginning() -> None:
    hub = driven()
    said = b'{"sender":"van-1","message":"' + b"x" * (wire.MOST_BYTES - 60) + b'"}'
    key = buried(hub, said)
    assert payload(hub, key) == said
    assert (len(letter(hub, key).payload), letter(hub, key).size) == (EXCERPT, len(said))


def test_a_visit_nobody_could_read_is_taken_once_when_it_can_be_read() -> None:
    hub = driven()
    key = buried(hub, heard(VISIT, 1, 10))
    before = letter(hub, key)
    assert retry(hub, key).is_done
    assert b'"state":"done"' in hub.rooms["stops"]["stop-1"]
    assert (letter(hub, key).state, letter(hub, key).looked_ms) == ("retried", at(7))
    decision = hub.decisions()[-1]
    assert (decision.kind, decision.decision_id) == ("dead_letter_retried", letter(hub, key).decision_id)
    assert "had Visited acted upon after all, a dead letter of van-1, number 1" in decision.sentence
    again = retry(hub, key, before)  # Two people asked at once.
    assert (again.is_done, again.why_not) == (False, "the letter was retried before: each is looked at once")
    hub.wake_up()
    assert not retry(hub, key).is_done


def test_what_still_cannot_be_read_or_acted_upon_changes_nothing_and_says_why() -> None:
    hub = driven()
    garbled = buried(hub, b'{"sender":"van-1"', 1)
    nowhere = buried(hub, heard(HeadingTo(StopId("nowhere")), 2, 10), 2)
    before = {room: dict(rows) for room, rows in hub.rooms.items()}
    assert retry(hub, garbled).why_not.startswith("it still cannot be acted upon: b'{")
    assert retry(hub, nowhere).why_not == "it still cannot be acted upon: stop 'nowhere' is unknown"
    assert hub.rooms == before


def test_what_said_how_things_stood_is_not_acted_upon_when_newer_was_said() -> None:
    hub = driven()
    key = buried(hub, heard(ShiftChanged("begun"), 1, 8), 1)
    hub.take(Spoke(Numbered(VAN, f"{VAN}-boot", "events", 2, at(17), 0, ShiftChanged("ended"))))
    assert "ShiftChanged says how things stood then" in retry(hub, key).why_not
    assert hub.documents("agents", AgentRecord)[VAN].shift == "ended"


def test_a_decision_whose_chain_has_gone_on_is_not_put_behind_it() -> None:
    hub = driven()
    first = Decision("van-1/1", VAN, "keep", at(9), "I keep the order.", "late", (), (), 0, "allowed", "rules")
    key = buried(hub, heard(Decided(first), 1, 9), 1)
    second = msgspec.structs.replace(first, decision_id="van-1/2", previous=first.link())
    hub.take(Spoke(Numbered(VAN, f"{VAN}-boot", "events", 2, at(9), 0, Decided(second))))
    assert "has gone on without it" in retry(hub, key).why_not
    assert [decision.decision_id for decision in hub.decisions(VAN)] == ["van-1/2"]


def test_a_letter_somebody_has_looked_at_is_settled_and_stays_listed() -> None:
    hub = driven()
    key = buried(hub, b"{}")
    known = letter(hub, key)
    answers = hub.take(LetterSettled(key, known, "anna"), LetterSettled(key, known, "bert")).answers
    assert [answer.is_done for answer in answers.values()] == [True, False]
    assert letter(hub, key).state == "settled"
    assert "anna" not in str(hub.decisions()[-1])
    assert not retry(hub, key).is_done


def test_a_letter_whose_bytes_are_gone_is_not_retried() -> None:
    hub = driven()
    key = buried(hub, heard(VISIT, 1, 10))
    hub.commit([Row("dead_payloads", key, None)])
    assert "not kept" in retry(hub, key).why_not


def test_a_message_the_process_broke_on_twice_is_put_aside_and_the_next_one_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = driven()
    poison = Spoke(Numbered(VAN, f"{VAN}-boot", "events", 1, at(10), 0, VISIT))

    def breaks(*_: object) -> None:
        raise KeyError("a mistake of ours")

    for _ in range(2):
        monkeypatch.setitem(hub.core._reports._acts, Visited, breaks)
        with pytest.raises(KeyError):
            hub.take(poison)
        assert hub.core.under_way is not None
        key, times = hub.core.under_way
        hub.commit([Row("suspects", key, b"%d" % times)])  # As the shell does before the process ends.
        hub.wake_up()
    monkeypatch.setitem(hub.core._reports._acts, Visited, breaks)
    hub.take(poison, Spoke(Numbered(VAN, f"{VAN}-boot", "events", 2, at(10), 0, HeadingTo(StopId("stop-2")))))
    (dead,) = hub.documents("dead_letters", DeadLetter).values()
    assert dead.why == "the hub broke 2 times while it acted upon it"
    assert hub.documents("agents", AgentRecord)[VAN].heading_to == "stop-2"
    assert hub.rooms["suspects"] == {}
    hub.wake_up()  # The mistake is mended.
    assert retry(hub, f"{VAN}/{VAN}-boot/events/{1:012d}").is_done


@given(st.binary(max_size=200))
def test_no_bytes_of_a_retried_letter_break_the_hub(said: bytes) -> None:
    hub = driven()
    key = buried(hub, said)
    assert not retry(hub, key).is_done or letter(hub, key).state == "retried"
