"""Cells as Python values: those of a row as it was read, or of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.tables.arrow_values import to_values

if TYPE_CHECKING:
    import pyarrow as pa

    from airflow_openai_batch.tables.reading.row_table import RowBlock


def read_rows(block: RowBlock, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """One mapping per row, of these columns; a row that was read with keys of its own has no others."""
    if block.rows is None:
        yield from read_values(block.batch, columns)
        return
    wanted = frozenset(columns)
    for row in block.rows:
        yield row if wanted.issuperset(row) else {name: row[name] for name in columns if name in row}


def read_values(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """One mapping per row, of these columns."""
    if not columns:
        for _ in range(batch.num_rows):
            yield {}
        return
    lists = [to_values(batch.column(batch.schema.get_field_index(name))) for name in columns]
    for values in zip(*lists, strict=True):
        yield dict(zip(columns, values, strict=True))
