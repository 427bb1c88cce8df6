"""Does an answer satisfy the schema that its request asked for?

Where a schema cannot be used, the answer is not blamed for it: it counts as unchecked. Simple schemas are checked
against here, all others, which may take long or need much memory, in a process with limits.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.processes.limited_process import LimitedProcess, Overrun
from airflow_openai_batch.requests.json_schema import BadSchemaError, Check, compile_schema
from airflow_openai_batch.requests.schema_bounds import SchemaBoundsError, check_schema_bytes, measure_schema

PATH_CHARS = 200
_MOST_WORK = 2_000_000
"""Schemas times characters of an answer that are checked without limits; a second at the most."""
MAX_OVERRUNS = 20
"""Checks of a shard that go beyond a limit before no more are made of those that may: each costs seconds."""

_encode = msgspec.msgpack.Encoder().encode


class Checked(msgspec.Struct, array_like=True):
    """What came of a check."""

    violation: tuple[str, str] | None = None
    """JSON path and keyword."""
    unusable: str | None = None
    """Why the schema cannot be checked against."""


class _Item(msgspec.Struct, array_like=True):
    schema: bytes
    value: str


_read_item = msgspec.msgpack.Decoder(_Item).decode
_read_checked = msgspec.msgpack.Decoder(Checked).decode


def open_checking(_: bytes) -> Callable[[bytes], bytes]:
    """The side of the process."""
    return _check_item


def _check_item(data: bytes) -> bytes:
    """Takes a schema and an answer, gives a `Checked`."""
    item = _read_item(data)
    try:
        check = _compile(item.schema)
        return _encode(Checked(check(lenient_json.decode(item.value))))
    except MemoryError:
        raise
    except Exception as error:
        # What a stranger's schema can raise while it is applied has no bound: unresolvable references,
        # recursion, bad regular expressions, wrong types of keywords.
        return _encode(
            Checked(unusable="malformed" if isinstance(error, BadSchemaError) else type(error).__name__)
        )


@lru_cache(maxsize=16)
def _compile(schema: bytes) -> Check:
    return compile_schema(lenient_json.decode(schema))


class ChecksApart:
    """The side of the task; one for each process, which ends with it."""

    _own: ChecksApart | None = None

    def __init__(self) -> None:
        self._process = LimitedProcess("requests.schema_check:open_checking")
        self._owner = os.getpid()
        self._overruns = 0
        atexit.register(self._process.close)

    @classmethod
    def here(cls) -> ChecksApart:
        """That of this process: one that was forked has nothing of its parent's."""
        if cls._own is None or cls._own._owner != os.getpid():
            cls._own = cls()
        return cls._own

    @classmethod
    def begin_shard(cls) -> None:
        """What answers to another shard overran says nothing of this one's: the same answers give the same rows
        wherever they land, also in a process that lives on."""
        if cls._own is not None:
            cls._own._overruns = 0

    def check(self, schema: bytes, value: Any) -> Checked | Overrun:
        """:raises WorkerDiedError: if there can be no such process."""
        if self._overruns >= MAX_OVERRUNS:
            return Checked(unusable=f"{MAX_OVERRUNS} checks went beyond the limits")
        (found,) = self._process.map([_encode(_Item(schema, lenient_json.encode(value)))])
        if isinstance(found, Overrun):
            self._overruns += 1
            return found
        return _read_checked(found)


class UnusableSchemaError(Exception):
    """The schema cannot be checked against: malformed, too large, or refers to what is not in it."""


class CheckLimitError(Exception):
    """The check of this answer goes beyond a limit, which the message names."""


def find_violation(schema: bytes, value: Any, size: int) -> str | None:
    """Where ``value`` breaks the schema, or None. Names the place and the keyword, not the content.

    :param size: of the answer's JSON, in characters.
    :raises UnusableSchemaError: if the schema cannot be checked against.
    :raises CheckLimitError: if the check goes beyond a limit.
    """
    looked = _look_at(schema)
    if looked.check is not None and is_checked_here(schema, size):
        found = _check_here(looked.check, value)
    else:
        found = _check_apart(schema, value)
    if found is None:
        return None
    path, keyword = found
    return f"{path[:PATH_CHARS]}: breaks '{keyword}' of the request's schema"


def is_checked_here(schema: bytes, size: int) -> bool:
    """Whether `find_violation` checks an answer of ``size`` characters without a process of its own."""
    looked = _look_once(schema)
    return looked.check is not None and looked.subschemas * size <= _MOST_WORK


def _check_here(check: Check, value: Any) -> tuple[str, str] | None:
    try:
        return check(value)
    except Exception as error:
        # What a stranger's schema can raise while it is applied has no bound: unresolvable references,
        # recursion, bad regular expressions, wrong types of keywords.
        raise UnusableSchemaError(type(error).__name__) from error


def _check_apart(schema: bytes, value: Any) -> tuple[str, str] | None:
    found = ChecksApart.here().check(schema, value)
    if isinstance(found, Overrun):
        raise CheckLimitError(f"Checking it against the request's schema {found}.")
    if found.unusable is not None:
        raise UnusableSchemaError(found.unusable)
    return found.violation


class _Looked(NamedTuple):
    subschemas: int = 0
    check: Check | None = None
    """Of a schema that is checked against without limits."""
    problem: str = ""
    """Why nothing can be checked against it."""


def _look_at(schema: bytes) -> _Looked:
    """:raises UnusableSchemaError: for what is no schema, or is beyond its bounds."""
    found = _look_once(schema)
    if found.problem:
        raise UnusableSchemaError(found.problem)
    return found


@lru_cache(maxsize=64)
def _look_once(schema: bytes) -> _Looked:
    try:
        check_schema_bytes(len(schema))
        decoded = lenient_json.decode(schema)
        size = measure_schema(decoded)
        return _Looked(size.subschemas, compile_schema(decoded) if size.is_simple else None)
    except SchemaBoundsError as error:
        return _Looked(problem=str(error))
    except (lenient_json.UnreadableJSONError, BadSchemaError):
        return _Looked(problem="malformed")
