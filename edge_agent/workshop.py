"""Do the jobs a core wants: run the models and the kernel, on a worker thread, one answer for each job."""

import time
from collections.abc import Sequence
from pathlib import Path

from edge_agent.inference import ModelGarbled, ModelMissing, Models, WrongColumns
from edge_agent.machine import TellTime
from edge_agent.outlook import (
    Bearing,
    Foreseen,
    Improve,
    Improved,
    Predict,
    Predicted,
    orders_beyond,
    plans_own,
    rows_for,
)
from shared.features import FeatureOutOfRange
from shared.logs import log
from shared.resequence import resequence
from shared.steps import ClockFound, Job
from shared.work import StopId


class JobUnknown(TypeError):
    """The core wants something this workshop does not do."""


class Workshop:
    """Models and kernel of one agent. A van whose models are missing drives by the plan's own times, and says so."""

    def __init__(self, models: Path) -> None:
        """Load the models of a folder; when they are missing or garbled that is logged and they do not count."""
        self._models: Models | None = None
        try:
            self._models = Models(models)
        except (ModelMissing, ModelGarbled, WrongColumns) as wrong:
            log("models_missing", because=f"{type(wrong).__name__}: {wrong}", then="the plan's own times are used")

    @property
    def model(self) -> str:
        """What decisions call the models; "none" when there are none."""
        return "none" if self._models is None else self._models.name

    def do(self, job: Job) -> Predicted | Improved | ClockFound:
        """The answer to a job. Raises JobUnknown; anything else that goes wrong is the core's to hear."""
        began_ns = time.monotonic_ns()
        match job:
            case Predict():
                foreseen = self._foresee(job.bearing, job.bearing.order)
                return Predicted(job.need, foreseen, _passed_ms(began_ns))
            case Improve():
                return self._improve(job, began_ns)
            case TellTime():
                # The runner puts the clock right before the step that hears of it.
                return ClockFound(job.utc_ms - job.heard_ms, job.by)
            case _:
                raise JobUnknown(f"a job of kind {type(job).__name__}, expected Predict, Improve or TellTime")

    def _improve(self, job: Improve, began_ns: int) -> Improved:
        found = resequence(job.problem, limit_ms=job.limit_ms, seed=job.seed)
        foreseen = None
        if found.improved:
            beyond = orders_beyond(job.bearing)
            head = job.bearing.order[: len(job.bearing.order) - len(beyond)]
            order = head + tuple(beyond[node - 1] for node in found.order)
            foreseen = self._foresee(job.bearing, order)
        return Improved(job.need, found.order, found.iterations_used, foreseen, _passed_ms(began_ns))

    def _foresee(self, bearing: Bearing, order: Sequence[StopId]) -> Foreseen:
        if self._models is None:
            return plans_own(bearing, order)
        try:
            rows = rows_for(bearing, order)
        except FeatureOutOfRange as wrong:
            log("features_refused", because=str(wrong), then="the plan's own times are used")
            return plans_own(bearing, order)
        models = self._models
        legs, stops = models.predict_legs(rows.legs), models.predict_stops(rows.stops)
        return Foreseen(legs, stops, models.correlation, models.name)


def _passed_ms(began_ns: int) -> float:
    return (time.monotonic_ns() - began_ns) / 1e6
