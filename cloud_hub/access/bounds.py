"""How often one caller or one address may ask, try keys in vain, or speak for a customer: counted in memory.

Each process counts for itself and forgets when it ends. Windows slide (the counter of the last whole minute is weighed
by how much of it is still inside), so nobody gets twice the bound at the turn of a minute.
"""

import math
import time
from ipaddress import IPv6Address, IPv6Network

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from cloud_hub.access.setting import AccessSetting


class Bounds:
    """The three bounds. Safe from any thread; none waits."""

    def __init__(self, setting: AccessSetting) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(setting.requests_per_min, namespace="requests")
        self._failures = RateLimitItemPerMinute(setting.failures_per_min, namespace="failures")
        self._wishes = RateLimitItemPerMinute(setting.wishes_per_min, namespace="wishes")

    def asked(self, who: str) -> int:
        """Count a request; seconds to wait when it is one too many, else 0."""
        who = network_of(who)
        return 0 if self._limiter.hit(self._requests, who) else self._wait_s(self._requests, who)

    def wished(self, address: str) -> int:
        """Count something said in a customer's name; seconds to wait when it is one too many, else 0."""
        address = network_of(address)
        return 0 if self._limiter.hit(self._wishes, address) else self._wait_s(self._wishes, address)

    def failed(self, address: str) -> None:
        """Count a key, link or token that opened nothing."""
        self._limiter.hit(self._failures, network_of(address))

    def may_try(self, address: str) -> int:
        """Seconds until this address may try again to get in; 0 when it may now."""
        address = network_of(address)
        return 0 if self._limiter.test(self._failures, address) else self._wait_s(self._failures, address)

    def _wait_s(self, item: RateLimitItemPerMinute, who: str) -> int:
        reset_s = self._limiter.get_window_stats(item, who).reset_time
        return max(1, math.ceil(reset_s - time.time()))


def network_of(address: str) -> str:
    """What is counted as one: a whole /64 of IPv6, of which every line has one and may use any address; anything else
    as it is.
    """
    if ":" not in address:
        return address
    try:
        read = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(read.ipv4_mapped or IPv6Network((int(read) >> 64 << 64, 64)))
