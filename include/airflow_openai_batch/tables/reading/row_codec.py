"""Rows as bytes and back, for a temporary file: every value comes back with the type that it had."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from airflow_openai_batch.tables.plain_values import SCALARS

_INT64 = range(-(2**63), 2**64)
_Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.Encoder().encode


def encode_rows(rows: Sequence[Mapping[str, Any]], *, is_json: bool) -> bytes:
    """:param rows: of values as `plain_values` has them.
    :param is_json: whether all of them are values that JSON has; these need no second look.
    """
    try:
        return _encode(rows if is_json else list(map(_tag_odd, rows)))
    except OverflowError:  # an integer beyond 64 bits
        return _encode(list(map(_tag, rows)))


def _tag_odd(row: Mapping[str, Any]) -> Any:
    return row if all(type(value) in SCALARS for value in row.values()) else _tag(row)


def _tag(value: Any) -> Any:
    """MessagePack has no decimals, dates, times and large integers: those are marked, so that they come back."""
    if isinstance(value, dict):
        return {name: _tag(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_tag(item) for item in value]
    if type(value) is int and value not in _INT64:
        return _Ext(1, str(value).encode())
    for code, (kind, write, _) in _FORMS.items():
        if isinstance(value, kind):
            return _Ext(code, write(value).encode())
    return value


def _write_duration(value: dt.timedelta) -> str:
    return f"{value.days} {value.seconds} {value.microseconds}"


def _read_duration(text: str) -> dt.timedelta:
    days, seconds, microseconds = map(int, text.split())
    return dt.timedelta(days, seconds, microseconds)


_FORMS: dict[int, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    2: (Decimal, str, Decimal),
    3: (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    4: (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    5: (dt.time, dt.time.isoformat, dt.time.fromisoformat),
    6: (dt.timedelta, _write_duration, _read_duration),
}
"""In this order: a datetime is a date, too."""


def _untag(code: int, data: memoryview) -> Any:
    text = bytes(data).decode()
    return int(text) if code == 1 else _FORMS[code][2](text)


decode_rows: Callable[[bytes], list[dict[str, Any]]] = msgspec.msgpack.Decoder(
    list[dict[str, Any]], ext_hook=_untag
).decode
