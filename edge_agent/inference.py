"""Run the trained models on board: rows in, three quantiles in seconds out.

A model is believed only when its content is what its card says and its columns are what `shared.features` makes, for a
model that reads the wrong column is wrong quietly. One thread, no arena: a van's computer is small.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.features import LEG_COLUMNS, STOP_COLUMNS, Correlation, ModelCard, TrainedCard

TRAINED_FOLDER = Path(__file__).parent / "trained"
CARD = "card.json"


class ModelMissing(FileNotFoundError):
    """A model or its card is not there."""


class ModelGarbled(ValueError):
    """A model or its card is not what it should be: cut short, changed, or not a model."""


class WrongColumns(ValueError):
    """Rows, or a model, with other columns than this release makes."""


class Models:
    """The leg model and the stop model of one folder, loaded and checked."""

    def __init__(self, folder: Path) -> None:
        """Load `card.json` and the two models it names. Raises ModelMissing, ModelGarbled and WrongColumns."""
        self.card = _card_in(folder)
        self._legs = _session(folder, self.card.legs, LEG_COLUMNS)
        self._stops = _session(folder, self.card.stops, STOP_COLUMNS)
        _give_back_memory()

    @property
    def name(self) -> str:
        """What to call these models in a decision's record: the beginnings of both content hashes."""
        return f"legs-{self.card.legs.sha256[:8]} stops-{self.card.stops.sha256[:8]}"

    @property
    def correlation(self) -> Correlation:
        """How much of their luck the durations of one day share, as measured on the test days."""
        return self.card.correlation

    def predict_legs(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """P10, P50 and P90 seconds, float32[n, 3], for `shared.features.leg_rows`. Raises WrongColumns."""
        return _answer(self._legs, rows, LEG_COLUMNS)

    def predict_stops(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """P10, P50 and P90 seconds, float32[n, 3], for `shared.features.stop_rows`. Raises WrongColumns."""
        return _answer(self._stops, rows, STOP_COLUMNS)


@cache
def shipped_models() -> Models:
    """The models that ship with the agent, loaded once. Raises ModelMissing, ModelGarbled and WrongColumns."""
    return Models(TRAINED_FOLDER)


def _card_in(folder: Path) -> TrainedCard:
    content = _content(folder / CARD)
    try:
        return msgspec.json.decode(content, type=TrainedCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelGarbled(f"{folder / CARD} is no model card ({error}): install the models again") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelMissing(
            f"{path} cannot be read ({error.strerror}): expected a trained model; "
            "train one with `python -m cloud_hub.models train`"
        ) from error


def _session(folder: Path, card: ModelCard, columns: tuple[str, ...]) -> Any:
    # Imported here so that an agent without models does not pay its 20 MB; it ships no types.
    import onnxruntime  # type: ignore[import-untyped]

    path = folder / Path(card.file).name
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise ModelGarbled(f"{path} has SHA-256 {found}, its card says {card.sha256}: install the models again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelGarbled(f"{path} is no ONNX model ({error}): install the models again") from error
    inside = session.get_modelmeta().custom_metadata_map.get("columns", "[]")
    if tuple(json.loads(inside)) != columns or card.columns != columns:
        raise WrongColumns(f"{path} reads {inside}, expected {json.dumps(columns)}: train it with this release")
    return session


def _answer(session: Any, rows: NDArray[np.float32], columns: tuple[str, ...]) -> NDArray[np.float32]:
    if rows.ndim != 2 or rows.shape[1] != len(columns) or rows.dtype != np.float32:
        raise WrongColumns(f"rows are {rows.dtype}{list(rows.shape)}, expected float32[n, {len(columns)}]")
    if not np.isfinite(rows).all():
        raise WrongColumns("rows hold NaN or infinity, expected finite numbers: refuse the reading they came from")
    if len(rows) == 0:
        return np.empty((0, 3), dtype=np.float32)
    quantiles: NDArray[np.float32] = session.run(None, {"rows": rows})[0]
    return quantiles


def _give_back_memory() -> None:
    # Reading a graph leaves some 10 MB in the allocator that are never needed again; glibc returns them when asked.
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return  # Not glibc: it has no such call.
