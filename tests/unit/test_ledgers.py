"""A store's chains are verified record by record: whatever is changed, cut out or cut off is found and named."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.fleet import Chain, KeptDecision
from cloud_hub.ledgers import ChainVerdict, verified
from shared.ledger import FIRST_LINK, Decision
from shared.quantities import EpochMs
from shared.work import AgentId


def kept(node: str, lengths: Sequence[int] = (6,), kind: str = "planned") -> list[KeptDecision]:
    """A node's records, as one chain or several lives of it."""
    records: list[KeptDecision] = []
    for length in lengths:
        link = FIRST_LINK
        for _ in range(length):
            number = len(records) + 1
            made = Decision(
                f"{node}-{number}", AgentId(node), kind, EpochMs(number), "Words.", "why", (), (), 0, "", "",
                ("van-1",),
                previous=link,
            )  # fmt: skip
            link = made.link()
            records.append(
                KeptDecision(msgspec.Raw(msgspec.json.encode(made)), AgentId(node), number, True, EpochMs(0))
            )
    return records


def head(records: Sequence[KeptDecision]) -> dict[str, Chain]:
    last = msgspec.json.decode(records[-1].decision, type=Decision)
    return {records[-1].node: Chain(records[-1].node, len(records), last.link())}


def judged(records: Sequence[KeptDecision], chains: dict[str, Chain]) -> ChainVerdict:
    (chain,) = verified([msgspec.json.encode(record) for record in records], chains).chains
    return chain


def forged(record: KeptDecision, **changes: object) -> KeptDecision:
    decision = msgspec.structs.replace(msgspec.json.decode(record.decision, type=Decision), **changes)
    return msgspec.structs.replace(record, decision=msgspec.Raw(msgspec.json.encode(decision)))


def test_untouched_chains_hold() -> None:
    hub, van = kept("hub"), kept("van-1", (3,))
    verdict = verified([msgspec.json.encode(record) for record in (*hub, *van)], head(hub) | head(van))
    assert verdict.holds
    assert [(chain.node, chain.holds) for chain in verdict.chains] == [("hub", 6), ("van-1", 3)]


def with_a_gap(hub_says: Sequence[tuple[str, tuple[str, ...]]]) -> ChainVerdict:
    """The verdict on a van's six records of which the third is missing, given what the hub's chain says."""
    van = kept("van-1")
    whole = head(van)["van-1"]
    del van[2]
    van = [msgspec.structs.replace(record, number=number) for number, record in enumerate(van, 1)]
    link, hub = FIRST_LINK, []
    for number, (kind, about) in enumerate(hub_says, 1):
        made = Decision(
            f"hub-{number}", AgentId("hub"), kind, EpochMs(1), "W.", "y", (), (), 0, "", "", about, previous=link
        )
        link = made.link()
        hub.append(KeptDecision(msgspec.Raw(msgspec.json.encode(made)), AgentId("hub"), number, True, EpochMs(0)))
    chains = {"van-1": Chain(AgentId("van-1"), 5, whole.link), "hub": Chain(AgentId("hub"), len(hub), link)}
    verdict = verified([msgspec.json.encode(record) for record in (*hub, *van)], chains)
    assert verdict.chains[0].wrong == ""
    return verdict.chains[1]


def test_a_gap_of_a_restored_hub_is_held_against_nobody_when_its_chain_names_it() -> None:
    gap, broken = ("gap_found", ("van-1",)), ("chain_broken", ("van-1", "van-1-4"))
    verdict = with_a_gap([gap, broken])
    assert (verdict.wrong, verdict.gaps, verdict.holds) == ("", 1, 5)
    assert with_a_gap([broken]).first_bad == "van-1-4"
    assert with_a_gap([gap]).first_bad == "van-1-4"
    assert with_a_gap([gap, ("chain_broken", ("van-1", "van-1-5"))]).first_bad == "van-1-4"
    assert with_a_gap([("gap_found", ("van-2",)), broken]).holds == 2


@given(st.integers(0, 5))
def test_a_changed_record_is_found(place: int) -> None:
    records = kept("hub")
    chains = head(records)
    records[place] = forged(records[place], sentence="Nothing happened.")
    assert judged(records, chains).wrong
    assert judged(records, chains).holds in (place + 1, 6)


@given(st.integers(0, 5))
def test_a_record_cut_out_or_cut_off_is_found(place: int) -> None:
    records = kept("hub")
    chains = head(records)
    del records[place]
    verdict = judged(records, chains)
    assert verdict.wrong
    assert verdict.holds == place


@given(st.integers(0, 5))
def test_something_added_to_a_record_is_found_although_its_words_are_the_same(place: int) -> None:
    records = kept("hub")
    chains = head(records)
    more = bytes(records[place].decision)[:-1] + b',"name":"Anna Virtanen"}'
    records[place] = msgspec.structs.replace(records[place], decision=msgspec.Raw(more))
    assert judged(records, chains).first_bad == f"hub-{place + 1}"


def test_a_whole_chain_rewritten_does_not_end_where_it_was_followed_to() -> None:
    records = kept("hub")
    assert "another than the one" in judged(kept("hub", kind="unserved"), head(records)).wrong


def test_a_node_whose_store_was_replaced_may_begin_anew_when_that_is_on_record() -> None:
    van = kept("van-1", (3, 2))
    replaced = kept("hub", (1,), kind="store_replaced")
    documents = [msgspec.json.encode(record) for record in (*van, *replaced)]
    assert verified(documents, head(van) | head(replaced)).holds
    alone = judged(van, head(van))
    assert "begins anew" in alone.wrong


def test_an_unreadable_record_is_a_bad_one_and_nothing_else_breaks() -> None:
    records = kept("hub")
    verdict = verified([b"\xff\x00", *(msgspec.json.encode(record) for record in records)], head(records))
    assert not verdict.holds
    assert [chain.holds for chain in verdict.chains] == [0, 6]


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_garbage_is_named_and_never_raises(garbage: list[bytes]) -> None:
    verdict = verified(garbage, {})
    assert verdict.holds == (not garbage)


def test_a_store_without_a_record_holds() -> None:
    assert verified([], {"hub": Chain(AgentId("hub"))}).holds
