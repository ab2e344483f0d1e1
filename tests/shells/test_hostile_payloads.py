"""Hostile messages at every door a broker leads to: a few examples of each claim here, thousands by `make fuzz`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_hub.storage import TelemetryStore, open_stores, open_telemetry
from cloud_hub.telemetry import LIVES_OF_ONE, MOST_CHANNELS, FastLane
from cloud_hub.telemetry import _Door as TelemetryDoor
from shared import topics, wire
from shared.mqtt import Heard
from shared.steps import Row
from shared.work import AgentId
from tests.fuzz.doors import CLAIMS, Siege, held, honest_batch, the_fast_lane_outlives
from tests.fuzz.payloads import AT_MS, OWN, Spoilt, batch_bytes, batches, said_by

DAY_MS = 86_400_000


@pytest.mark.parametrize(("claim", "examples"), CLAIMS, ids=lambda one: getattr(one, "__name__", ""))
def test_hostile_words_are_taken_buried_or_refused_by_name(
    claim: Callable[[object], object], examples: st.SearchStrategy[object]
) -> None:
    held(claim, examples, 150, is_the_same_each_time=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TelemetryStore]:
    """A store of readings of each kind."""
    file = f"sqlite:///{tmp_path / 'hub.db'}"
    url = file if request.param == "sqlite" else request.getfixturevalue("fresh_store")()
    opened = open_telemetry(url, 10.0)
    yield opened
    opened.close()


@settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip
@given(st.lists(batches(), min_size=1, max_size=4))
def _stored_and_read(store: TelemetryStore, counted: list[int], payloads: Sequence[bytes]) -> None:
    counted[0] += 1
    life = f"life-{counted[0]}"
    segments, letters = the_fast_lane_outlives(payloads)
    segments = [one._replace(boot=life) for one in segments]
    store.bury([one._replace(boot=life) for one in letters])
    assert all(store.commit(segments)) or len(letters)
    found = store.latest(OWN)
    for one in segments:
        for channel in wire.decode_telemetry(one.payload).channels:
            store.read(one.sender, channel, 0, 1 << 53)
            store.summed(one.sender, channel, 0, 1 << 53, "1h")
            msgspec.json.encode({channel: found.get(channel, (0, 0.0))[1]})
    assert store.read(AgentId("van-s"), "speed_mps", AT_MS, AT_MS + 2).values.tolist()[:3] == [1.0, 1.0, 1.0]
    assert store.dead_letters(5) is not None


def test_whatever_the_fast_lane_takes_can_be_stored_and_read_back(store: TelemetryStore) -> None:
    _stored_and_read(store, [0])


def spoken(**changes: object) -> tuple[int, int, dict[str, int]]:
    """What becomes of a batch with these changes to its heading: stored, buried, refused."""
    at_ms = np.full(1, changes.pop("at_ms", AT_MS), "<i8")
    channels = changes.setdefault("channels", ["speed_mps"])
    assert isinstance(channels, list)
    heading = {"sender": OWN, "boot": "b", "seq": 1, "origin": [60.0, 24.0], "samples": 1} | changes
    door = TelemetryDoor("main", lambda _: True)
    payload = batch_bytes(heading, at_ms, [np.ones(1, "<f4") for _ in channels])
    segments, letters = door.read_all([Heard(topics.up("main", OWN, "telemetry"), payload, None)], AT_MS)
    return len(segments), len(letters), dict(door.refused)


def test_readings_dated_absurdly_make_no_tables_and_are_kept_as_letters() -> None:
    assert spoken() == (1, 0, {})
    assert spoken(at_ms=AT_MS - 300 * DAY_MS) == (1, 0, {})
    for at_ms in (0, 1, AT_MS - 401 * DAY_MS, AT_MS + 401 * DAY_MS, (1 << 53) - 1, -1):
        assert spoken(at_ms=at_ms) == (0, 1, {"TelemetryGarbled": 1})


def test_a_batch_of_sixty_thousand_channels_makes_no_sixty_thousand_names() -> None:
    assert spoken(channels=[f"c{k}" for k in range(MOST_CHANNELS)]) == (1, 0, {})
    assert spoken(channels=[f"c{k}" for k in range(60_000)]) == (0, 1, {"TelemetryGarbled": 1})


def test_an_agent_of_many_lives_makes_the_lane_remember_no_more_of_it(tmp_path: Path) -> None:
    opened = open_telemetry(f"sqlite:///{tmp_path / 'hub.db'}", 10.0)
    lane = FastLane("mqtt://127.0.0.1:1", "main", opened, lambda _: True)
    lane._run(AgentId("van-s"), "its own").take([1, 2])
    for life in range(1_000):
        lane._run(OWN, f"life-{life}").take(range(2, 100))
    assert len(lane._runs[OWN]) == LIVES_OF_ONE
    assert lane._run(AgentId("van-s"), "its own").take([3]) == 3
    opened.close()


def test_a_batch_in_anothers_name_is_refused_whoever_is_known() -> None:
    door = TelemetryDoor("main", lambda _: True)
    heard = [Heard(topics.up("main", OWN, "telemetry"), honest_batch(agent=AgentId("van-s")), None)]
    assert door.read_all(heard, AT_MS) == ([], [])
    assert door.refused == {"SenderWrong": 1}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_whatever_the_hub_keeps_of_it_can_be_stored_and_read_back(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'hub.db'}" if kind == "sqlite" else request.getfixturevalue("fresh_store")()
    store, telemetry = open_stores(url, 10.0)
    assert store.act("main", "the test")
    kept: dict[tuple[str, str], bytes] = {}

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(said_by(), min_size=1, max_size=6))
    def stored(said: list[Spoilt]) -> None:
        hub = Siege()
        for one in said:
            hub.hear(one)
        rows = [Row(room, key, value) for room, docs in hub.rooms.items() for key, value in docs.items()]
        rows = [row for row in rows if row.room != "decisions" or (row.room, row.key) not in kept]
        store.commit(rows)
        kept.update({(row.room, row.key): row.value or b"" for row in rows})

    stored()
    found = {(row.room, row.key): row.value for row in store.dump()}
    assert {room for room, _ in found} >= {"dead_letters", "dead_payloads", "taken", "decisions"}
    assert found == kept
    store.close()
    telemetry.close()
