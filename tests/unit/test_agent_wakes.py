"""When an agent wants to be woken: a slow job is waited for asleep."""

from shared.quantities import EpochMs
from shared.steps import Now
from tests.agents import Rig, plan_of, row_of_houses

MINUTE_MS = 60_000


def steps_within(rig: Rig, minutes: int) -> int:
    """How many steps are taken by whoever does what `wake` says."""
    ends_ms, taken = rig.now_ms + minutes * MINUTE_MS, 0
    while taken < 1_000:
        wake = rig.core.wake(Now(EpochMs(rig.now_ms), rig.now_ms))
        moments = [moment for moment in (wake.domain_ms, wake.real_ms) if moment is not None]
        rig.now_ms = max(rig.now_ms + 1, min(moments, default=ends_ms))
        if rig.now_ms >= ends_ms:
            break
        rig.step()
        taken += 1
    return taken


def test_an_agent_sleeps_while_a_prediction_takes_minutes() -> None:
    # Simulation seed 5: it took a step every millisecond once the prediction was due anew and still under way.
    rig = Rig()
    rig.push(plan_of(row_of_houses()))
    rig.begin()
    rig.does_jobs = False
    rig.step(after_s=61)
    assert [type(job).__name__ for job in rig.jobs] == ["Predict"]
    assert steps_within(rig, minutes=5) < 30
    assert [type(job).__name__ for job in rig.jobs] == ["Predict"]
