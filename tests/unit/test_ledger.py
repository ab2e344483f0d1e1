"""A chain of decisions shows where it was changed, cut or rewritten."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger import FIRST_LINK, Alternative, Decision, Input, first_broken, spoken
from shared.quantities import EpochMs
from shared.work import AgentId


def chain(length: int) -> list[Decision]:
    records, link = [], FIRST_LINK
    for number in range(length):
        records.append(
            Decision(
                f"d{number}", AgentId("van-1"), "resequence", EpochMs(number), "Moved a stop.", "late", (), (), 0,
                "allowed", "van-1", previous=link,
            )
        )  # fmt: skip
        link = records[-1].link()
    return records


def test_an_untouched_chain_holds() -> None:
    assert first_broken(chain(5)) is None


@given(st.integers(0, 8))
def test_a_changed_record_is_found_at_its_successor(place: int) -> None:
    records = chain(10)
    records[place] = msgspec.structs.replace(records[place], sentence="Nothing happened.")
    assert first_broken(records) == records[place + 1]


@given(st.integers(0, 8))
def test_a_record_cut_out_is_found(place: int) -> None:
    records = chain(10)
    del records[place]
    assert first_broken(records) == records[place]


def test_a_record_read_back_has_the_link_it_was_written_with() -> None:
    whole = Decision(
        "d", AgentId("van-1"), "resequence", EpochMs(1), "Moved a stop.", "late", (Input("age", "5", 5),),
        (Alternative("keep", 7, 1, 2),), 0, "allowed", "van-1",
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Decision).link() == whole.link()


def test_a_sentence_is_spoken_with_names_for_its_ids() -> None:
    names = {"stop-1": "Liisankatu 20", "stop-12": "Bulevardi 5"}
    said = spoken("Running 9 min late at stop-12; only serve stop-1 next.", names)
    assert said == "Running 9 min late at Bulevardi 5; only serve Liisankatu 20 next."
