"""Keep rows in memory as a store keeps them: by room and key, each the last that was committed."""

from collections.abc import Sequence

from shared.steps import Row


def keep(rooms: dict[str, dict[str, bytes]], rows: Sequence[Row]) -> None:
    """Commit rows to these rooms; a row without a value forgets."""
    for row in rows:
        room = rooms.setdefault(row.room, {})
        if row.value is None:
            room.pop(row.key, None)
        else:
            room[row.key] = bytes(row.value)
