"""What the emulator reads out of a request body: its texts, its size in tokens, its model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

JSON = dict[str, Any]

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
DRAWINGS = "/v1/images/generations"
EDITS = "/v1/images/edits"
VIDEOS = "/v1/videos"
BATCH_ENDPOINTS = (CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS, MODERATIONS, DRAWINGS, EDITS, VIDEOS)

_PROMPTED = (COMPLETIONS, DRAWINGS, EDITS, VIDEOS)

CountTokens = Callable[[JSON, str], int]
"""Input tokens of a body sent to an endpoint."""

_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def canonical(body: Any) -> bytes:
    """The body as JSON with sorted keys: equal for equal requests, however they were written, and whatever tier they
    ask for: the same question through flex is no other."""
    if isinstance(body, dict) and "service_tier" in body:
        body = {name: value for name, value in body.items() if name != "service_tier"}
    return msgspec.json.encode(body, order="deterministic")


def digest_of(canonical_body: bytes) -> bytes:
    """16 bytes that stand for the body: books, chance and faults go by them."""
    return blake2b(canonical_body, digest_size=16).digest()


def base_model(model: str) -> str:
    """The model without the date of its snapshot: they share a queue."""
    return _SNAPSHOT.sub("", model)


@lru_cache(maxsize=512)
def is_known_model(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def texts_of(body: JSON, endpoint: str) -> tuple[str, str]:
    """Instructions, and the text they are about: the system messages and the last message of the user."""
    if endpoint == CHAT:
        return _split_messages(body.get("messages"))
    if endpoint == RESPONSES:
        source = body.get("input")
        told, text = ("", source) if isinstance(source, str) else _split_messages(source)
        return f"{body.get('instructions') or ''}\n{told}".strip(), text
    source = body.get("prompt") if endpoint in _PROMPTED else body.get("input")
    return "", " ".join(inputs_of(source))


def inputs_of(source: Any) -> list[str]:
    """The texts of ``input`` or ``prompt``: one, several, or lists of token numbers."""
    if isinstance(source, str):
        return [source]
    if not isinstance(source, list):
        return []
    if source and isinstance(source[0], int):
        return [" ".join(map(str, source))]
    if source and isinstance(source[0], list):
        return [" ".join(map(str, tokens)) for tokens in source]
    return [part if isinstance(part, str) else str(part.get("text", "")) for part in source]


def _split_messages(messages: Any) -> tuple[str, str]:
    told: list[str] = []
    text = ""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        content = _content_text(message.get("content"))
        if message.get("role") in ("system", "developer"):
            told.append(content)
        elif message.get("role") == "user":
            text = content
    return "\n".join(told), text


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict))


def estimate_tokens(body: JSON, endpoint: str) -> int:
    """About the input tokens: four characters each, 3 per message, 3 for the reply, 85 per image."""
    if endpoint in (DRAWINGS, EDITS, VIDEOS):
        return text_tokens(str(body.get("prompt") or "")) + 85 * len(body.get("images") or ())
    if endpoint in (EMBEDDINGS, COMPLETIONS, MODERATIONS):
        source = body.get("prompt") if endpoint == COMPLETIONS else body.get("input")
        return sum(_input_tokens(source))
    messages = body.get("messages") if endpoint == CHAT else body.get("input")
    total = 3 + text_tokens(str(body.get("instructions") or ""))
    if isinstance(messages, str):
        total += text_tokens(messages)
    elif isinstance(messages, list):
        total += sum(_message_tokens(message) for message in messages if isinstance(message, dict))
    for name in ("tools", "response_format", "text"):
        if body.get(name):
            total += len(msgspec.json.encode(body[name])) // 4
    return total


def _input_tokens(source: Any) -> Iterator[int]:
    if isinstance(source, list) and source and isinstance(source[0], int):
        yield len(source)
    elif isinstance(source, list) and source and isinstance(source[0], list):
        yield from map(len, source)
    else:
        yield from map(text_tokens, inputs_of(source))


def _message_tokens(message: JSON) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return 3 + text_tokens(content)
    total = 3
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            total += text_tokens(str(part.get("text") or "")) if "text" in part else 85
    return total


def text_tokens(text: str) -> int:
    return (len(text) + 3) // 4
