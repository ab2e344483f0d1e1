"""A chain of decisions shows where it was changed, cut or rewritten."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger import FIRST_LINK, Decision, first_broken
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
