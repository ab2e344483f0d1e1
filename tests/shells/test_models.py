"""Training: one graph that says what Python says, calibrated on rows it never saw, from files read with care."""

import csv
import json
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloud_hub.models.__main__ import app
from cloud_hub.models.calibrate import TooFewToCalibrate, conformal_offsets, covered, pinball
from cloud_hub.models.graph import GraphUnfaithful, check_fidelity, graph_of, graph_predict
from cloud_hub.models.nets import NetRecipe, Nets, fit_nets
from cloud_hub.models.train import Blend, Recipe, TooFewToTrain, TreeRecipe, fit_blend
from cloud_hub.models.trips import TRIP_COLUMNS, TripsUnreadable, city_of, read_trips, trip_rows
from cloud_hub.models.vans import DaysUnreadable, read_legs, shared_luck
from edge_agent.inference import Models
from shared.features import STOP_COLUMNS, StopSeen, stop_rows
from tests.needs import needs

CHICAGO = Path(__file__).parents[2].parent / "shared" / "data" / "eta" / "chicago_taxi_15k.csv"
SMALL = Recipe(
    columns=("plan_s", "x", "y"),
    tree_columns=("plan_s", "x", "y"),
    net_columns=("x", "y"),
    baseline="plan_s",
    trees=(TreeRecipe(leaves=6, least_in_leaf=20, most_rounds=60),),
    nets=(NetRecipe(hidden=(8, 4), passes=10),),
    net_seeds=(1, 2),
)


def durations(n, seed):
    """Rows whose durations grow with x and spread with y, about a planned time."""
    dice = np.random.default_rng(seed)
    rows = np.column_stack([dice.uniform(60, 600, n), dice.uniform(0, 1, n), dice.uniform(0, 1, n)]).astype(np.float32)
    luck = dice.normal(0, 1, n)
    return rows, rows[:, 0].astype(np.float64) * np.exp(0.5 * rows[:, 1] + (0.1 + 0.3 * rows[:, 2]) * luck)


@pytest.fixture(scope="module")
def blend():
    return fit_blend(*durations(1500, 1), SMALL).calibrated(*durations(500, 2))


def test_a_blend_learns_spread_and_middle(blend):
    rows = np.array([[100, 0.5, 0.1], [100, 0.5, 0.9], [200, 0.5, 0.9]], dtype=np.float32)
    narrow, wide, long = blend.predict(rows)
    assert wide[2] - wide[0] > 1.5 * (narrow[2] - narrow[0])
    assert long == pytest.approx(2 * wide, rel=0.15)
    assert narrow[1] == pytest.approx(100 * np.exp(0.25), rel=0.15)


def test_a_calibrated_window_covers_eight_in_ten_new_rows(blend):
    rows, actual_s = durations(4000, 3)
    assert covered(actual_s, blend.predict(rows)).mean() == pytest.approx(0.8, abs=0.05)


def test_the_graph_says_what_python_says_on_every_row(blend):
    graph = graph_of(blend)
    rows, _ = durations(3000, 4)
    assert check_fidelity(blend, graph, rows, unit_s=1.0) <= 1e-3


def test_the_graph_says_what_python_says_on_the_very_thresholds(blend):
    edges = sorted({node for booster in blend.forests[0] for node in thresholds(booster)})
    either_side = [[f(np.float32(e)) for f in (below, np.float32, above)] for e in edges]
    rows = np.array([[100.0, value, value] for triple in either_side for value in triple], dtype=np.float32)
    assert check_fidelity(blend, graph_of(blend), rows, unit_s=1.0) <= 1e-3


def below(value):
    return np.nextafter(value, np.float32(-np.inf))


def above(value):
    return np.nextafter(value, np.float32(np.inf))


def thresholds(booster):
    table = booster.dump_model()["tree_info"]
    found, waiting = [], [tree["tree_structure"] for tree in table]
    while waiting:
        node = waiting.pop()
        if "threshold" in node:
            found.append(node["threshold"])
            waiting += [node["left_child"], node["right_child"]]
    return found


def test_an_unfaithful_graph_is_not_shipped(blend):
    other = fit_blend(*durations(400, 9), SMALL)
    with pytest.raises(GraphUnfaithful, match="do not ship"):
        check_fidelity(blend, graph_of(other), durations(50, 5)[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 1e5, width=32), *[st.floats(-1e6, 1e6, width=32)] * 2), min_size=1, max_size=20))
def test_quantiles_never_cross_wherever_asked(blend_graph, rows):
    quantiles_s = graph_predict(blend_graph, np.array(rows, dtype=np.float32))
    assert (np.diff(quantiles_s, axis=1) >= 0).all()
    assert np.isfinite(quantiles_s).all()


@pytest.fixture(scope="module")
def blend_graph(blend):
    return graph_of(blend)


def test_trees_that_never_split_make_a_graph(blend):
    flat = Blend(
        SMALL,
        blend.base_log,
        (
            tuple(
                lightgbm.train({"verbose": -1, "num_leaves": 2, "min_data_in_leaf": 90}, lightgbm.Dataset(rows, y), 1)
                for rows, y in [(np.zeros((100, 3)), np.linspace(0, 1, 100))] * 3
            ),
        ),
        blend.nets,
        0.5,
    )
    assert check_fidelity(flat, graph_of(flat), durations(20, 5)[0]) <= 1e-3


def test_the_same_rows_give_the_same_file(blend):
    again = fit_blend(*durations(1500, 1), SMALL).calibrated(*durations(500, 2))
    assert graph_of(again) == graph_of(blend)


def test_few_rows_are_refused():
    with pytest.raises(TooFewToTrain, match="at least 200"):
        fit_blend(*durations(100, 1), SMALL)
    with pytest.raises(TooFewToCalibrate, match="at least 20"):
        conformal_offsets(np.zeros(10), np.zeros((10, 3)))


def test_nets_learn_the_quantiles_of_noise():
    dice = np.random.default_rng(3)
    rows = dice.normal(0, 1, (2000, 2)).astype(np.float32)
    nets: Nets = fit_nets(rows, rows[:, 0] + dice.normal(0, 1, 2000), NetRecipe(hidden=(12, 8), passes=20), (1, 2))
    low, middle, high = nets.predict(np.zeros((1, 2), dtype=np.float32))[0]
    assert [low, middle, high] == pytest.approx([-1.28, 0.0, 1.28], abs=0.3)


def test_pinball_of_a_sure_median_is_half_the_error():
    actual, quantiles = np.array([10.0, 20.0]), np.array([[9.0, 9.0, 9.0], [20.0, 20.0, 20.0]])
    assert pinball(actual, quantiles) == pytest.approx((0.1 + 0.5 + 0.9) / 3 / 2)


def test_conformal_offsets_make_each_quantile_hold_its_level():
    dice = np.random.default_rng(5)
    log_actual = dice.normal(0.3, 0.5, 999)
    offsets = conformal_offsets(log_actual, np.zeros((999, 3)))
    assert (log_actual <= offsets[0]).sum() == 100
    assert (log_actual <= offsets[1]).sum() == 500
    assert (log_actual <= offsets[2]).sum() == 900


def trips_file(folder, header, lines):
    path = folder / "trips.csv"
    path.write_text("\n".join([",".join(header), *(",".join(map(str, line)) for line in lines)]) + "\n")
    return path


PLAIN = ("started_at", "seconds", "metres", "from_lat", "from_lon", "to_lat", "to_lon")


def test_unusable_rows_are_left_out_and_counted(tmp_path):
    good = ("2024-05-01T08:30:00", 600, 2500, 60.17, 24.94, 60.19, 24.95)
    lines = [
        good,
        ("", *good[1:]),
        (good[0], 0, *good[2:]),
        (*good[:2], 0, *good[3:]),
        (*good[:3], "", *good[4:]),
        good,
    ]
    read = read_trips(trips_file(tmp_path, PLAIN, lines))
    assert len(read.trips) == 2
    assert list(read.left_out.values()) == [1, 1, 1, 1]


def test_trips_are_put_in_time_order(tmp_path):
    later = ("2024-05-02T08:30:00+03:00", 600, 2500, 60.17, 24.94, 60.19, 24.95)
    sooner = ("2024-05-01T23:30:00+03:00", 300, 2500, 60.17, 24.94, 60.19, 24.95)
    trips = read_trips(trips_file(tmp_path, PLAIN, [later, sooner])).trips
    assert trips.seconds.tolist() == [300, 600]
    assert trip_rows(trips, city_of(trips))[:, TRIP_COLUMNS.index("hour")].tolist() == [23.5, 8.5]


def test_a_file_without_distances_is_judged_by_its_ends(tmp_path):
    header = tuple(name for name in PLAIN if name != "metres")
    trips = read_trips(trips_file(tmp_path, header, [(1714550400, 600, 60.17, 24.94, 60.19, 24.95)])).trips
    rows = trip_rows(trips, city_of(trips))
    assert np.isfinite(rows).all()
    assert rows[0, TRIP_COLUMNS.index("line_km")] == pytest.approx(2.29, abs=0.02)


@pytest.mark.parametrize(
    "written",
    ["2024-05-01T08:30:00", "2024-05-01 08:30:00 UTC", "05/01/2024 08:30:00 AM", "1714552200", "1714552200000"],
)
def test_a_start_may_be_written_in_several_ways(tmp_path, written):
    trips = read_trips(trips_file(tmp_path, PLAIN, [(written, 600, 2500, 60.17, 24.94, 60.19, 24.95)])).trips
    assert trips.started_s.tolist() == [1714552200]


def test_a_local_hour_beside_a_universal_timestamp_is_believed(tmp_path):
    header = ("trip_start_timestamp", "trip_seconds", *PLAIN[3:], "trip_start_hour")
    trips = read_trips(trips_file(tmp_path, header, [(1714552200, 600, 60.17, 24.94, 60.19, 24.95, 11)])).trips
    assert trip_rows(trips, city_of(trips))[0, TRIP_COLUMNS.index("hour")] == 11.5


def test_nought_north_nought_east_is_no_end(tmp_path):
    lines = [(1714552200, 600, 2500, 0, 0, 60.19, 24.95), (1714552200, 600, 2500, 60.17, 24.94, 60.19, 24.95)]
    assert read_trips(trips_file(tmp_path, PLAIN, lines)).left_out["an end unknown"] == 1


def test_what_a_trip_cost_and_took_is_not_among_what_is_seen():
    assert not [
        name for name in TRIP_COLUMNS if any(word in name for word in ("fare", "tip", "toll", "total", "second"))
    ]


def test_a_file_of_other_columns_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(TripsUnreadable, match=r"lacks from_lat or pickup_latitude.*; to_lon or"):
        read_trips(trips_file(tmp_path, ("started_at", "seconds", "fare"), [(1, 2, 3)]))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"trip_seconds\n", b"a,b\n1,2\n", b"\x00\x01\x02" * 50])
def test_a_file_that_is_no_table_of_trips_is_refused(tmp_path, content):
    path = tmp_path / "trips.csv"
    path.write_bytes(content)
    with pytest.raises(TripsUnreadable):
        read_trips(path)


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.text(alphabet="0123456789.-eEnaif:T ", max_size=12), min_size=7, max_size=7), min_size=1, max_size=8
    )
)
def test_any_cells_are_read_or_counted_out(tmp_path_factory, lines):
    read = read_trips(trips_file(tmp_path_factory.mktemp("garbage"), PLAIN, lines))
    assert len(read.trips) + sum(read.left_out.values()) == read.rows


def test_chicago_has_the_usable_trips_its_columns_say():
    needs(CHICAGO.is_file(), "the Chicago trips in the data folder beside the project")
    read = read_trips(CHICAGO)
    assert (read.rows, len(read.trips)) == (15_002, 10_508)
    assert np.isfinite(trip_rows(read.trips, city_of(read.trips))).all()


def days_folder(folder, days=range(400), seed=11):
    """A small synthetic simulator: two legs and two dwells a day with shared luck, in the simulator's columns."""
    dice = np.random.default_rng(seed)
    legs = [("day_seed", "van", "departed_ms", "map_s", "metres", "hour", "weekday", "pace", "is_stem", "driven_s")]
    stops = [
        (
            *("day_seed", "van", "arrived_ms", "service", "parcels", "litres", "floor", "has_lift", "is_business"),
            *("same_door_index", "hour", "weekday", "dwell_pace", "planned_service_s", "dwell_s", "outcome"),
        )
    ]
    for day in days:
        slow = dice.normal(0, 0.3)
        for turn in range(3):
            map_s = dice.uniform(40, 400)
            driven_s = map_s * np.exp(0.2 + slow + dice.normal(0, 0.1))
            legs.append((day, "van-1", turn * 600_000, map_s, 8 * map_s, 9 + turn, day % 7, 1.0, 0, driven_s))
            dwell_s = 150 * np.exp(dice.normal(0, 0.4))
            seen = ("hand_over", 1, 4, 2, 0, 0, 0, 9 + turn, day % 7, 1.0, 150)
            stops.append((day, "van-1", turn * 600_000 + 300_000, *seen, dwell_s, "delivered_to_person"))
    for name, rows in (("legs.csv", legs), ("stops.csv", stops)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def test_the_command_trains_models_that_the_agent_believes(tmp_path):
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["train", "--days", str(days_folder(tmp_path)), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "Days 0:240 trained, 240:300 calibrated, 300:400 tested" in " ".join(ran.output.split())
    models = Models(out)
    low, middle, high = models.predict_stops(stop_rows([StopSeen(150.0, litres=4.0, floor=2)]))[0]
    assert 60 < low < middle < high < 400
    assert models.correlation.legs > 0.5
    assert models.correlation.dwells < 0.3
    assert json.loads((out / "card.json").read_bytes())["stops"]["columns"] == list(STOP_COLUMNS)


def test_days_that_were_not_driven_are_named(tmp_path):
    legs = read_legs(days_folder(tmp_path, days=range(5)) / "legs.csv")
    with pytest.raises(DaysUnreadable, match="hold 0:5"):
        legs.of(range(300, 400))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("driven_s", "drove_s", "lacks driven_s"),
        (",9,", ",99,", "hour_of_day is 99"),
        ("0,van-1", "zero,van-1", "day_seed"),
    ],
)
def test_a_garbled_table_of_days_is_refused_by_name(tmp_path, old, new, says):
    path = days_folder(tmp_path, days=range(3)) / "legs.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DaysUnreadable, match=says):
        read_legs(path)


def test_luck_that_a_whole_day_shares_is_found():
    dice = np.random.default_rng(2)
    days = {
        (day, "van-1", 0.0): np.sqrt(0.4) * dice.normal() + np.sqrt(0.6) * dice.normal(0, 1, 20) for day in range(400)
    }
    alone = {whose: dice.normal(0, 1, 20) for whose in days}
    found = shared_luck(days, alone)
    assert found.legs == pytest.approx(0.4, abs=0.06)
    assert found.dwells == pytest.approx(0.0, abs=0.02)
    assert found.between == pytest.approx(0.0, abs=0.05)


def test_the_models_command_asks_for_what_it_needs():
    ran = CliRunner().invoke(app, ["train", "--days", str(Path(sys.prefix) / "nowhere"), "--out", "x"])
    assert ran.exit_code == 2
