"""JSON Schemas as OpenAI's strict mode wants them: every object closed, every property required.

Source: "Structured outputs", supported schemas, in OpenAI's guide.
"""

from __future__ import annotations

import copy
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.requests.json_schema import BadSchemaError, compile_schema
from airflow_openai_batch.requests.schema_bounds import SchemaBoundsError, check_schema_bytes, measure_schema

_NESTED = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_MOST_DEPTH = 50


def read_model_schema(model: Any) -> dict[str, Any]:
    """The JSON Schema of a Pydantic model.

    All its fields are asked for, those with a default too: strict mode knows no others, and an answer that leaves
    nothing out always fits the model.

    :raises ConfigError: if it is none.
    """
    make = getattr(model, "model_json_schema", None)
    if make is None:
        raise ConfigError(
            f"response_schema is {type(model).__name__}; it must be a JSON Schema or a Pydantic model."
        )
    schema: dict[str, Any] = make()
    _drop_required(schema)
    return schema


def _drop_required(schema: Any) -> None:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            schema.pop("required", None)
        for value in schema.values():
            _drop_required(value)
    elif isinstance(schema, list):
        for value in schema:
            _drop_required(value)


def make_strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy in which every object is closed and requires all its properties.

    Where ``required`` names some properties only, the others may be null; where there is no ``required``, all are
    required as they are.

    :raises ConfigError: for what strict mode cannot do, or what is no schema. Names the place.
    """
    check_bounds(schema)
    strict = copy.deepcopy(schema)
    if strict.get("type") != "object" or "anyOf" in strict:
        raise ConfigError('response_schema must describe an object: {"type": "object", "properties": {...}}.')
    _close(strict, "response_schema", 0)
    try:
        compile_schema(strict)
    except BadSchemaError as error:
        raise ConfigError(f"response_schema is no JSON Schema ({error}).") from None
    return strict


def check_bounds(schema: Any) -> None:
    """:raises ConfigError: if it is larger than anything that can be asked for."""
    try:
        measure_schema(schema)
        check_schema_bytes(len(lenient_json.encode(schema)))
    except SchemaBoundsError as error:
        raise ConfigError(f"response_schema {error}. Make it smaller.") from None


def _close(schema: Any, where: str, depth: int) -> None:
    if not isinstance(schema, dict):
        return
    if depth > _MOST_DEPTH:
        raise ConfigError(f"{where}: is nested too deeply.")
    schema.pop("default", None)  # the API refuses it; nothing is left out that it could stand for
    if schema.get("type") == "object" or "properties" in schema:
        _close_object(schema, where)
    for key in _NESTED:
        nested = schema.get(key)
        for name, value in nested.items() if isinstance(nested, dict) else ():
            _close(value, f"{where}.{name}", depth + 1)
    for key in _LISTS:
        listed = schema.get(key)
        for number, value in enumerate(listed) if isinstance(listed, list) else ():
            _close(value, f"{where}.{key}[{number}]", depth + 1)
    _close(schema.get("items"), f"{where}[]", depth + 1)


def _close_object(schema: dict[str, Any], where: str) -> None:
    if schema.get("additionalProperties", False) is not False or "patternProperties" in schema:
        raise ConfigError(
            f"{where}: allows properties of any name, which strict mode does not. Name them, use a list of objects "
            "with a name and a value, or set strict: false."
        )
    properties = schema.setdefault("properties", {})
    if not isinstance(properties, dict):
        raise ConfigError(f"{where}.properties: must be an object.")
    required = schema.get("required")
    if isinstance(required, list):
        for name in properties.keys() - set(required):
            properties[name] = _allow_null(properties[name])
    schema["required"] = list(properties)
    schema["additionalProperties"] = False


def _allow_null(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else kind
    if isinstance(kinds, list) and "enum" not in schema and "const" not in schema:
        return {**schema, "type": kinds if "null" in kinds else [*kinds, "null"]}
    listed = schema.get("anyOf")
    if isinstance(listed, list):
        return schema if {"type": "null"} in listed else {**schema, "anyOf": [*listed, {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}
