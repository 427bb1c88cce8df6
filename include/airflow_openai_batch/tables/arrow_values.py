"""Cells of Arrow arrays as Python values, whatever stands in them: no value of a file ends a read.

What Python has a value for is that value. Dates and times beyond its years 1 to 9999 are text in ISO 8601, durations
beyond its range text with their unit; bytes that are called text and are no UTF-8 are read with U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

UNREADABLE = (pa.ArrowException, ValueError, OverflowError, TypeError, NotImplementedError, LookupError)
"""What Arrow raises for values that Python has no form for; of time zones unknown to this machine, `LookupError`."""


def to_values(array: pa.Array) -> list[Any]:
    """One value for each cell; times to the microsecond."""
    try:
        values: list[Any] = _to_microseconds(array).to_pylist()
    except UNREADABLE:
        return [_to_value(cell) for cell in array]
    return values


def _to_microseconds(array: pa.Array) -> pa.Array:
    """For nanoseconds Arrow would need pandas."""
    kind = array.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return array.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return array.cast(pa.duration("us"), safe=False)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return array.cast(pa.time64("us"), safe=False)
    return array


def _to_value(cell: Any) -> Any:
    if not cell.is_valid:
        return None
    kind = cell.type
    if isinstance(cell, pa.StructScalar):
        return {field.name: _to_value(cell[at]) for at, field in enumerate(kind)}
    if isinstance(cell, pa.MapScalar):
        return [(_to_value(each[0]), _to_value(each[1])) for each in cell.values]
    if isinstance(cell, pa.ListScalar):
        return [_to_value(each) for each in cell.values]
    if isinstance(cell, pa.DictionaryScalar | pa.ExtensionScalar):
        return _to_value(cell.value)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return cell.as_buffer().to_pybytes().decode("utf-8", "replace")
    try:
        return _to_microseconds(pa.array([cell], kind))[0].as_py()
    except UNREADABLE:
        return _to_text(cell, kind)


def _to_text(cell: Any, kind: pa.DataType) -> str:
    if pa.types.is_duration(kind):
        return f"{cell.value} {kind.unit}"
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return str(cell)
    unit: Any = "D" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    day, _, time = str(np.datetime64(cell.value, unit)).partition("T")
    day = re.sub(r"^(-?)(\d+)", lambda found: f"{found[1]}{found[2]:0>4}", day)
    if pa.types.is_date(kind):
        return day
    return f"{day} {re.sub(r'[.]0+$', '', time)}{'' if kind.tz is None else '+00:00'}"


def read_values(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """One mapping per row, of these columns."""
    if not columns:
        for _ in range(batch.num_rows):
            yield {}
        return
    lists = [to_values(batch.column(batch.schema.get_field_index(name))) for name in columns]
    for values in zip(*lists, strict=True):
        yield dict(zip(columns, values, strict=True))
