"""JSON as servers really send it: fast where it is clean, forgiving where it is not.

msgspec and orjson refuse lone surrogates (``"\\ud800"``), which models do write; Parquet and every
UTF-8 file refuse them too. So what the fast decoders refuse goes through the standard library, and
what cannot be written as UTF-8 becomes U+FFFD.
"""

from __future__ import annotations

import json
from typing import Any

import orjson


class UnreadableJSONError(ValueError):
    """Not JSON, even read forgivingly. Carries no content."""


def decode(data: bytes | str) -> Any:
    """The value of a JSON text; strings in it can always be written as UTF-8.

    :raises UnreadableJSONError: if it is not JSON, or nested too deeply to be read.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _decode_forgivingly(data)


def clean(text: str) -> str:
    """The text with what UTF-8 cannot hold replaced by U+FFFD; surrogate pairs are joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def encode(value: Any) -> str:
    """JSON text of a decoded value."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, RecursionError):
        return clean(json.dumps(value, ensure_ascii=False, default=str))


def _decode_forgivingly(data: bytes | str) -> Any:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        return _clean_all(json.loads(text, strict=False))
    except (ValueError, RecursionError) as error:
        raise UnreadableJSONError(type(error).__name__) from None


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean_all(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _clean_all(item) for key, item in value.items()}
    return value
