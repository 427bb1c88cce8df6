"""A table that is read once, from the first row to the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.tables.arrow_values import read_values
from airflow_openai_batch.tables.reading.limits import MAX_BLOCK_CELLS, MAX_COLUMNS
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 2_000
"""Aimed at; fewer where rows are long."""
BLOCK_BYTES = 8 * 2**20
_MOST_NOTICES = 20


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some rows in source order, with those among them that cannot be used."""

    batch: pa.RecordBatch
    problems: Mapping[int, str] = field(default_factory=dict)
    """Why, by number of the row in this block, from 0; its cells are what could be read of it."""
    rows: Sequence[Mapping[str, Any]] | None = None
    """The rows as they were read, where values have types of their own and not those of their columns."""


@dataclass(frozen=True, slots=True)
class RowTable:
    """Columns that are known from the beginning, and blocks of rows that have them."""

    schema: pa.Schema
    blocks: Iterator[RowBlock]
    notices: tuple[str, ...] = ()
    """For the log: what is odd about the source as a whole."""


def block_rows(columns: int) -> int:
    """Rows of a block of so many columns."""
    return max(1, min(BLOCK_ROWS, MAX_BLOCK_CELLS // max(1, columns)))


def check_width(uri: str, columns: int) -> None:
    """:raises InputError: if no table is so wide."""
    if columns > MAX_COLUMNS:
        raise InputError(
            f"{uri}: has {columns:,} columns, limit {MAX_COLUMNS:,}. Leave out those that nothing is asked about."
        )


def name_columns(header: Sequence[object]) -> tuple[list[str], list[str]]:
    """Column names from a header row: none empty, none twice. In time that grows with the header alone.

    :returns: the names, and a sentence on each that had to be changed; of many, on the first ones.
    """
    given = ["" if cell is None else str(cell).strip() for cell in header]
    taken = set(given)
    used: set[str] = set()
    numbers: dict[str, int] = {}
    notices: list[str] = []
    for number, wanted in enumerate(given, 1):
        name = wanted or f"column_{number}"
        if name in used:
            name = _number_name(name, taken, used, numbers)
        if name != wanted:
            was = f"has the name {wanted!r} of another" if wanted else "has no name"
            notices.append(f"Column {number} {was}; it is called {name!r}.")
        used.add(name)
        given[number - 1] = name
    if (more := len(notices) - _MOST_NOTICES) > 0:
        notices[_MOST_NOTICES:] = [f"So it is with {number_of(more, 'further column')}."]
    return given, notices


def _number_name(name: str, taken: set[str], used: set[str], numbers: dict[str, int]) -> str:
    """``name_2`` or the next that is free; ``numbers`` remembers which was, so that no search begins anew."""
    number = numbers.get(name, 2)
    while (found := f"{name}_{number}") in taken or found in used:
        number += 1
    numbers[name] = number + 1
    return found


def merge_names(headers: Sequence[Sequence[str]]) -> list[str]:
    """The columns of several files, in the order in which they first come."""
    return list(dict.fromkeys(name for header in headers for name in header))


def read_rows(block: RowBlock, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """One mapping per row, of these columns; a row that was read with keys of its own has no others."""
    if block.rows is None:
        yield from read_values(block.batch, columns)
        return
    wanted = frozenset(columns)
    for row in block.rows:
        yield row if wanted.issuperset(row) else {name: row[name] for name in columns if name in row}
