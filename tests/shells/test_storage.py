"""What is the embedded store's own: its files hold nothing that was erased; and the readings, taken once.

What every store promises is in test_storage_conformance and test_telemetry_conformance.
"""

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.storage import Segment, StoreUnknown, StoreUnreadable, Taken, followed, open_stores
from cloud_hub.storage.embedded import EmbeddedStore, EmbeddedTelemetry
from cloud_hub.telemetry import DAY_MS, FastLane
from cloud_hub.traces import SWEEP, Traces
from cloud_hub.web.problems import Problem
from cloud_hub.web.proofs import assembled
from shared import wire
from shared.messages import ObjectPart
from shared.quantities import EpochMs, Position
from shared.steps import Row
from shared.work import AgentId, StopId
from tests.shells.test_agent_forgets import rows_that_move

VAN = AgentId("van-1")


def test_an_unknown_kind_of_store_is_refused_with_the_reason(tmp_path: Path) -> None:
    for url in ("mysql://db/hub", "hub.db", "sqlite://hub.db", "postgresql://"):
        with pytest.raises(StoreUnknown, match="expected sqlite:///PATH or postgresql://"):
            open_stores(url)


def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"this is a letter, not a database, and it is long enough to be read" * 20)
    with pytest.raises(StoreUnreadable, match="cannot be used"):
        EmbeddedStore(tmp_path / "hub.db")


def segment(seq: int, boot: str = "b", first_ms: int = 0) -> Segment:
    at_ms = np.arange(first_ms, first_ms + 10, dtype=np.int64)
    column = np.arange(10, dtype=np.float32)
    column[3] = np.nan
    batch = wire.TelemetryBatch(VAN, boot, seq, (60.0, 24.0), ("speed_mps", "lat"), at_ms, (column, column), thinned=2)
    return Segment(VAN, boot, seq, EpochMs(first_ms), EpochMs(first_ms + 9), 10, 2, wire.encode_telemetry(batch))


def test_a_batch_is_stored_once_however_often_it_comes(tmp_path: Path) -> None:
    store = EmbeddedTelemetry(tmp_path / "telemetry.db")
    store.commit([segment(1), segment(3, first_ms=20), segment(1)])
    store.commit([segment(3, first_ms=20)])
    assert store.taken(VAN, "b") == Taken(1, (3,))
    assert store.taken(VAN, "another life") == Taken(0, ())
    assert store.totals() == {"messages": 2, "samples": 20, "thinned": 4}


def test_readings_older_than_they_may_be_are_erased_in_slices_and_never_taken_again(tmp_path: Path) -> None:
    store = EmbeddedTelemetry(tmp_path / "telemetry.db")
    other = segment(1, first_ms=30)._replace(sender=AgentId("van-2"))
    store.commit([segment(1), segment(2, first_ms=10), segment(3, first_ms=20), segment(4, first_ms=100), other])
    assert [store.forget(100, 3), store.forget(100, 3), store.forget(100, 3)] == [3, 1, 0]
    store.commit([segment(1)])
    assert list(store.read(VAN, "speed_mps", 0, 1000).at_ms[:1]) == [100]
    assert store.latest(AgentId("van-2")) == {}
    assert (store.taken(VAN, "b"), store.totals()["messages"]) == (Taken(4, ()), 5)
    assert segment(1).payload not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_the_fast_lane_erases_what_is_too_old_when_it_starts_and_a_day_later(tmp_path: Path) -> None:
    store = EmbeddedTelemetry(tmp_path / "telemetry.db")
    store.commit([segment(1), segment(2, first_ms=DAY_MS)])
    now_ms = [DAY_MS + 20]
    lane = FastLane("mqtt://127.0.0.1:1", "main", store, lambda _: True, 1, lambda: now_ms[0])
    while lane._sweep():
        pass
    assert lane.counts["erased"] == 1
    now_ms[0] = 2 * DAY_MS + 19
    assert not lane._sweep()
    now_ms[0] = 2 * DAY_MS + 20
    assert lane._sweep()
    assert lane.counts["erased"] == 2


def test_a_channel_is_read_between_two_instants_without_its_gaps(tmp_path: Path) -> None:
    store = EmbeddedTelemetry(tmp_path / "telemetry.db")
    store.commit([segment(2, first_ms=10), segment(1)])
    found = store.read(VAN, "speed_mps", 2, 12)
    assert found.at_ms.tolist() == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert found.values.tolist() == [2, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert store.read(VAN, "temperature_c", 0, 100).at_ms.tolist() == []
    assert store.read(VAN, "lat", 0, 0).values.tolist() == [60.0]
    assert store.latest(VAN) == {"speed_mps": (19, 9.0), "lat": (19, 69.0)}


@settings(max_examples=200)
@given(st.lists(st.integers(1, 12)))
def test_the_unbroken_run_and_what_lies_beyond_are_all_that_was_taken(seqs: list[int]) -> None:
    taken = followed(seqs)
    assert set(range(1, taken.upto + 1)) | set(taken.beyond) == set(seqs)
    assert taken.upto + 1 not in seqs


def test_what_is_swept_is_in_no_byte_of_the_files_and_all_else_stays(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "hub.db")
    piece = b"p" * 40_000
    mine = ObjectPart("a" * 64, "photo", StopId("stop-1"), "image/png", 0, 1, b"Anna" + piece)
    other = ObjectPart("b" * 64, "photo", StopId("stop-10"), "image/png", 0, 1, b"Bertta" + piece)
    store.commit(
        [
            Row("objects", f"{'a' * 64}/s1/0000", msgspec.json.encode(mine)),
            Row("objects", f"{'b' * 64}/s2/0000", msgspec.json.encode(other)),
            Row("receipts", "1", b'{"order_id":"order-1","answer":"250 anna@example.fi"}'),
            Row("receipts", "2", b'{"order_id":"order-10","answer":"250 bertta@example.fi"}'),
            Row("corrections", "hidden lane", b'{"position":[60.1,24.9],"by":"bert"}'),
            Row("customers", "anna", b'{"name":"Anna Virtanen"}'),
        ]
    )
    traces = Traces(frozenset({"order-1"}), frozenset({"stop-1"}), (Position(60.1, 24.9),))
    store.commit([Row("customers", "anna", None), Row(SWEEP, "", msgspec.json.encode(traces))])
    assert [key for key, _ in store.documents("objects")] == [f"{'b' * 64}/s2/0000"]
    assert [key for key, _ in store.documents("receipts")] == ["2"]
    assert store.documents("corrections") == []
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    picture = base64.b64encode(b"Anna" + piece)[:200]
    assert [word for word in (b"Anna Virtanen", b"anna@example", b"hidden lane", picture) if word in content] == []
    assert b"bertta@example" in content


def test_erased_pages_a_killed_process_left_in_the_log_are_gone_at_the_next_start(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from cloud_hub.storage.embedded import EmbeddedStore\n"
        "from shared.steps import Row\n"
        f"store = EmbeddedStore(Path({str(tmp_path / 'hub.db')!r}))\n"
        "store.commit([Row('customers', 'a', b'Anna Virtanen')])\n"
        "store.commit([Row('customers', 'a', None)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert b"Anna Virtanen" in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    EmbeddedStore(tmp_path / "hub.db").close()
    assert b"Anna Virtanen" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_an_object_is_given_out_whole_with_its_own_digest_and_as_a_picture_alone(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "hub.db")

    def kept(content: bytes, media_type: str = "image/png", digest: str = "", stop: str = "s") -> str:
        digest = digest or hashlib.sha256(content).hexdigest()
        pieces = [content[k : k + 4] for k in range(0, len(content), 4)]
        for number, piece in enumerate(pieces):
            part = ObjectPart(digest, "photo", StopId(stop), media_type, number, len(pieces), piece)
            store.commit([Row("objects", f"{digest}/{stop}/{number:04d}", msgspec.json.encode(part))])
        return digest

    assert assembled(store, kept(b"a picture of a door")) == ("image/png", b"a picture of a door")
    for digest, status in (
        (kept(b"another picture", digest="0" * 64), 404),
        (kept(b"<script>alert(1)</script>", "text/html"), 415),
        ("1" * 64, 404),
    ):
        with pytest.raises(Problem) as refused:
            assembled(store, digest)
        assert refused.value.status == status
    torn = kept(b"a third picture, torn")
    store.commit([Row("objects", f"{torn}/s/0002", None)])
    with pytest.raises(Problem, match="not all of it"):
        assembled(store, torn)
    kept(b"a third picture, torn", stop="s2")
    assert assembled(store, torn)[1] == b"a third picture, torn"


def test_no_byte_of_a_swept_store_is_left_in_a_page_whose_rows_have_moved(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "hub.db")
    *former, last = rows_that_move("orders")
    for rows in former:
        store.commit(rows)
    store.commit([*last, Row(SWEEP, "", msgspec.json.encode(Traces()))])
    assert [path.name for path in tmp_path.iterdir() if b"secret" in path.read_bytes()] == []
