"""The hub's rows in memory: read once from the store, looked up, changed, and handed back to be committed."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

from shared.steps import Row, Saved

T = TypeVar("T")

_json = msgspec.json.Encoder()


class Book(Generic[T]):
    """One room of the store: frozen values by key. What has changed since the last `rows` is what must be committed."""

    def __init__(self, room: str, kind: type[T], saved: Saved) -> None:
        """Raises msgspec.ValidationError when the store holds what this release cannot read."""
        self.room = room
        decoder = msgspec.json.Decoder(kind)
        kept: Mapping[str, bytes] = saved.get(room, {})
        self._pages: dict[str, T] = {key: decoder.decode(kept[key]) for key in sorted(kept)}
        self._changed: dict[str, None] = {}

    def get(self, key: str) -> T | None:
        """The value under this key; None when there is none."""
        return self._pages.get(key)

    def __getitem__(self, key: str) -> T:
        return self._pages[key]

    def __contains__(self, key: str) -> bool:
        return key in self._pages

    def __len__(self) -> int:
        return len(self._pages)

    def items(self) -> Iterator[tuple[str, T]]:
        """Keys and values, by key."""
        return ((key, self._pages[key]) for key in sorted(self._pages))

    def values(self) -> Iterator[T]:
        """Values, by key."""
        return (value for _, value in self.items())

    def put(self, key: str, value: T) -> T:
        """Keep this value from now on, and return it."""
        if key not in self._pages or self._pages[key] != value:
            self._pages[key] = value
            self._changed[key] = None
        return value

    def drop(self, key: str) -> None:
        """Forget this key."""
        if self._pages.pop(key, None) is not None:
            self._changed[key] = None

    def rows(self) -> list[Row]:
        """Everything that has changed since this was last asked."""
        rows = [
            Row(self.room, key, _json.encode(self._pages[key]) if key in self._pages else None) for key in self._changed
        ]
        self._changed.clear()
        return rows
