"""Values of a table as text formats take them: plain Python, one list for each column.

Answers were paid for before any of this runs: whatever stands in a cell, it becomes some value and ends nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from airflow_openai_batch.tables.arrow_values import UNREADABLE, to_values

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_FIRST, _LAST = dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)


def to_cells(column: pa.Array) -> Sequence[Any]:
    """Text, numbers, booleans and None, for formats that know nothing else: lists and objects are JSON text."""
    kind = column.type
    if is_nested(kind):
        return [None if value is None else to_json_text(value) for value in to_json_values(column)]
    return to_json_values(column)


def to_json_values(column: pa.Array) -> Sequence[Any]:
    """What `to_json_text` can write; times are ISO 8601, decimals text (no digit is lost), bytes base64."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_json_values(column.dictionary_decode())
    if pa.types.is_list(kind) and kind.value_type == pa.float32():
        return _to_vectors(column)
    if pa.types.is_duration(kind):
        column = pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), _PER_SECOND[kind.unit])
    elif kind == pa.float32():  # 0.1, not 0.10000000149011612
        column = column.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _to_times(column)
    elif pa.types.is_time(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values = to_values(column)
    return values if _is_plain(kind) or is_nested(kind) else list(map(_to_plain_cell, values))


def _is_plain(kind: pa.DataType) -> bool:
    """Whether JSON has a form for what Python makes of it."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(is_text or is_number or pa.types.is_null(kind))


def _to_times(column: pa.Array) -> Sequence[Any]:
    """Arrow writes years from 1 to 9999 and knows the time zones of this machine; others are written one by one."""
    try:
        ends = pc.min_max(column.cast(pa.timestamp("s"), safe=False))
        is_near = not ends["min"].is_valid or (ends["min"].as_py() >= _FIRST and ends["max"].as_py() < _LAST)
        if is_near:
            texts = column.cast(pa.string())
            return pc.replace_substring(texts, " ", "T", max_replacements=1).to_pylist()  # type: ignore[no-any-return]
    except UNREADABLE:
        pass
    return [_to_plain_cell(value) for value in to_values(column)]


def to_json_text(value: Any) -> str:
    return to_json(value).decode()


def to_json(value: Any) -> bytes:
    return orjson.dumps(
        value, default=_to_plain_cell, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    )


def is_nested(kind: pa.DataType) -> bool:
    """Whether a value is more than one thing."""
    if pa.types.is_dictionary(kind):
        return is_nested(kind.value_type)
    return bool(pa.types.is_nested(kind))


def _to_plain_cell(value: Any) -> Any:
    """What JSON does not know, by itself or inside of lists and objects."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else str(value)


def _to_vectors(column: pa.Array) -> Sequence[Any]:
    """NumPy arrays: an object for each number would take a hundred times as long."""
    numbers = column.values.to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy()
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    return [
        None if null else numbers[start:end]
        for null, start, end in zip(nulls, offsets[:-1], offsets[1:], strict=True)
    ]
