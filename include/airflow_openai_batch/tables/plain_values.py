"""A closed set of values that cells may have, whoever made them: JSON's own, bytes, decimals, dates, times, durations.

Readers, database drivers and people's code hand out far more (UUIDs, NumPy's numbers, enumerations, objects of any
class). All of it becomes one of these here, or is told to have no form; so nothing that can be called, and no
object's ``repr``, ever comes near a prompt or a table.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from typing import Any

MAX_DEPTH = 100
"""Lists and objects within each other in one cell: more than people nest, far less than any parser's stack holds."""

SCALARS = frozenset({type(None), bool, int, float, str})
"""What JSON has by itself."""
_NUMBERS = SCALARS - {str}
TIMES = (dt.datetime, dt.date, dt.time, dt.timedelta)
_ODD = frozenset({bytes, Decimal, *TIMES})
_NOTHING = frozenset({"NaTType", "NAType"})
"""Of pandas, by name: it need not be installed."""


class NoPlainFormError(ValueError):
    """The value has no form. The message says why and shows nothing of it."""


def is_plain(row: Mapping[str, Any]) -> bool:
    """Whether there is nothing to do for any cell; most rows are like that, and this is quick."""
    return all(map(str.isascii, row)) and all(
        type(value) in _NUMBERS or (type(value) is str and value.isascii()) for value in row.values()
    )


def to_plain(value: Any, depth: int = 0) -> Any:
    """The value as one of the closed set.

    :raises NoPlainFormError: if it has no such form, or is nested too deeply.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _without_surrogates(value)
    if kind in SCALARS or kind in _ODD:
        return value
    if depth >= MAX_DEPTH:
        raise NoPlainFormError(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {to_name(key): to_plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, depth + 1) for item in value]
    return _convert(value, depth)


def _convert(value: Any, depth: int) -> Any:
    if type(value).__name__ in _NOTHING:
        return None
    if isinstance(value, enum.Enum):
        return to_plain(value.value, depth + 1)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Set):  # in an order that is the same every time
        return sorted((to_plain(item, depth + 1) for item in value), key=str)
    if callable(getattr(value, "tolist", None)):  # NumPy's numbers and arrays
        return to_plain(value.tolist(), depth + 1)
    return _convert_kin(value, depth)


def _convert_kin(value: Any, depth: int) -> Any:
    """What a class of its own makes of a value of the set: pandas' Timestamp is a datetime."""
    if isinstance(value, str):
        return to_plain(str.__str__(value))
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (Decimal, *TIMES)):
        return value
    if isinstance(value, Sequence):
        return [to_plain(item, depth + 1) for item in value]
    own_text: Any = type(value).__str__
    if callable(value) or own_text is object.__str__:
        raise NoPlainFormError(f"holds a {type(value).__name__}, which has no form as text")
    return to_plain(str(value))  # a UUID, an address of the internet, a path, a range of a database


def to_name(key: Any) -> str:
    if type(key) is str:
        return key if key.isascii() else _without_surrogates(key)
    return str(to_plain(key, MAX_DEPTH))


def _without_surrogates(text: str) -> str:
    """No file can hold a half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
