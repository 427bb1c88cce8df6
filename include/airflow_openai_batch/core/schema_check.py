"""Does an answer satisfy the format its request asked for?

Where a schema cannot be used, the answer is not blamed for it: it counts as unchecked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from airflow_openai_batch.core import lenient_json
from airflow_openai_batch.core.schema_engines import BadSchemaError, Check, compile_schema

PATH_CHARS = 200


class UnusableSchemaError(Exception):
    """The schema cannot be checked against: malformed, or refers to what is not in it."""


def read_format(raw: bytes) -> tuple[str, bytes | None]:
    """The kind of ``response_format`` (chat) or ``text.format`` (responses) and its schema's JSON.

    The kind is ``text``, ``json_object`` or ``json_schema``; anything else reads as ``text``.
    """
    try:
        found = _decode_format(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
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


def find_violation(schema: bytes, value: Any) -> str | None:
    """Where ``value`` breaks the schema, or None. Names the place and the keyword, not the content.

    :raises UnusableSchemaError: if the schema cannot be checked against.
    """
    check = _compile(schema)
    if check is None:
        raise UnusableSchemaError("malformed")
    try:
        found = check(value)
    except Exception as error:
        # What a stranger's schema can raise while it is applied has no bound: unresolvable references,
        # recursion, bad regular expressions, wrong types of keywords.
        raise UnusableSchemaError(type(error).__name__) from error
    if found is None:
        return None
    path, keyword = found
    return f"{path[:PATH_CHARS]}: breaks '{keyword}' of the request's schema"


@lru_cache(maxsize=64)
def _compile(schema: bytes) -> Check | None:
    """None, which is kept too, for what is no schema."""
    try:
        return compile_schema(lenient_json.decode(schema))
    except (lenient_json.UnreadableJSONError, BadSchemaError):
        return None
