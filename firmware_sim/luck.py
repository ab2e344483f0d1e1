"""The world's luck: every draw is named, so one stop's luck does not depend on the order of the day.

A name is hashed together with the seed (BLAKE2b, RFC 7693) and the hash is the random number. Nothing is drawn
in sequence: a van that re-orders its work meets the same customers, and two runs of a seed meet the same world
on every machine and under any PYTHONHASHSEED.
"""

import hashlib
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeVar

Option = TypeVar("Option")

_NORMAL = NormalDist()
_STEPS = float(1 << 53)


class Luck:
    """A named source of draws. Asking the same name twice gives the same answer."""

    __slots__ = ("_key",)

    def __init__(self, *names: object) -> None:
        self._key = "/".join(map(str, names)).encode()

    def of(self, *names: object) -> "Luck":
        """The luck of something narrower: of a day its vans, of a van its stops."""
        narrower = Luck.__new__(Luck)
        narrower._key = b"/".join((self._key, *(str(name).encode() for name in names)))
        return narrower

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """Evenly between low and high."""
        digest = hashlib.blake2b(self._key + b"?" + name.encode(), digest_size=8).digest()
        return low + (high - low) * ((int.from_bytes(digest, "little") >> 11) / _STEPS)

    def normal(self, name: str, mean: float = 0.0, sigma: float = 1.0) -> float:
        """From the normal distribution, at most five sigma from the mean."""
        return mean + sigma * _NORMAL.inv_cdf(min(max(self.uniform(name), 3e-7), 1 - 3e-7))

    def lognormal(self, name: str, median: float, sigma: float) -> float:
        """From the log-normal distribution with this median; sigma is that of the logarithm."""
        return median * math.exp(self.normal(name, 0.0, sigma))

    def chance(self, name: str, probability: float) -> bool:
        """True this often."""
        return self.uniform(name) < probability

    def poisson(self, name: str, mean: float) -> int:
        """How often something happens that happens `mean` times on average (inversion; for means up to about 50)."""
        left = self.uniform(name)
        term, count = math.exp(-mean), 0
        while left > term and count < 200:
            left -= term
            count += 1
            term *= mean / count
        return count

    def pick(self, name: str, options: Sequence[Option], weights: Sequence[float] | None = None) -> Option:
        """One of the options, by weight; raises ValueError when there are none."""
        if not options:
            raise ValueError(f"nothing to pick '{name}' from")
        shares = weights or [1.0] * len(options)
        left = self.uniform(name) * sum(shares)
        for option, share in zip(options, shares, strict=True):
            left -= share
            if left < 0:
                return option
        return options[-1]
