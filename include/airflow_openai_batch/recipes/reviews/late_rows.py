"""Rows of a day that came late, in a file of their own: asked as they would have been with the others.

They keep the types that they have in the day's file, since a prompt may ask for them (``{{ stored_at.year }}``): so
what has types by itself goes into Parquet. The objects of a JSONL stay lines: there each row has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.recipes.json_rows import write_rows
from airflow_openai_batch.tables.join.answer_columns import REJECTED
from airflow_openai_batch.tables.reading.row_table import read_rows

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.reviews.known_answers import KnownAnswers
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.reading.row_table import RowBlock, RowTable

LINES, TYPED = "rows.jsonl", "rows.parquet"
_ROUNDING = 1e-12
"""What is just allowed stays so."""


def find_late_rows(folder: Location) -> Location:
    """The file of rows of a late round; one of the two is there."""
    lines = folder.child(LINES)
    return lines if lines.exists() else folder.child(TYPED)


class LateCounts(NamedTuple):
    """What a day's table has: ``rows`` in all, of them ``late`` ones, and ``rejected`` ones of before."""

    rows: int
    late: int
    rejected: int

    def allow_rejected(self, fraction: float) -> float:
        """Which part of the late rows may be rejected, so that of the day it is no more than ``fraction``."""
        allowed = fraction * self.rows - self.rejected
        return min(1.0, max(0.0, allowed / self.late + _ROUNDING))


class _LateSieve:
    """Tells late rows from known ones, and counts them."""

    def __init__(self, known: KnownAnswers) -> None:
        self._known = known
        self._rows = self._late = self._rejected = 0

    def find_late(self, block: RowBlock) -> list[bool]:
        return [
            self._is_late(cells, is_bad=at in block.problems)
            for at, cells in enumerate(self._known.read(block.batch))
        ]

    def _is_late(self, cells: Mapping[str, Any], *, is_bad: bool) -> bool:
        found = None if is_bad else self._known.find(cells)
        is_late = found is None and not is_bad
        self._rows += 1
        self._late += is_late
        self._rejected += is_bad or (found is not None and found.status == REJECTED)
        return is_late

    @property
    def counts(self) -> LateCounts:
        return LateCounts(self._rows, self._late, self._rejected)


def write_late_rows(folder: Location, table: RowTable, known: KnownAnswers, *, as_lines: bool) -> LateCounts:
    """Write the rows like which nothing is known; equal ones each, as the day's file has them."""
    sieve = _LateSieve(known)
    if as_lines:
        write_rows(folder.child(LINES), _list_late(table, sieve))
        return sieve.counts
    folder.child(LINES).remove()  # of a round that was begun and not prepared
    with folder.child(TYPED).open_write() as file, pq.ParquetWriter(file, table.schema) as writer:
        for block in table.blocks:
            is_late = sieve.find_late(block)
            if any(is_late):
                writer.write_batch(block.batch.filter(pa.array(is_late)))
    return sieve.counts


def _list_late(table: RowTable, sieve: _LateSieve) -> Iterator[dict[str, Any]]:
    names = table.schema.names
    for block in table.blocks:
        for row, is_late in zip(read_rows(block, names), sieve.find_late(block), strict=True):
            if is_late:
                # All of them: what no late row has is a column of the prompt all the same.
                yield {name: row.get(name) for name in names}
