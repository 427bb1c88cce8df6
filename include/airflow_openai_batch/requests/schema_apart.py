"""Checks of answers that may take long or need much memory, made in a process with limits."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.processes.limited_process import LimitedProcess, Overrun
from airflow_openai_batch.requests.schema_engines import BadSchemaError, Check, compile_schema

MAX_OVERRUNS = 20
"""Checks that go beyond a limit before a task makes no more of those that may: each costs seconds."""

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
        self._process = LimitedProcess("requests.schema_apart:open_checking")
        self._owner = os.getpid()
        self._overruns = 0
        atexit.register(self._process.close)

    @classmethod
    def here(cls) -> ChecksApart:
        """That of this process: one that was forked has nothing of its parent's."""
        if cls._own is None or cls._own._owner != os.getpid():
            cls._own = cls()
        return cls._own

    def check(self, schema: bytes, value: Any) -> Checked | Overrun:
        """:raises WorkerDiedError: if there can be no such process."""
        if self._overruns >= MAX_OVERRUNS:
            return Checked(unusable=f"{MAX_OVERRUNS} checks went beyond the limits")
        (found,) = self._process.map([_encode(_Item(schema, lenient_json.encode(value)))])
        if isinstance(found, Overrun):
            self._overruns += 1
            return found
        return _read_checked(found)
