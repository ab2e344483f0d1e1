"""The models on board: the shipped ones answer sensibly, and anything else is refused by name."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.inference import TRAINED_FOLDER, ModelGarbled, ModelMissing, Models, WrongColumns, shipped_models
from shared.features import LEG_COLUMNS, STOP_COLUMNS, LegSeen, StopSeen, leg_rows, stop_rows

LEG = LegSeen(map_s=120.0, metres=700.0, hour_of_day=9.5, weekday=2)
STOP = StopSeen(planned_service_s=180.0)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TRAINED_FOLDER, tmp_path / "trained")


def change(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def test_the_shipped_models_answer_in_plausible_seconds():
    models = shipped_models()
    low, middle, high = models.predict_legs(leg_rows([LEG]))[0]
    assert 40 < low < middle < high < 900
    low, middle, high = models.predict_stops(stop_rows([STOP]))[0]
    assert 40 < low < middle < high < 900


def test_the_shipped_models_are_named_by_their_content():
    models = shipped_models()
    assert models.name == f"legs-{models.card.legs.sha256[:8]} stops-{models.card.stops.sha256[:8]}"


def test_the_shipped_card_keeps_training_and_test_days_apart():
    card = shipped_models().card
    train, calibrate, test = (
        range(*map(int, seeds.split(":"))) for seeds in (card.train_seeds, card.calibrate_seeds, card.test_seeds)
    )
    assert not set(train) & set(calibrate)
    assert not (set(train) | set(calibrate)) & set(test)
    assert 75 < card.legs.figures.coverage_percent < 85
    assert 75 < card.stops.figures.coverage_percent < 85


def test_the_shipped_models_beat_the_plan():
    card = shipped_models().card
    assert card.legs.figures.pinball_s < card.legs.figures.pinball_plan_s
    assert card.stops.figures.pinball_s < card.stops.figures.pinball_plan_s


def test_a_slow_day_makes_legs_longer():
    slow = LegSeen(map_s=120.0, metres=700.0, hour_of_day=9.5, weekday=2, pace=1.8)
    usual, slower = shipped_models().predict_legs(leg_rows([LEG, slow]))
    assert slower[1] > usual[1]


@settings(max_examples=100)
@given(
    st.floats(0, 1e7),
    st.floats(0, 1e7),
    st.floats(0, 24),
    st.integers(0, 6),
    st.floats(0.01, 100),
    st.booleans(),
)
def test_any_leg_gets_finite_quantiles_in_order(map_s, metres, hour, weekday, pace, is_stem):
    rows = leg_rows([LegSeen(map_s, metres, hour, weekday, pace, is_stem)])
    low, middle, high = shipped_models().predict_legs(rows)[0]
    assert 0 < low <= middle <= high < np.inf


def test_a_batch_answers_as_its_rows_do_alone():
    models = shipped_models()
    rows = stop_rows([StopSeen(60.0 + 30 * turn, parcels=turn, floor=turn % 5) for turn in range(40)])
    alone = np.concatenate([models.predict_stops(rows[turn : turn + 1]) for turn in range(40)])
    assert models.predict_stops(rows) == pytest.approx(alone, rel=1e-5)


def test_no_rows_get_no_answers():
    assert shipped_models().predict_legs(leg_rows([])).shape == (0, 3)


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((2, len(LEG_COLUMNS) + 1), dtype=np.float32),
        np.zeros((2, len(LEG_COLUMNS)), dtype=np.float64),
        np.zeros(len(LEG_COLUMNS), dtype=np.float32),
        np.full((1, len(LEG_COLUMNS)), np.nan, dtype=np.float32),
    ],
)
def test_rows_of_other_columns_are_refused(rows):
    with pytest.raises(WrongColumns, match="expected"):
        shipped_models().predict_legs(rows)


def test_a_missing_model_is_named(folder):
    (folder / "stops.onnx").unlink()
    with pytest.raises(ModelMissing, match=r"stops\.onnx cannot be read"):
        Models(folder)


def test_a_folder_without_a_card_is_named(tmp_path):
    with pytest.raises(ModelMissing, match=r"card\.json"):
        Models(tmp_path)


def test_a_changed_model_is_refused_by_its_hash(folder):
    change(folder / "legs.onnx", b"waywarden", b"wayleaver")
    with pytest.raises(ModelGarbled, match="SHA-256"):
        Models(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2", b"\xff\xfe", b'{"legs": 7}'])
def test_a_garbled_card_is_refused(folder, content):
    (folder / "card.json").write_bytes(content)
    with pytest.raises(ModelGarbled, match="no model card"):
        Models(folder)


def test_a_file_that_is_no_model_is_refused_though_its_card_vouches_for_it(folder):
    (folder / "legs.onnx").write_bytes(b"")
    card = json.loads((folder / "card.json").read_bytes())
    card["legs"]["sha256"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelGarbled, match="no ONNX model"):
        Models(folder)


def test_models_that_changed_places_are_refused(folder):
    card = json.loads((folder / "card.json").read_bytes())
    card["legs"], card["stops"] = card["stops"], card["legs"]
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(WrongColumns, match="expected"):
        Models(folder)


def test_a_card_cannot_name_a_file_outside_its_folder(folder, tmp_path):
    shutil.move(folder / "legs.onnx", tmp_path / "legs.onnx")
    change(folder / "card.json", b'"legs.onnx"', b'"../legs.onnx"')
    with pytest.raises(ModelMissing, match=r"trained/legs\.onnx"):
        Models(folder)


def test_stop_rows_are_not_taken_for_leg_rows():
    assert len(LEG_COLUMNS) != len(STOP_COLUMNS)
    with pytest.raises(WrongColumns):
        shipped_models().predict_legs(stop_rows([STOP]))
