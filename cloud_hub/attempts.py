"""Which jobs are under way, and when one that failed may be tried again.

Not durable, as no job is: the need for it is, and a recovered core tries everything that is needed anew.
"""

from dataclasses import dataclass

FIRST_PATIENCE_MS = 500
LONGEST_PATIENCE_MS = 120_000


@dataclass(slots=True)
class _Tries:
    failures: int = 0
    again_at_ms: int = 0
    is_running: bool = False


class Attempts:
    """What has been tried for each need, by the need's name. Instants are of real time."""

    def __init__(self) -> None:
        self._tries: dict[str, _Tries] = {}

    def may_begin(self, need: str, real_ms: int) -> bool:
        """Whether nobody works on this need, and its last failure is long enough ago."""
        tries = self._tries.get(need)
        return tries is None or (not tries.is_running and tries.again_at_ms <= real_ms)

    def is_running(self, need: str) -> bool:
        """Whether somebody works on this need."""
        return need in self._tries and self._tries[need].is_running

    def begin(self, need: str) -> None:
        """A job for this need begins."""
        self._tries.setdefault(need, _Tries()).is_running = True

    def settle(self, need: str) -> None:
        """The need is met, or nobody has it any more."""
        self._tries.pop(need, None)

    def fail(self, need: str, real_ms: int) -> int:
        """Try this need again later: twice as long each time, spread by the need's own name. Returns how often it has
        failed.
        """
        tries = self._tries.setdefault(need, _Tries())
        patience_ms = min(FIRST_PATIENCE_MS << min(tries.failures, 16), LONGEST_PATIENCE_MS)
        tries.failures += 1
        tries.is_running = False
        spread = sum((place + 1) * ord(letter) for place, letter in enumerate(f"{need}#{tries.failures}")) % 997
        tries.again_at_ms = real_ms + patience_ms + patience_ms * spread // 1994
        return tries.failures

    def next_at_ms(self, real_ms: int) -> int | None:
        """When the next failed need may be tried again; None when none waits.

        One whose time has come and that nobody has begun is nobody's need any more: its name stays, and wakes nobody.
        """
        waiting = (tries.again_at_ms for tries in self._tries.values() if not tries.is_running and tries.failures)
        return min((again_at_ms for again_at_ms in waiting if again_at_ms > real_ms), default=None)
