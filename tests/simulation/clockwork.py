"""Turn virtual time: what is to happen happens in order, and nothing takes any time but what says so."""

import heapq
from collections.abc import Callable


class Clockwork:
    """Everything that will happen, by instant and then by the order in which it was put in."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self._began_ms = now_ms
        self._number = 0
        self._to_come: list[tuple[int, int, Callable[[], None]]] = []

    @property
    def real_ms(self) -> int:
        """Milliseconds since the day began: the monotonic clock of every process."""
        return self.now_ms - self._began_ms

    def at(self, at_ms: int, do: Callable[[], None]) -> None:
        """Have this happen then, or now when that is past."""
        self._number += 1
        heapq.heappush(self._to_come, (max(at_ms, self.now_ms), self._number, do))

    def after(self, ms: int, do: Callable[[], None]) -> None:
        """Have this happen in so many milliseconds."""
        self.at(self.now_ms + ms, do)

    def run_until(self, end_ms: int) -> None:
        """Let everything happen that happens until then."""
        while self._to_come and self._to_come[0][0] <= end_ms:
            self.now_ms, _, do = heapq.heappop(self._to_come)
            do()
        self.now_ms = end_ms
