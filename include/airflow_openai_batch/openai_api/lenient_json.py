"""JSON as servers and models really send it: fast where it is clean, forgiving where it is not.

msgspec, orjson, Pydantic and Arrow refuse lone surrogates (``"\\ud800"``) and raw control characters in strings,
which models do write; Parquet and every UTF-8 file refuse lone surrogates too. So what the fast decoders refuse goes
through the standard library, and what cannot be written as UTF-8 becomes U+FFFD. NaN and Infinity are no JSON: no two
readers make the same of them.

Everything that reads an answer reads it here, or reads the text that `read` gives back: what is found good stays
readable, in ``results/``, in a joined table and in Python.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

import orjson

MAX_NESTING = 128
"""Levels of an answer; those who read it later end between 200 (Pydantic) and 1,000 (Python)."""


class UnreadableJSONError(ValueError):
    """Not JSON, even read forgivingly. Carries no content."""


class Reading(NamedTuple):
    """What a JSON text says."""

    value: Any
    text: str
    """The same as JSON that every reader takes; the text itself where it is clean."""


def read(text: str) -> Reading:
    """What a model wrote as JSON.

    :raises UnreadableJSONError: if it is not JSON, or nested deeper than `MAX_NESTING`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _decode_forgivingly(text, _refuse)
        _check_nesting(text, value)
        return Reading(value, encode(value))
    _check_nesting(text, value)
    return Reading(value, text)


def decode(data: bytes | str) -> Any:
    """The value of a JSON text; strings in it can always be written as UTF-8.

    What a server sends around answers: NaN and infinity, in a spare field of a line, are null there.

    :raises UnreadableJSONError: if it is not JSON, or nested too deeply to be read.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _decode_forgivingly(data, _to_null)


def clean(text: str) -> str:
    """The text with what UTF-8 cannot hold replaced by U+FFFD; surrogate pairs are joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def encode(value: Any) -> str:
    """JSON text of a decoded value."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, RecursionError):
        return clean(json.dumps(value, ensure_ascii=False, default=str))


def _decode_forgivingly(data: bytes | str, read_odd_number: Callable[[str], None]) -> Any:
    """:param read_odd_number: takes NaN, Infinity, and what is beyond a double."""

    def read_float(digits: str) -> float | None:
        number = float(digits)
        if not math.isinf(number):
            return number
        read_odd_number(digits)
        return None

    # The first line of a file may begin with a byte order mark.
    text = data.decode("utf-8-sig", "replace") if isinstance(data, bytes) else data
    try:
        value = json.loads(text, strict=False, parse_constant=read_odd_number, parse_float=read_float)
        return _clean_all(value)
    except (ValueError, RecursionError) as error:
        raise UnreadableJSONError(type(error).__name__) from None


def _refuse(_: str) -> NoReturn:
    raise ValueError


def _to_null(_: str) -> None:
    return None


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean_all(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _clean_all(item) for key, item in value.items()}
    return value


def _check_nesting(text: str, value: Any) -> None:
    """:raises UnreadableJSONError: above `MAX_NESTING`; counting brackets spares nearly every answer the walk."""
    if text.count("{") + text.count("[") <= MAX_NESTING:
        return
    level = [value]
    for _ in range(MAX_NESTING):
        level = [inner for item in level for inner in _values(item) if isinstance(inner, (dict, list))]
        if not level:
            return
    raise UnreadableJSONError(f"nested deeper than {MAX_NESTING} levels")


def _values(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
