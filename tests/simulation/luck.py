"""Draw everything that is left to chance from one seed, by name, so that one more draw here moves nothing elsewhere."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Luck:
    """Numbers of one seed; `of` gives an independent stream of them under a name."""

    def __init__(self, seed: int, path: str = "") -> None:
        self._seed = seed
        self._path = path
        # Seeded with a text, Random hashes it with SHA-512: the same under every PYTHONHASHSEED.
        self._random = random.Random(f"{seed}{path}")

    def of(self, *names: object) -> "Luck":
        """The stream of this name."""
        return Luck(self._seed, f"{self._path}/{'/'.join(map(str, names))}")

    def chance(self, share: float) -> bool:
        """True in so many of one cases."""
        return self._random.random() < share

    def between(self, least: int, most: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(least, most)

    def share(self, least: float, most: float) -> float:
        """A number between the two."""
        return self._random.uniform(least, most)

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return self._random.choice(choices)

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """All of them in another order."""
        return self._random.sample(list(things), len(things))


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad one day is. Shares are of messages, jobs or attempts; the other numbers count what happens in the day.

    With `plans_late` vans leave while their plan is sought anew; on a tight day the slots sold end before the vans can
    come; `forgets_away` people are forgotten whose van is out of reach.
    """

    loses: float
    repeats: float
    delays: float
    lingers: float
    cuts: int
    broker_falls: int
    broker_remembers: bool
    broker_keeps: bool
    plugs: int
    hub_plugs: int
    stalls: int
    takeovers: int
    jobs_fail: float
    jobs_late: float
    notices_fail: float
    fills: int
    outbox_bytes: int
    forgets_time: float
    plans_late: float
    is_tight_day: bool
    forgets_away: int
    garbage: int

    @classmethod
    def drawn(cls, luck: Luck) -> "Weather":
        """Fair, foul or a storm."""
        severity = luck.pick((0.0, 0.5, 1.0, 1.0, 2.0))
        most = round(3 * severity)
        return cls(
            loses=luck.pick((0.0, 0.01, 0.05, 0.15)) * severity,
            repeats=luck.pick((0.0, 0.02, 0.10)) * severity,
            delays=luck.pick((0.0, 0.05, 0.3)),
            lingers=luck.pick((0.0, 0.005, 0.02)) * severity,
            cuts=luck.between(0, most),
            broker_falls=luck.between(0, round(2 * severity)),
            broker_remembers=luck.chance(0.5),
            broker_keeps=luck.chance(0.4),
            plugs=luck.between(0, 2 + 2 * most),
            hub_plugs=luck.between(0, 1 + most),
            stalls=luck.between(0, most),
            takeovers=luck.between(0, round(2 * severity)),
            jobs_fail=luck.pick((0.0, 0.1, 0.3)) * severity,
            jobs_late=luck.pick((0.0, 0.2)),
            notices_fail=luck.pick((0.0, 0.2, 0.5)),
            fills=luck.between(0, round(severity)),
            outbox_bytes=luck.pick((5_000_000, 5_000_000, 10_000, 3_000)),
            forgets_time=luck.pick((0.0, 0.0, 0.6)) * min(1.0, severity),
            plans_late=luck.pick((0.0, 0.0, 0.8)),
            is_tight_day=luck.chance(0.35),
            forgets_away=luck.pick((0, 0, 1, 2)),
            garbage=luck.pick((0, 0, 3, 10)),
        )
