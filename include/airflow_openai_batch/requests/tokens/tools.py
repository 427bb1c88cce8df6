"""What the declaration of functions costs in a prompt.

Source: the function-calling part of OpenAI's cookbook "How to count tokens with tiktoken". It says nothing of
nested schemas; those are counted as the JSON they are written in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_openai_batch.requests.tokens.parts import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_openai_batch.requests.tokens.parts import Measure

_FUNCTION_START = 7
_FUNCTION_START_CL100K = 10
_FUNCTIONS_END = 12
_PROPERTIES_START = 3
_PROPERTY = 3
_ENUM_START = -3
_ENUM_ITEM = 3

_FLAT_KEYS = frozenset({"type", "description", "enum"})


def measure_functions(functions: Sequence[Mapping[str, Any]], measure: Measure, *, cl100k: bool) -> None:
    """Add the cost of functions, each ``{"name", "description", "parameters"}``."""
    if not functions:
        return
    for function in functions:
        measure.fixed_tokens += _FUNCTION_START_CL100K if cl100k else _FUNCTION_START
        measure.repeated.append(
            f"{_text(function, 'name')}:{_text(function, 'description').removesuffix('.')}"
        )
        parameters = function.get("parameters")
        if isinstance(parameters, dict):
            _measure_parameters(parameters, measure)
    measure.fixed_tokens += _FUNCTIONS_END


def _measure_parameters(parameters: dict[str, Any], measure: Measure) -> None:
    properties = parameters.get("properties")
    if isinstance(properties, dict) and properties:
        measure.fixed_tokens += _PROPERTIES_START
        for name, schema in properties.items():
            _measure_property(name, schema, measure)
    if "$defs" in parameters:
        measure.repeated.append(as_json(parameters["$defs"]))


def _measure_property(name: str, schema: object, measure: Measure) -> None:
    measure.fixed_tokens += _PROPERTY
    if not isinstance(schema, dict) or not _FLAT_KEYS.issuperset(schema):
        measure.repeated.append(f"{name}:{as_json(schema)}")
        return
    choices = schema.get("enum")
    if isinstance(choices, list):
        measure.fixed_tokens += _ENUM_START + _ENUM_ITEM * len(choices)
        measure.repeated.extend(choice if isinstance(choice, str) else as_json(choice) for choice in choices)
    kind = schema.get("type", "")
    kind = kind if isinstance(kind, str) else as_json(kind)
    measure.repeated.append(f"{name}:{kind}:{_text(schema, 'description').removesuffix('.')}")


def _text(schema: Mapping[str, Any], key: str) -> str:
    value = schema.get(key)
    return value if isinstance(value, str) else ""
