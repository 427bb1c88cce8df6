"""Rows of a day that came late, in a file of their own: asked as they would have been with the others.

They keep the types that they have in the day's file, since a prompt may ask for them (``{{ stored_at.year }}``): so
what has types by itself goes into Parquet. The objects of a JSONL stay lines: there each row has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.recipes.json_rows import write_rows
from airflow_openai_batch.tables.reading.row_table import read_rows

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.reviews.known_answers import KnownAnswers
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.reading.row_table import RowBlock, RowTable

LINES, TYPED = "rows.jsonl", "rows.parquet"


def find_late_rows(folder: Location) -> Location:
    """The file of rows of a late round; one of the two is there."""
    lines = folder.child(LINES)
    return lines if lines.exists() else folder.child(TYPED)


def write_late_rows(folder: Location, table: RowTable, known: KnownAnswers, *, as_lines: bool) -> int:
    """Write the rows like which nothing is known, and say how many they are."""
    if as_lines:
        return write_rows(folder.child(LINES), _list_late(table, known))
    folder.child(LINES).remove()  # of a round that was begun and not prepared
    written = 0
    with folder.child(TYPED).open_write() as file, pq.ParquetWriter(file, table.schema) as writer:
        for block in table.blocks:
            is_new = _tell_new(block, known)
            if any(is_new):
                writer.write_batch(block.batch.filter(pa.array(is_new)))
                written += sum(is_new)
    return written


def _list_late(table: RowTable, known: KnownAnswers) -> Iterator[dict[str, Any]]:
    names = table.schema.names
    for block in table.blocks:
        for row, is_new in zip(read_rows(block, names), _tell_new(block, known), strict=True):
            if is_new:
                # All of them: what no late row has is a column of the prompt all the same.
                yield {name: row.get(name) for name in names}


def _tell_new(block: RowBlock, known: KnownAnswers) -> list[bool]:
    rows = enumerate(known.read(block.batch))
    return [at not in block.problems and known.add_key(cells) for at, cells in rows]
