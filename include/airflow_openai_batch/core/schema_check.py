"""Does an answer satisfy the format its request asked for?

A check is bounded: no schema is fetched from anywhere, a regular expression gets a tenth of a
second, and the compiled schemas kept are few. Where a schema cannot be used, the answer is not
blamed for it: it counts as unchecked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema.validators
import msgspec
import referencing
import regex  # type: ignore[import-untyped, unused-ignore]

from airflow_openai_batch.core import lenient_json

PATTERN_TIMEOUT_S = 0.1
"""For one regular expression of a schema against one string of an answer."""
MESSAGE_CHARS = 200


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
    validator = _compile(schema)
    if validator is None:
        raise UnusableSchemaError("malformed")
    try:
        found = next(iter(validator.iter_errors(value)), None)
    except Exception as error:
        # What a schema of a stranger can raise inside jsonschema has no bound: unresolvable
        # references, recursion, bad regular expressions, wrong types of keywords.
        raise UnusableSchemaError(type(error).__name__) from error
    if found is None:
        return None
    return f"{found.json_path[:MESSAGE_CHARS]}: breaks {found.validator!r} of the request's schema"


@lru_cache(maxsize=64)
def _compile(schema: bytes) -> Any:
    """None, which is kept too, for what is no schema."""
    try:
        value = lenient_json.decode(schema)
        _Checker.check_schema(value)
    except (lenient_json.UnreadableJSONError, jsonschema.SchemaError):
        return None
    return _Checker(value, registry=referencing.Registry())


def _check_pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Any:
    if not isinstance(instance, str):
        return
    try:
        matches = regex.search(pattern, instance, timeout=PATTERN_TIMEOUT_S)
    except TimeoutError:
        return
    if not matches:
        yield jsonschema.ValidationError("does not match the pattern")


_extend: Any = jsonschema.validators.extend
_Checker = _extend(jsonschema.Draft202012Validator, {"pattern": _check_pattern})
