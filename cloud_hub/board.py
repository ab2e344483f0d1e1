"""The code that opens a driver's page for one shift: the same for one van and day, and never stored.

Who stands at the depot reads it off the board there. It is computed from the hub's secret, so a plan pushed again the
same day has the same lock, and nobody who knows yesterday's code knows today's.
"""

import hashlib
import hmac

from shared.contracts import ShiftLock
from shared.work import AgentId

DIGITS = 6


def shift_code(secret: bytes, agent: AgentId, day: str) -> str:
    """Six digits for this agent's driver on this day (YYYY-MM-DD).

    HMAC-SHA256 of agent and day under the hub's secret, shortened like a one-time password (RFC 4226, 5.3, without
    its dynamic offset: the first 8 bytes modulo 10^6 are as even to within 1 in 10^13).
    """
    said = f"shift|{agent}|{day}".encode()
    number = int.from_bytes(hmac.new(secret, said, hashlib.sha256).digest()[:8], "big")
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def shift_lock(secret: bytes, agent: AgentId, day: str) -> ShiftLock | None:
    """What a plan carries so that the page opens with that code; None for a hub that has no secret."""
    if not secret:
        return None
    return ShiftLock.of(shift_code(secret, agent, day), f"{day}/{agent}")
