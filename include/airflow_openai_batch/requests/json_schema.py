"""Does an answer satisfy the format its request asked for?

Where a schema cannot be used, the answer is not blamed for it: it counts as unchecked. Simple schemas are checked
against here, all others where limits of time and memory hold (`schema_apart`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.processes.limited_process import Overrun
from airflow_openai_batch.requests.schema_apart import ChecksApart
from airflow_openai_batch.requests.schema_bounds import SchemaBoundsError, check_schema_bytes, measure_schema
from airflow_openai_batch.requests.schema_engines import BadSchemaError, Check, compile_schema

PATH_CHARS = 200


_MOST_WORK = 2_000_000
"""Schemas times characters of an answer that are checked without limits; a second at the most."""


class UnusableSchemaError(Exception):
    """The schema cannot be checked against: malformed, too large, or refers to what is not in it."""


class CheckLimitError(Exception):
    """The check of this answer goes beyond a limit, which the message names."""


def read_format(raw: bytes) -> tuple[str, bytes | None]:
    """The kind of ``response_format`` (chat) or ``text.format`` (responses) and its schema's JSON.

    The kind is ``text``, ``json_object`` or ``json_schema``; anything else reads as ``text``.
    """
    try:
        found = _decode_format(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "text", None
    if found.type == "json_object":
        return "json_object", None
    if found.type != "json_schema":
        return "text", None
    inner = found.json_schema
    schema = inner.schema if inner is not None else found.schema
    return "json_schema", bytes(schema) if schema else None


class _JSONSchema(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw(b"")


class _Format(msgspec.Struct):
    type: Any = None
    json_schema: _JSONSchema | None = None
    schema: msgspec.Raw = msgspec.Raw(b"")


_decode_format = msgspec.json.Decoder(_Format).decode


def find_violation(schema: bytes, value: Any, size: int) -> str | None:
    """Where ``value`` breaks the schema, or None. Names the place and the keyword, not the content.

    :param size: of the answer's JSON, in characters.
    :raises UnusableSchemaError: if the schema cannot be checked against.
    :raises CheckLimitError: if the check goes beyond a limit.
    """
    looked = _look_at(schema)
    if looked.check is not None and looked.subschemas * size <= _MOST_WORK:
        found = _check_here(looked.check, value)
    else:
        found = _check_apart(schema, value)
    if found is None:
        return None
    path, keyword = found
    return f"{path[:PATH_CHARS]}: breaks '{keyword}' of the request's schema"


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
