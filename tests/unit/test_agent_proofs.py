"""Signatures and photographs: kept on board, named by outcomes, sent in pieces behind the events."""

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.dialogue import ObjectSaid, OutcomeSaid, OverrideSaid, ScanSaid
from edge_agent.memory import Shipping
from edge_agent.proofs import KEPT_FOR_SIGNATURES, MOST_BYTES, PIECE_BYTES, Proofs
from edge_agent.sensing import Scan
from shared import wire
from shared.messages import Ack, Numbered, ObjectPart, PersonForgotten, Visited
from shared.quantities import EpochMs
from shared.steps import Row
from shared.work import AgentId, Outcome, StopId
from tests.agents import Rig, plan_of, row_of_houses, stop

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"


def signature(stop_id: str = "s1", content: bytes = PNG + b"mine") -> ObjectSaid:
    return ObjectSaid("signature", stop_id, "image/png", content)


def photo(stop_id: str = "s1", content: bytes = JPEG + b"porch") -> ObjectSaid:
    return ObjectSaid("photo", stop_id, "image/jpeg", content)


def signing_rig() -> Rig:
    rig = Rig()
    rig.push(plan_of([stop("s1", 400, 0, service="signature"), *row_of_houses(3)[1:]]))
    rig.begin()
    rig.heads_for("s1")
    rig.step(Scan(EpochMs(rig.now_ms), "WW:s1/1"))
    return rig


def signed(digest: str) -> OutcomeSaid:
    return OutcomeSaid("s1", Outcome.DELIVERED_TO_PERSON, signature=digest)


def pieces(rig: Rig) -> list[ObjectPart]:
    sent = [wire.decode_numbered(each.payload) for each in rig.envelopes if each.topic.endswith("/up/objects")]
    parts = {each.seq: each.message for each in sent}
    return [part for _, part in sorted(parts.items()) if isinstance(part, ObjectPart)]


def ack(rig: Rig, stream: str, upto: int) -> None:
    rig.step(Ack(AgentId("van-1"), "b1", stream, upto))


def test_a_signature_is_kept_and_answered_with_its_digest() -> None:
    rig = signing_rig()
    reply = rig.driver(signature())
    assert reply.status == 200
    assert reply.found == {"digest": sha256(PNG + b"mine").hexdigest()}
    assert rig.restarted().core.durable()["objects"] == rig.core.durable()["objects"]


def test_an_outcome_that_names_what_is_not_on_board_is_refused() -> None:
    rig = signing_rig()
    reply = rig.driver(signed("0" * 64))
    assert (reply.status, reply.title) == (422, "Object unknown")
    assert rig.events(Visited) == []


def test_an_outcome_may_not_name_what_was_signed_at_another_stop() -> None:
    rig = signing_rig()
    reply = rig.driver(signature("s2"))
    assert rig.driver(signed(str(reply.found["digest"]))).status == 422


def test_a_signature_that_is_demanded_and_kept_makes_the_visit() -> None:
    rig = signing_rig()
    digest = str(rig.driver(signature()).found["digest"])
    assert rig.driver(signed(digest)).status == 200
    assert rig.events(Visited)[0].visit.proof.signature == digest


def test_the_same_picture_twice_is_kept_once() -> None:
    rig = signing_rig()
    rig.driver(photo())
    rig.driver(photo())
    assert len(rig.disk["objects"]) == 1


def test_what_does_not_begin_as_its_kind_does_is_refused() -> None:
    reply = signing_rig().driver(ObjectSaid("photo", "s1", "image/jpeg", PNG + b"?"))
    assert (reply.status, reply.title) == (422, "ObjectGarbled")


def test_nothing_is_kept_for_a_stop_that_is_unknown_or_done() -> None:
    rig = signing_rig()
    assert rig.driver(photo("nowhere")).status == 404
    rig.visits("s2")
    assert rig.driver(photo("s2")).status == 409


def test_pictures_travel_behind_their_visit_and_leave_the_board_when_they_are_acknowledged() -> None:
    rig = signing_rig()
    rig.link_up()
    content = PNG + bytes(2 * PIECE_BYTES)
    digest = str(rig.driver(signature(content=content)).found["digest"])
    rig.driver(signed(digest))
    assert pieces(rig) == []
    ack(rig, "events", 1_000)
    assert [(part.part, part.parts) for part in pieces(rig)] == [(0, 3), (1, 3), (2, 3)]
    assert b"".join(part.piece for part in pieces(rig)) == content
    assert {(part.digest, part.stop_id, part.kind) for part in pieces(rig)} == {(digest, "s1", "signature")}
    ack(rig, "objects", 3)
    assert rig.disk["objects"] == {}
    assert rig.disk["outbox"] == {}


def test_pieces_leave_a_few_at_a_time() -> None:
    rig = signing_rig()
    rig.link_up()
    digest = str(rig.driver(signature(content=PNG + bytes(6 * PIECE_BYTES))).found["digest"])
    rig.driver(signed(digest))
    ack(rig, "events", 1_000)
    assert len(pieces(rig)) == 4
    ack(rig, "objects", 1)
    assert len(pieces(rig)) == 5


def test_a_picture_half_sent_goes_on_after_a_restart() -> None:
    rig = signing_rig()
    rig.link_up()
    content = PNG + bytes(range(256)) * (6 * PIECE_BYTES // 256)
    rig.driver(signed(str(rig.driver(signature(content=content)).found["digest"])))
    ack(rig, "events", 1_000)
    again = rig.restarted()
    again.link_up()
    ack(again, "events", 1_000)
    ack(again, "objects", 4)
    ack(again, "objects", 7)
    assert b"".join(part.piece for part in [*pieces(rig)[:4], *pieces(again)[-3:]]) == content
    assert again.disk["objects"] == {}


def test_no_message_of_a_picture_exceeds_the_wire() -> None:
    part = ObjectPart("0" * 64, "photo", StopId("s1"), "image/jpeg", 0, 1, bytes(PIECE_BYTES))
    assert len(wire.encode(_numbered(part))) < 100_000 < wire.MOST_BYTES


def _numbered(part: ObjectPart) -> Numbered:
    return Numbered(AgentId("van-1"), "b1", "objects", 1, EpochMs(0), 1, part)


def test_what_no_visit_named_is_thrown_away() -> None:
    rig = signing_rig()
    rig.driver(photo())
    digest = str(rig.driver(signature()).found["digest"])
    rig.driver(signed(digest))
    assert [key.split("/")[1] for key in rig.disk["objects"]] == ["signature"]


def test_another_day_throws_away_what_was_never_named() -> None:
    rig = signing_rig()
    rig.driver(photo())
    rig.push(plan_of(row_of_houses(3), version=2, day="2026-11-24"))
    assert rig.disk["objects"] == {}


def test_a_full_board_refuses_photographs_first_and_says_what_to_do() -> None:
    proofs = Proofs({})
    room = MOST_BYTES - KEPT_FOR_SIGNATURES
    count = room // 400_000
    replies = [proofs.keep(photo(content=JPEG + b"%03d" % k + bytes(399_994)))[0].status for k in range(count + 1)]
    assert replies == [200] * count + [507]
    assert proofs.keep(signature())[0].status == 200
    refusal, rows = proofs.keep(photo(content=JPEG + bytes(399_997)))
    assert "go on without this photo" in refusal.detail
    assert rows == []


def test_a_scan_of_the_page_is_answered_with_parcel_and_stop() -> None:
    rig = signing_rig()
    reply = rig.driver(ScanSaid("WW:s2/1"))
    assert reply.found == {"parcel": "WW:s2/1", "stop_id": "s2"}
    assert "WW:s2/1" in rig.core._round.day.scans


def test_a_scan_that_is_no_label_is_refused_by_name() -> None:
    reply = signing_rig().driver(ScanSaid("\x00\x01"))
    assert (reply.status, reply.title) == (422, "LabelGarbled")


@given(st.text(max_size=300))
def test_whatever_is_scanned_gets_an_answer(text: str) -> None:
    assert SCANNED.driver(ScanSaid(text)).status in (200, 422)


SCANNED = signing_rig()

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3 * PIECE_BYTES)),
        st.tuples(st.just("visit"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3 * PIECE_BYTES)),
        st.tuples(st.just("next"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, 3), st.just(0), st.just(0)),
        st.tuples(st.just("day"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_after_anything_the_pictures_on_disk_are_those_in_memory(steps: list[tuple[str, int, int, int]]) -> None:
    proofs, disk = Proofs({}), dict[str, bytes]()
    shipping = Shipping()
    for what, place, which, size in steps:
        said = photo(f"s{place}", JPEG + bytes([which]) * size)
        commit(disk, act(proofs, what, said))
        written = next(iter(proofs.parts().values()))
        assert isinstance(written, Shipping)
        shipping = written
        again = Proofs({"objects": disk, "agent": {"shipping": _json(shipping)}})
        assert again.kept == proofs.kept
        assert again.bytes_on_board == proofs.bytes_on_board
        assert set(shipping.waiting) <= set(proofs.kept)


def act(proofs: Proofs, what: str, said: ObjectSaid) -> Sequence[Row]:
    if what == "keep":
        return proofs.keep(said)[1]
    if what == "visit":
        return proofs.visited(OutcomeSaid(said.stop_id, Outcome.DELIVERED_TO_SAFE_PLACE, photo=said.digest))
    if what == "next":
        found = proofs.next_part()
        return [] if found is None else found[1]
    return proofs.forget({StopId(said.stop_id)}) if what == "forget" else proofs.begin_day()


def commit(disk: dict[str, bytes], rows: Sequence[Row]) -> None:
    for row in rows:
        if row.value is None:
            disk.pop(row.key, None)
        else:
            disk[row.key] = row.value


def _json(shipping: Shipping) -> bytes:
    return msgspec.json.encode(shipping)


def test_a_picture_on_board_is_none_of_another_kind() -> None:
    assert SCANNED.driver(ObjectSaid("photo", "s3", "image/jpeg", JPEG)).status == 200
    assert SCANNED.driver(ObjectSaid("photo", "s3", "image/png", JPEG)).status == 422


@given(
    st.builds(
        ObjectSaid,
        st.sampled_from(["signature", "photo"]),
        st.sampled_from(["s1", "s2", "s3", "nowhere", "", "§/../s1"]),
        st.sampled_from(["image/png", "image/jpeg"]),
        st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: JPEG + tail)),
    )
)
def test_whatever_is_handed_in_gets_an_answer_and_only_pictures_are_kept(said: ObjectSaid) -> None:
    reply = SCANNED.driver(said)
    is_picture = said.content.startswith(JPEG if said.media_type == "image/jpeg" else PNG)
    assert reply.status == (404 if said.stop_id not in ("s1", "s2", "s3") else 200 if is_picture else 422)
    assert len(SCANNED.disk.get("objects", {})) == len(SCANNED.core._round.proofs.kept)


@given(st.builds(OverrideSaid, st.text(max_size=200), st.sampled_from(["road", "no_answer"]), st.text(max_size=500)))
def test_an_explanation_nobody_asked_for_is_refused(said: OverrideSaid) -> None:
    assert SCANNED.driver(said).status == 409


@given(st.lists(st.text(max_size=40), max_size=5))
def test_forgetting_whoever_changes_nothing_for_others(names: list[str]) -> None:
    before = SCANNED.core.durable()["parts"]
    SCANNED.hub(PersonForgotten(tuple(StopId(name) for name in names if name not in ("s1", "s2", "s3"))))
    assert SCANNED.core.durable()["parts"] == before
