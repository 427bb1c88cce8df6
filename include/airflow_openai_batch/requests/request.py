"""One line of the input: is it a request that can be sent, and what does it cost?

A batch fails as a whole for one line that OpenAI cannot read, so this is strict about what OpenAI is strict
about (JSON, custom_id, method, url, model) and leaves the rest of the body to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from airflow_openai_batch.job.request_line import read_envelope
from airflow_openai_batch.openai_api.endpoints import (
    BY_URL,
    MAX_EMBEDDING_INPUTS_PER_REQUEST,
    MEDIA,
    Endpoint,
)
from airflow_openai_batch.openai_api.models import DEFAULT_MODEL
from airflow_openai_batch.openai_api.rates import DEARER_TIERS
from airflow_openai_batch.requests.plain_bodies import PlainBody, PlainChatLine, read_plain
from airflow_openai_batch.requests.tokens.measure import measure_body
from airflow_openai_batch.wording import shorten

if TYPE_CHECKING:
    from airflow_openai_batch.requests.tokens.parts import Measure


class BadLineError(ValueError):
    """This line cannot be sent. The message says why and never quotes the body."""

    def __init__(self, code: str, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.custom_id = custom_id


class Request(msgspec.Struct, gc=False):
    """What the splitter needs to know of a request.

    Of a kind that costs little: one is made for every line, and none is in a cycle.
    """

    custom_id: str
    model: str
    url: str
    """Of the endpoint; one of `endpoints.BY_URL`."""
    inputs: int
    """Texts to embed; 0 for other endpoints."""
    is_plain: bool
    """Whether no token of it can stand for less than one byte of the line."""
    body: PlainBody | Measure

    def measure(self) -> Measure:
        """What of it costs input tokens."""
        return self.body.measure() if isinstance(self.body, PlainBody) else self.body


_decode_chat_line = msgspec.json.Decoder(PlainChatLine).decode
_decode_chat_lines = msgspec.json.Decoder(PlainChatLine).decode_lines
_decode_any = msgspec.json.Decoder().decode

_ID_KEY = b'"custom_id"'
_BEGIN, _CLOSE = b"{" + _ID_KEY, ord("}")
"""Of a line, as nearly all are written."""


_NO_MODELS: Mapping[str, str] = MappingProxyType({})


def read_request(line: bytes, models: Mapping[str, str] = _NO_MODELS) -> Request:
    """Take a line apart.

    :param line: without its newline; must be valid UTF-8 (see `check_utf8`).
    :param models: behind names of deployments: what images cost depends on the model.
    :raises BadLineError: if it cannot be sent.
    """
    chat = read_chat(line)
    return read_other(line, models) if chat is None else make_request(chat)


def read_chat(line: bytes) -> PlainChatLine | None:
    """A chat request of texts only, as most lines are; ``None`` for any other line, which is for `read_other`.

    :raises BadLineError: if it is open which id is meant.
    """
    if line.count(_ID_KEY) != 1:
        _refuse_second_id(line)
    try:
        chat = _decode_chat_line(line)
    except (msgspec.MsgspecError, RecursionError):
        return None
    body = chat.body
    return chat if chat.custom_id and body.model and not body.stream else None


def read_chats(data: bytes, begins: Sequence[int], ends: Sequence[int]) -> list[PlainChatLine] | None:
    """As `read_chat`, of some lines in a row; ``None`` where one of them is anything else, or may be.

    :param begins: of the lines in ``data``, which must be valid UTF-8.
    :param ends: of the lines, before their newlines.
    """
    begin, end = begins[0], ends[-1]
    # What begins and ends so is a value at least; as many values and keys as lines are then one for each.
    if not all(
        data.startswith(_BEGIN, first) and data[last - 1] == _CLOSE
        for first, last in zip(begins, ends, strict=True)
    ):
        return None
    if data.count(_ID_KEY, begin, end) != len(begins):
        return None
    try:
        chats = _decode_chat_lines(memoryview(data)[begin:end])
    except (msgspec.MsgspecError, RecursionError):
        return None
    is_plain = len(chats) == len(begins) and all(
        chat.custom_id and chat.body.model and not chat.body.stream for chat in chats
    )
    return chats if is_plain else None


def make_request(chat: PlainChatLine) -> Request:
    """As `read_request` makes it."""
    return Request(chat.custom_id, chat.body.model, chat.url, 0, True, chat.body)


def read_other(line: bytes, models: Mapping[str, str] = _NO_MODELS) -> Request:
    """A line that is no chat request of texts only.

    :raises BadLineError: if it cannot be sent.
    """
    try:
        envelope = read_envelope(line)
    except (msgspec.MsgspecError, RecursionError):
        _explain(line)
    custom_id, body = envelope.custom_id, envelope.body
    endpoint = BY_URL.get(envelope.url)
    if endpoint is None or envelope.method != "POST" or not custom_id:
        _explain(line)
    plain = read_plain(body, endpoint)
    if plain is None:
        return _read_any_body(custom_id, endpoint, body, models)
    return Request(
        custom_id, plain.model, endpoint.value, _check_inputs(plain.inputs, custom_id), True, plain
    )


def _read_any_body(
    custom_id: str, endpoint: Endpoint, raw: msgspec.Raw, models: Mapping[str, str]
) -> Request:
    bad = partial(BadLineError, custom_id=custom_id)
    try:
        body = _decode_any(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise bad("invalid_json", f"body {_json_problem(error)}") from None
    if not isinstance(body, dict):
        raise bad("invalid_body", f"body is {_kind(body)}; it must be an object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        given = "missing" if "model" not in body else _kind(model) if model != "" else "empty"
        raise bad("missing_model", f"body.model is {given}; name the model, for instance {DEFAULT_MODEL}")
    if body.get("stream"):
        raise bad("stream", "body.stream is set; a batch cannot stream. Remove it")
    _check_prompted(body, endpoint, bad)
    try:
        measure = measure_body({**body, "model": models[model]} if model in models else body, endpoint)
    except RecursionError:
        raise bad("invalid_json", "body is nested too deeply") from None
    tier = body.get("service_tier")
    measure.is_dearer = isinstance(tier, str) and tier in DEARER_TIERS
    return Request(
        custom_id, model, endpoint.value, _check_inputs(measure.embedding_inputs, custom_id), False, measure
    )


def _check_prompted(body: dict[str, Any], endpoint: Endpoint, bad: partial[BadLineError]) -> None:
    """What pictures and videos are made from. A file cannot stand in a line, as it does in a form."""
    if endpoint not in MEDIA:
        return
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        given = "missing" if "prompt" not in body else _kind(prompt) if prompt != "" else "empty"
        raise bad("missing_prompt", f"body.prompt is {given}; say what is to be made")
    if endpoint is not Endpoint.IMAGE_EDITS:
        return
    images = body.get("images", body.get("image"))  # OpenAI says images, some others image
    if isinstance(images, (str, dict)) and images:
        return
    if not isinstance(images, list) or not images:
        given = "missing" if "images" not in body else _kind(images) if images != [] else "empty"
        raise bad(
            "missing_images",
            f'body.images is {given}; name what is to be edited, as [{{"file_id": "file-..."}}] or [{{"image_url": '
            '"data:image/png;base64,..."}]: a batch takes no files beside its lines',
        )


def _check_inputs(inputs: int, custom_id: str) -> int:
    if inputs > MAX_EMBEDDING_INPUTS_PER_REQUEST:
        raise BadLineError(
            "too_many_inputs",
            f"body.input has {inputs:,} texts, limit {MAX_EMBEDDING_INPUTS_PER_REQUEST:,} per request. "
            "Split it into more requests",
            custom_id,
        )
    return inputs


def check_utf8(line: bytes) -> None:
    """:raises BadLineError: if the line is not UTF-8; the JSON reader looks only at what it uses."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise BadLineError(
            "invalid_utf8",
            f"is not valid UTF-8 (byte {error.start + 1:,} of the line). Convert the file to UTF-8",
        ) from None


def _explain(line: bytes) -> NoReturn:
    """Find out what is wrong with a line, slowly: it is known to be bad."""
    try:
        value = _decode_any(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        if b"\0" in line:
            raise BadLineError("invalid_json", "has NUL bytes: the file is damaged or not UTF-8") from None
        raise BadLineError("invalid_json", _json_problem(error)) from None
    if not isinstance(value, dict):
        raise BadLineError(
            "not_an_object", f"is {_kind(value)}; every line must be one request object (JSON Lines)"
        )
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str):
        problem = f"is {_kind(custom_id)}" if "custom_id" in value else "is missing"
        raise BadLineError("invalid_custom_id", f"custom_id {problem}; it must be a string, in quotes")
    if not custom_id:
        raise BadLineError("invalid_custom_id", "custom_id is empty; every request needs one of its own")
    _explain_rest(value, partial(BadLineError, custom_id=custom_id))
    raise BadLineError("invalid_json", "cannot be read the same way by every JSON reader", custom_id)


def _explain_rest(value: dict[str, Any], bad: partial[BadLineError]) -> None:
    method, url = value.get("method"), value.get("url")
    if method != "POST":
        raise bad("invalid_method", f"method is {_shown(value, 'method')}; it must be POST")
    if not isinstance(url, str) or url not in BY_URL:
        raise bad("invalid_url", f"url is {_shown(value, 'url')}; it must be one of {', '.join(BY_URL)}")
    if not isinstance(value.get("body"), dict):
        problem = _kind(value["body"]) if "body" in value else "missing"
        raise bad("invalid_body", f"body is {problem}; it must be an object")


def _refuse_second_id(line: bytes) -> None:
    """Which of two ids counts is open, and answers are matched by it. Of other keys the last one counts, as for
    every JSON reader in common use.
    """
    try:
        pairs = json.loads(line, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return  # said better by who reads it next
    if (
        isinstance(pairs, list)
        and sum(isinstance(pair, tuple) and pair[0] == "custom_id" for pair in pairs) > 1
    ):
        raise BadLineError("duplicate_key", "custom_id stands there twice; which one counts is open")


_AT_PATH = re.compile(r" - at `.*")


def _json_problem(error: Exception) -> str:
    """What msgspec says, without the path, which could show names from the body."""
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    reason = _AT_PATH.sub("", str(error)).removeprefix("JSON is malformed: ")
    if reason == "Input data was truncated":
        return "is not valid JSON: it ends too early, or half of a surrogate pair stands alone"
    return f"is not valid JSON: {reason}"


_KINDS: dict[type, str] = {dict: "an object", list: "a JSON array", str: "a string", bool: "true or false"}


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return _KINDS.get(type(value), "a number")


def _shown(value: dict[str, Any], key: str) -> str:
    if key not in value:
        return "missing"
    found = value[key]
    return json.dumps(shorten(found)) if isinstance(found, str) else _kind(found)
