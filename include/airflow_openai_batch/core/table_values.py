"""Values of a table as text formats take them: plain Python, one list for each column."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc


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
    if kind == pa.float32():  # 0.1, not 0.10000000149011612
        column = column.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_timestamp(kind):
        column = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
    elif pa.types.is_duration(kind):
        column = pc.divide(
            column.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6
        )
    elif pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    return values


def to_json_text(value: Any) -> str:
    return to_json(value).decode()


def to_json(value: Any) -> bytes:
    return orjson.dumps(value, default=_to_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def is_nested(kind: pa.DataType) -> bool:
    """Whether a value is more than one thing."""
    if pa.types.is_dictionary(kind):
        return is_nested(kind.value_type)
    return bool(pa.types.is_nested(kind))


def _to_plain(value: Any) -> Any:
    """What stands inside of lists and objects and JSON does not know."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _to_vectors(column: pa.Array) -> Sequence[Any]:
    """NumPy arrays: an object for each number would take a hundred times as long."""
    numbers = column.values.to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy()
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    return [
        None if null else numbers[start:end]
        for null, start, end in zip(nulls, offsets[:-1], offsets[1:], strict=True)
    ]
