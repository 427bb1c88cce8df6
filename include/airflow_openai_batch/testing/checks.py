"""What OpenAI refuses in a request body, with its words: 400 in real time and in a batch's error file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_openai_batch.testing.refusals import ApiError, missing
from airflow_openai_batch.testing.requests import (
    CHAT,
    COMPLETIONS,
    DRAWINGS,
    EDITS,
    EMBEDDINGS,
    MODERATIONS,
    RESPONSES,
    VIDEOS,
    is_known_model,
    text_tokens,
)

JSON = dict[str, Any]

_SCHEMA_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def check_request(body: Any, endpoint: str, models: tuple[str, ...]) -> None:
    """:raises ApiError: 400 or 404, for a body that OpenAI would not answer."""
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    model = body.get("model")
    if model is None and endpoint == MODERATIONS:
        model = "omni-moderation-latest"
    if not isinstance(model, str) or not model:
        raise ApiError(400, "you must provide a model parameter")
    if not is_known_model(model, models):
        raise ApiError(
            404,
            f"The model `{model}` does not exist or you do not have access to it.",
            code="model_not_found",
        )
    check = _CHECKS.get(endpoint)
    if check is not None:
        check(body)


def check_flex(body: JSON, endpoint: str, models: tuple[str, ...]) -> None:
    """:raises ApiError: 400, where there is no flex for the model or the endpoint."""
    if endpoint not in (CHAT, RESPONSES) or not is_known_model(body["model"], models):
        raise ApiError(400, "Invalid service_tier argument", param="service_tier")


def _wrong_type(param: str, wanted: str, value: Any) -> ApiError:
    got = {str: "a string", list: "an array", dict: "an object", int: "an integer", type(None): "null"}
    return ApiError(
        400,
        f"Invalid type for '{param}': expected {wanted}, but got {got.get(type(value), 'another type')} "
        "instead.",
        code="invalid_type",
        param=param,
    )


def _check_chat(body: JSON) -> None:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise ApiError(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty "
            "array instead.",
            code="empty_array",
            param="messages",
        )
    for place, message in enumerate(messages):
        _check_message(message, place)
    _check_numbers(body)
    response_format = body.get("response_format")
    if isinstance(response_format, dict):
        if response_format.get("type") == "json_object" and "json" not in str(messages).lower():
            raise ApiError(
                400,
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
                "'json_object'.",
                param="messages",
            )
        if response_format.get("type") == "json_schema":
            _check_schema(
                response_format.get("json_schema"), "response_format", "response_format.json_schema"
            )


def _check_message(message: Any, place: int) -> None:
    if not isinstance(message, dict):
        raise _wrong_type(f"messages[{place}]", "an object", message)
    if "role" not in message:
        raise missing(f"messages[{place}].role")
    if message["role"] not in _ROLES:
        raise ApiError(
            400,
            f"Invalid value for 'messages[{place}].role'. Supported values are: 'system', 'assistant', "
            "'user', "
            "'function', 'tool', and 'developer'.",
            code="invalid_value",
            param=f"messages[{place}].role",
        )
    if message.get("content") is None and message["role"] in ("system", "developer", "user"):
        raise ApiError(
            400,
            "Invalid value for 'content': expected a string, got null.",
            param=f"messages[{place}].content",
        )


def _check_responses(body: JSON) -> None:
    source = body.get("input")
    if source is None and not body.get("prompt") and not body.get("previous_response_id"):
        raise missing("input")
    if source is not None and not isinstance(source, (str, list)):
        raise _wrong_type("input", "one of a string or an array of input items", source)
    _check_numbers(body)
    text = body.get("text")
    text_format = text.get("format") if isinstance(text, dict) else None
    if isinstance(text_format, dict) and text_format.get("type") == "json_schema":
        _check_schema(text_format, "text.format", "text.format")


def _check_embeddings(body: JSON) -> None:
    source = body.get("input")
    if source is None:
        raise missing("input")
    if not isinstance(source, (str, list)):
        raise _wrong_type("input", "a string or an array", source)
    if not source or (isinstance(source, list) and any(part == "" or part == [] for part in source)):
        raise ApiError(400, "'$.input' is invalid. Input cannot be an empty string or array.")
    parts = source if isinstance(source, list) and not isinstance(source[0], int) else [source]
    if len(parts) > 2_048:
        raise ApiError(
            400, f"Invalid 'input': array too long. Expected at most 2048 items, got {len(parts)}."
        )
    longest = max(text_tokens(part) if isinstance(part, str) else len(part) for part in parts)
    if longest > 8_192 * 2:  # an estimate refuses only what is surely too long
        raise ApiError(
            400,
            "This model's maximum context length is 8192 tokens, however your input is longer. "
            "Please reduce your prompt; or completion length.",
            code="context_length_exceeded",
        )
    dimensions = body.get("dimensions")
    if dimensions is not None and (not isinstance(dimensions, int) or not 1 <= dimensions <= 3_072):
        raise ApiError(400, "Invalid value for 'dimensions': must be between 1 and 3072.", param="dimensions")


def _check_completions(body: JSON) -> None:
    if body.get("prompt") is None:
        raise missing("prompt")
    _check_numbers(body)


def _check_moderations(body: JSON) -> None:
    if body.get("input") in (None, "", []):
        raise missing("input")


def _check_drawing(body: JSON) -> None:
    if not isinstance(body.get("prompt"), str) or not body["prompt"]:
        raise missing("prompt")
    count = body.get("n")
    if count is not None and (type(count) is not int or not 1 <= count <= 10):
        raise ApiError(400, "Invalid 'n': expected a value between 1 and 10.", param="n")


def _check_video(body: JSON) -> None:
    if not isinstance(body.get("prompt"), str) or not body["prompt"]:
        raise missing("prompt")
    if str(body.get("seconds", "4")) not in ("4", "8", "12"):
        raise ApiError(
            400, "Invalid value: 'seconds'. Supported values are: '4', '8', and '12'.", param="seconds"
        )


def _check_edit(body: JSON) -> None:
    if not body.get("images"):
        raise missing("images")
    _check_drawing(body)


def _check_numbers(body: JSON) -> None:
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("n", 1, 128)):
        value = body.get(name)
        if value is not None and (not isinstance(value, (int, float)) or not low <= value <= high):
            raise ApiError(
                400,
                f"Invalid '{name}': expected a value between {low} and {high}.",
                code="decimal_out_of_range",
                param=name,
            )
    for name, low in (("max_tokens", 1), ("max_completion_tokens", 1), ("max_output_tokens", 16)):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int):
            raise _wrong_type(name, "an integer", value)
        if value < low:
            raise ApiError(
                400,
                f"Invalid '{name}': integer below minimum value. Expected a value >= {low}, but got "
                f"{value} instead.",
                code="integer_below_min_value",
                param=name,
            )
        if value > 200_000:
            raise ApiError(
                400,
                f"{name} is too large: {value}. This model supports at most 200000 completion tokens, "
                f"whereas you provided {value}.",
                code="invalid_value",
                param=name,
            )


def _check_schema(declared: Any, param: str, path: str) -> None:
    if not isinstance(declared, dict):
        raise missing(path)
    name = declared.get("name")
    if name is None:
        raise missing(f"{path}.name")
    if not isinstance(name, str) or not _SCHEMA_NAME.match(name):
        raise ApiError(
            400,
            f"Invalid '{path}.name': string does not match pattern. Expected a string that matches the "
            "pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            code="invalid_value",
            param=f"{path}.name",
        )
    schema = declared.get("schema")
    if schema is None and declared.get("strict"):
        raise missing(f"{path}.schema")
    if declared.get("strict") and isinstance(schema, dict):
        problem = find_strict_problem(schema)
        if problem:
            raise ApiError(400, f"Invalid schema for response_format '{name}': {problem}", param=param)


def find_strict_problem(schema: JSON) -> str | None:
    """What strict mode does not take in a schema, in OpenAI's words."""
    if schema.get("type") != "object":
        got = schema.get("type")
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'."
    return _find_problem(schema, ())


def _find_problem(schema: Any, context: tuple[str, ...]) -> str | None:
    if not isinstance(schema, dict):
        return None
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            return (
                f"In context={context!r}, 'additionalProperties' is required to be supplied and to be false."
            )
        names = schema.get("properties", {})
        missing = [name for name in names if name not in schema.get("required", ())]
        if missing:
            return (
                f"In context={context!r}, 'required' is required to be supplied and to be an array "
                "including every "
                f"key in properties. Missing '{missing[0]}'."
            )
    return next(filter(None, (_find_problem(part, path) for path, part in _parts(schema, context))), None)


def _parts(schema: JSON, context: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    parts = [
        ((*context, key, name), part)
        for key in ("properties", "$defs", "definitions")
        for name, part in schema.get(key, {}).items()
    ]
    parts += [((*context, "anyOf", str(i)), part) for i, part in enumerate(schema.get("anyOf", ()))]
    return [*parts, ((*context, "items"), schema.get("items"))]


_CHECKS: dict[str, Callable[[JSON], None]] = {
    CHAT: _check_chat,
    RESPONSES: _check_responses,
    EMBEDDINGS: _check_embeddings,
    COMPLETIONS: _check_completions,
    MODERATIONS: _check_moderations,
    DRAWINGS: _check_drawing,
    VIDEOS: _check_video,
    EDITS: _check_edit,
}
