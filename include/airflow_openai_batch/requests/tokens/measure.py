"""Taking a request body apart into what has a fixed cost and the texts that must be counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.models import encoding_of
from airflow_openai_batch.requests.tokens.drawings import count_drawing_tokens
from airflow_openai_batch.requests.tokens.parts import (
    DEFAULT_COMPLETION_TOKENS,
    Measure,
    allow_output,
    as_json,
    count_choices,
)
from airflow_openai_batch.requests.tokens.tools import measure_functions

if TYPE_CHECKING:
    from collections.abc import Callable


TOKENS_PER_MESSAGE = 3
"""Source: OpenAI's cookbook; the same for every chat model since gpt-3.5-turbo-0613."""
TOKENS_PER_NAME = 1
TOKENS_FOR_REPLY = 3
"""Every reply is primed with ``<|start|>assistant<|message|>``."""

DEFAULT_VIDEO_SECONDS = 4
"""Source: the client's ``video_create_params.py``."""

ONE_TOKEN_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
REPEATING_ROLES = frozenset({"system", "developer"})
"""Their text is likely to be the same in every request, so its count is remembered."""


def measure_body(body: dict[str, Any], endpoint: Endpoint) -> Measure:
    """What of this body costs input tokens.

    What OpenAI would refuse costs nothing here; it is not this function's business to say so.
    """
    measure = Measure()
    _MEASURE_BY_ENDPOINT[endpoint](body, measure)
    return measure


def _measure_chat(body: dict[str, Any], measure: Measure) -> None:
    model = str(body.get("model"))
    measure.fixed_tokens += TOKENS_FOR_REPLY
    for message in _dicts(body.get("messages")):
        _measure_message(message, measure, model)
    functions = [tool.get("function") for tool in _dicts(body.get("tools")) if tool.get("type") == "function"]
    functions += _dicts(body.get("functions"))
    cl100k = encoding_of(model)[0] == "cl100k_base"
    measure_functions(_dicts(functions), measure, cl100k=cl100k)
    measure.repeated.extend(
        as_json(tool) for tool in _dicts(body.get("tools")) if tool.get("type") != "function"
    )
    _measure_format(body.get("response_format"), measure)
    limit = body.get("max_completion_tokens")
    measure.output_tokens = allow_output(body.get("max_tokens") if limit is None else limit, body.get("n"))
    measure.choices = count_choices(body.get("n"))
    if body.get("web_search_options") is not None:
        measure.doubt("lower")


def _measure_message(message: dict[str, Any], measure: Measure, model: str) -> None:
    measure.fixed_tokens += TOKENS_PER_MESSAGE
    role = message.get("role")
    _measure_role(role, measure)
    texts = measure.repeated if role in REPEATING_ROLES else measure.texts
    if isinstance(name := message.get("name"), str):
        measure.fixed_tokens += TOKENS_PER_NAME
        texts.append(name)
    _measure_content(message.get("content"), texts, measure, model)
    for key in ("refusal", "tool_call_id"):
        if isinstance(value := message.get(key), str):
            texts.append(value)
    for key in ("tool_calls", "function_call"):
        if message.get(key):
            texts.append(as_json(message[key]))
    if message.get("audio"):  # an earlier answer, known to OpenAI by an id
        measure.doubt("lower")


def _measure_role(role: object, measure: Measure) -> None:
    if role in ONE_TOKEN_ROLES:
        measure.fixed_tokens += 1
    elif isinstance(role, str):
        measure.texts.append(role)


def _measure_content(content: object, texts: list[str], measure: Measure, model: str) -> None:
    """Content of a message, in chat or responses: a text or a list of parts."""
    if isinstance(content, str):
        texts.append(content)
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, dict):
                _measure_part(part, texts, measure, model)


def _measure_part(part: dict[str, Any], texts: list[str], measure: Measure, model: str) -> None:
    kind = part.get("type")
    if kind in ("image_url", "input_image"):
        image = part.get("image_url")
        if isinstance(image, dict):
            measure.add_image(image.get("url"), image.get("detail"), model)
        else:
            measure.add_image(image, part.get("detail"), model)
        return
    for key in ("text", "refusal"):
        if isinstance(value := part.get(key), str):
            texts.append(value)
    if kind not in ("text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"):
        measure.doubt("lower")  # files, audio, and what is not known yet


def _measure_format(response_format: object, measure: Measure) -> None:
    """A JSON schema stands in the prompt; how, OpenAI does not say, so its JSON is counted."""
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        measure.repeated.append(as_json(response_format.get("json_schema", response_format)))


def _measure_responses(body: dict[str, Any], measure: Measure) -> None:
    model = str(body.get("model"))
    measure.fixed_tokens += TOKENS_FOR_REPLY
    if isinstance(instructions := body.get("instructions"), str):
        measure.fixed_tokens += TOKENS_PER_MESSAGE + 1
        measure.repeated.append(instructions)
    given = body.get("input")
    if isinstance(given, str):
        measure.fixed_tokens += TOKENS_PER_MESSAGE + 1
        measure.texts.append(given)
    for item in _dicts(given):
        _measure_item(item, measure, model)
    _measure_response_tools(_dicts(body.get("tools")), measure, model)
    text = body.get("text")
    _measure_format(text.get("format") if isinstance(text, dict) else None, measure)
    measure.output_tokens = allow_output(body.get("max_output_tokens"))
    if any(body.get(key) is not None for key in ("previous_response_id", "conversation", "prompt")):
        measure.doubt("lower")


_ITEMS_AS_JSON = frozenset({"function_call", "custom_tool_call", "reasoning", "mcp_call"})


def _measure_item(item: dict[str, Any], measure: Measure, model: str) -> None:
    """One item of a responses input: a message, or what a tool was asked and said."""
    kind = item.get("type", "message")
    measure.fixed_tokens += TOKENS_PER_MESSAGE
    if kind == "message":
        role = item.get("role")
        _measure_role(role, measure)
        texts = measure.repeated if role in REPEATING_ROLES else measure.texts
        _measure_content(item.get("content"), texts, measure, model)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        _measure_content(item.get("output"), measure.texts, measure, model)
    else:
        measure.texts.append(as_json(item))
        if kind not in _ITEMS_AS_JSON or item.get("encrypted_content"):
            measure.doubt("lower")


def _measure_response_tools(tools: list[dict[str, Any]], measure: Measure, model: str) -> None:
    functions = [tool for tool in tools if tool.get("type") == "function"]
    measure_functions(functions, measure, cl100k=encoding_of(model)[0] == "cl100k_base")
    for tool in tools:
        if tool.get("type") == "custom":
            measure.repeated.append(as_json(tool))
        elif tool.get("type") != "function":
            measure.doubt("lower")  # hosted: what it puts into the prompt is known to OpenAI only


def _measure_embeddings(body: dict[str, Any], measure: Measure) -> None:
    measure.output_tokens = 0
    _measure_inputs(body.get("input"), measure)


def _measure_inputs(given: object, measure: Measure) -> None:
    """One text or many, or the same as token numbers."""
    if isinstance(given, str):
        measure.embedding_inputs = 1
        measure.texts.append(given)
    elif isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        measure.embedding_inputs = 1
        measure.fixed_tokens += len(given)
        measure.longest_tokens = len(given)
    elif isinstance(given, list):
        measure.embedding_inputs = len(given)
        for item in given:
            if isinstance(item, str):
                measure.texts.append(item)
            elif isinstance(item, list):
                measure.fixed_tokens += len(item)
                measure.longest_tokens = max(measure.longest_tokens, len(item))


def _measure_completions(body: dict[str, Any], measure: Measure) -> None:
    _measure_inputs(body.get("prompt"), measure)
    prompts = max(1, measure.embedding_inputs)
    measure.embedding_inputs = measure.longest_tokens = 0
    limit = body.get("max_tokens")
    choices = max((body[key] for key in ("n", "best_of") if type(body.get(key)) is int), default=1)
    measure.output_tokens = allow_output(
        DEFAULT_COMPLETION_TOKENS if limit is None else limit, choices, prompts
    )
    measure.choices = count_choices(choices) * prompts
    if isinstance(suffix := body.get("suffix"), str):
        measure.texts.append(suffix)


def _measure_moderations(body: dict[str, Any], measure: Measure) -> None:
    measure.output_tokens = 0
    given = body.get("input")
    parts = given if isinstance(given, list) else [given]
    _measure_content(parts, measure.texts, measure, str(body.get("model")))


def _measure_drawing(body: dict[str, Any], measure: Measure) -> None:
    model = str(body.get("model"))
    _measure_prompt(body, measure)
    for image in [*_dicts(body.get("images")), *_dicts([body.get("mask")])]:
        measure.add_image(image.get("image_url"), None, model)
    measure.choices = count_choices(body.get("n"))
    measure.output_tokens = allow_output(count_drawing_tokens(model, body), measure.choices)


def _measure_video(body: dict[str, Any], measure: Measure) -> None:
    """Videos are billed by the second: so many stand in the place of output tokens."""
    _measure_prompt(body, measure)
    seconds = body.get("seconds", DEFAULT_VIDEO_SECONDS)
    if isinstance(seconds, str) and seconds.isdecimal():  # as OpenAI has it
        seconds = int(seconds)
    measure.output_tokens = allow_output(seconds)


def _measure_prompt(body: dict[str, Any], measure: Measure) -> None:
    if isinstance(prompt := body.get("prompt"), str):
        measure.texts.append(prompt)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


_MEASURE_BY_ENDPOINT: dict[Endpoint, Callable[[dict[str, Any], Measure], None]] = {
    Endpoint.CHAT_COMPLETIONS: _measure_chat,
    Endpoint.RESPONSES: _measure_responses,
    Endpoint.EMBEDDINGS: _measure_embeddings,
    Endpoint.COMPLETIONS: _measure_completions,
    Endpoint.MODERATIONS: _measure_moderations,
    Endpoint.IMAGE_GENERATIONS: _measure_drawing,
    Endpoint.IMAGE_EDITS: _measure_drawing,
    Endpoint.VIDEOS: _measure_video,
}
