"""Name what the shell tells the core of the machine it runs on: its disk, its clock, its end, who listens."""

import msgspec

from shared.quantities import EpochMs
from shared.steps import Job


class IngestBegan(msgspec.Struct, frozen=True):
    """A process that takes telemetry has begun: what was on its way to one that died is to be sent again at once."""

    life: str


class RoomChanged(msgspec.Struct, frozen=True):
    """The disk is full and the store lives on its reserve, or there is room again."""

    is_tight: bool


class Stopping(msgspec.Struct, frozen=True):
    """The process is about to end: what is only in memory and worth keeping is to be written down."""


class TellTime(Job, frozen=True):
    """A clock worth believing showed `utc_ms` when ours showed `heard_ms`; the answer is a `ClockFound`."""

    utc_ms: EpochMs
    heard_ms: EpochMs
    by: str
