"""Name an agent, and name what it hears and cannot read."""

from datetime import UTC, tzinfo

import msgspec

from shared import wire
from shared.work import AgentId


class Identity(msgspec.Struct, frozen=True):
    """Who this agent is. `boot` names the life of its store, `life` that of this process.

    `is_dated` says whether the time is known as this life begins; `outbox_bytes` is how much may wait for the hub.
    """

    agent: AgentId
    region: str
    boot: str
    life: str
    kind: str = "vehicle"
    version: str = ""
    zone: tzinfo = UTC
    clock_speed: float = 1.0
    is_dated: bool = True
    outbox_bytes: int = 5_000_000


class DeadLetter(msgspec.Struct, frozen=True):
    """A signed command whose heading we understand and whose message we do not: its sender is newer than we are.

    It takes its place in the stream, or nothing after it would ever be heard.
    """

    heading: wire.Heading
    why: str
