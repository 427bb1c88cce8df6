"""Is a text what the request's format asks for?"""

from __future__ import annotations

from typing import NamedTuple

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.requests.schema_check import CheckLimitError, UnusableSchemaError, find_violation

_NOT_JSON = "The answer is not JSON, which the request's format asks for."
_NO_OBJECT = "The answer is JSON but no object, which the request's format asks for."


class FormatCheck(NamedTuple):
    """What came of a check."""

    text: str | None
    """As JSON that every reader takes; None where it is no JSON."""
    violation: str | None = None
    unchecked: bool = False
    """The schema cannot be used."""
    beyond_limits: bool = False
    """The check takes too much."""


def check_format(text: str, output_format: str, schema: bytes | None) -> FormatCheck:
    """Arguments as of `outcome.read_outcome`."""
    try:
        value, clean = lenient_json.read(text)
    except lenient_json.UnreadableJSONError:
        return FormatCheck(None, _NOT_JSON)
    if output_format == "json_schema" and schema is not None:
        try:
            return FormatCheck(clean, find_violation(schema, value, len(clean)))
        except UnusableSchemaError:
            return FormatCheck(clean, unchecked=True)
        except CheckLimitError as error:
            return FormatCheck(clean, str(error), beyond_limits=True)
    if output_format == "json_object" and not isinstance(value, dict):
        return FormatCheck(clean, _NO_OBJECT)
    return FormatCheck(clean)
