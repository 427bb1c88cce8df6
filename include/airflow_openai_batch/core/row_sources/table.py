"""A table that is read once, from the first row to the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 2_000
"""Aimed at; fewer where rows are long."""
BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some rows in source order, with those among them that cannot be used."""

    batch: pa.RecordBatch
    problems: Mapping[int, str] = field(default_factory=dict)
    """Why, by number of the row in this block, from 0; its cells are what could be read of it."""


@dataclass(frozen=True, slots=True)
class RowTable:
    """Columns that are known from the beginning, and blocks of rows that have them."""

    schema: pa.Schema
    blocks: Iterator[RowBlock]
    notices: tuple[str, ...] = ()
    """For the log: what is odd about the source as a whole."""


def name_columns(header: Sequence[object]) -> tuple[list[str], list[str]]:
    """Column names from a header row: none empty, none twice.

    :returns: the names, and a sentence on each that had to be changed.
    """
    names: list[str] = []
    notices = []
    taken = {str(cell).strip() for cell in header if cell is not None}
    for number, cell in enumerate(header, 1):
        given = "" if cell is None else str(cell).strip()
        name = given or f"column_{number}"
        if name in names:
            name = next(each for n in range(2, 10**6) if (each := f"{given}_{n}") not in taken.union(names))
        if name != given:
            was = f"has the name {given!r} of another" if given else "has no name"
            notices.append(f"Column {number} {was}; it is called {name!r}.")
        names.append(name)
    return names, notices


def merge_names(headers: Sequence[Sequence[str]]) -> list[str]:
    """The columns of several files, in the order in which they first come."""
    return list(dict.fromkeys(name for header in headers for name in header))
