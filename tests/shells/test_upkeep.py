"""Readings are kept in order once a day, by the days of the hub."""

from pathlib import Path

import numpy as np

from cloud_hub.settings import Privacy
from cloud_hub.storage import Kept
from cloud_hub.storage.embedded_telemetry import EmbeddedTelemetry
from cloud_hub.upkeep import DAY_MS, Upkeep, kept
from tests.shells.test_telemetry_conformance import MORNING_MS, VAN, segment


def test_once_a_day_what_is_too_old_goes_and_what_is_old_is_coarsened(tmp_path: Path) -> None:
    store = EmbeddedTelemetry(tmp_path / "telemetry.db")
    store.commit([segment(day + 1, MORNING_MS + day * DAY_MS, origin=(60.123456, 24.0)) for day in range(3)])
    now_ms = [MORNING_MS + 2 * DAY_MS + 60_000]
    privacy = Privacy(telemetry_days=2, tracks_days=1)
    upkeep = Upkeep(store, privacy, lambda: now_ms[0], is_real_time=False)
    assert upkeep.look() == {"erased": 1, "minutes": 0, "blurred": 1, "folded": 0}
    assert np.allclose(store.read(VAN, "lat", 0, 1 << 53).values[[0, 9]], [60.12, 60.123456], atol=1e-6)
    now_ms[0] += DAY_MS - 1
    assert upkeep.look() == {}
    now_ms[0] += 1
    assert upkeep.look() == {"erased": 1, "minutes": 0, "blurred": 1, "folded": 0}


def test_readings_become_columns_only_after_their_tracks_were_coarsened() -> None:
    assert kept(Privacy()) == Kept(30, 400, 0, 9)
    assert kept(Privacy(tracks_days=0)) == Kept(30, 400, 0, 7)
    assert kept(Privacy(tracks_days=20)).columns_after_days == 22
