"""Hold some room on the disk back, to be let go on the day the disk is full.

A full disk is rarely our doing: a log that runs away takes the last block. What is held back here nobody else can take,
and once it is let go the store takes it for itself at once (`SqliteStore`).
"""

import os
from pathlib import Path

from shared.logs import log

BALLAST_BYTES = 8_000_000
"""The store's log of some megabytes, and as much again for a day or two of events."""
SPARE_BYTES = 8_000_000
"""What must stay free beside it when it is made: a disk that is full but for our ballast helps nobody."""


class Ballast:
    """A file beside the store that holds nothing but its blocks."""

    def __init__(self, path: Path, size_bytes: int = BALLAST_BYTES, spare_bytes: int = SPARE_BYTES) -> None:
        self.path = path
        self._size_bytes = size_bytes
        self._spare_bytes = spare_bytes

    @property
    def is_held(self) -> bool:
        """Whether the room is held back now."""
        try:
            return self.path.stat().st_size == self._size_bytes
        except OSError:
            return False

    def make(self) -> bool:
        """Hold the room back when there is enough of it; whether it is held now."""
        if self.is_held:
            return True
        try:
            free = os.statvfs(self.path.parent)
            if free.f_bavail * free.f_frsize < self._size_bytes + self._spare_bytes:
                return False
            # Blocks of its own, not a hole: nothing is written but the file system's own books.
            held = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(held, 0, self._size_bytes)
                os.fsync(held)
            finally:
                os.close(held)
        except OSError as full:
            log("ballast_not_made", path=self.path, because=full.strerror)
            self.let_go()
            return False
        return True

    def let_go(self) -> bool:
        """Give the room back to the disk; whether there was any."""
        try:
            was_held = self.path.stat().st_size > 0
            self.path.unlink()
        except OSError:
            return False
        return was_held
