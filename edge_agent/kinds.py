"""What differs between a vehicle, a robot hall and a sort centre: a table of capabilities, not a class tree."""

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """What an agent of one kind can do.

    `moves` means that its place changes and that legs take time; `has_driver` that a person follows an order shown on
    a page and may refuse it; `resequences` that it owns the order of its work.
    """

    name: str
    moves: bool
    has_driver: bool
    resequences: bool


KINDS = {"vehicle": Kind("vehicle", moves=True, has_driver=True, resequences=True)}
"""The kinds this release runs. Robot halls and sort centres join as rows of this table."""


class KindUnknown(ValueError):
    """No agent of this kind is known."""


def kind_named(name: str) -> Kind:
    """The kind of this name; raises KindUnknown naming those there are."""
    if name not in KINDS:
        raise KindUnknown(f"kind '{name}' is unknown; expected {' or '.join(sorted(KINDS))}")
    return KINDS[name]
