"""What is changed in memory is what is committed, no more and no less."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.books import Book


class Page(msgspec.Struct, frozen=True):
    number: int


def test_a_value_put_again_unchanged_is_not_written_again() -> None:
    book = Book("orders", Page, {"orders": {"a": b'{"number":1}'}})
    book.put("a", Page(1))
    assert book.rows() == []
    book.put("a", Page(2))
    assert [(row.key, row.value) for row in book.rows()] == [("a", b'{"number":2}')]
    assert book.rows() == []


changes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 3), st.booleans()), max_size=20)


@given(changes)
def test_memory_equals_disk_whatever_is_put_dropped_and_committed_when(
    story: list[tuple[str, int | None, bool]],
) -> None:
    disk: dict[str, bytes] = {}
    book = Book("orders", Page, {})
    for key, number, commits in story:
        if number is None:
            book.drop(key)
        else:
            book.put(key, Page(number))
        if commits:
            commit(disk, book)
    commit(disk, book)
    assert list(Book("orders", Page, {"orders": disk}).items()) == list(book.items())


def commit(disk: dict[str, bytes], book: Book[Page]) -> None:
    for row in book.rows():
        if row.value is None:
            disk.pop(row.key, None)
        else:
            disk[row.key] = row.value
