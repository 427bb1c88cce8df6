"""Cells of a batch as Python values, for templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa


def read_values(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """One mapping per row, of these columns."""
    if not columns:
        for _ in range(batch.num_rows):
            yield {}
        return
    lists = [_to_list(batch.column(batch.schema.get_field_index(name))) for name in columns]
    for values in zip(*lists, strict=True):
        yield dict(zip(columns, values, strict=True))


def _to_list(array: pa.Array) -> list[Any]:
    """Times to the microsecond: for nanoseconds Arrow would need pandas."""
    kind = array.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        array = array.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_duration(kind) and kind.unit == "ns":
        array = array.cast(pa.duration("us"), safe=False)
    elif pa.types.is_time64(kind) and kind.unit == "ns":
        array = array.cast(pa.time64("us"), safe=False)
    values: list[Any] = array.to_pylist()
    return values
