"""What a response body has for the row: the parts, and what may be wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.openai_api.response_bodies import Details, TokenDetails, UsageBody

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from airflow_openai_batch.openai_api import response_bodies

    Vector = npt.NDArray[np.float32]

CONTENT_FILTER = "content_filter"
REFUSAL = "refusal"
TRUNCATED = "truncated"
UNREADABLE = "unreadable_answer"
VIDEO_UNFINISHED = "video_unfinished"
"""The video that a batch has begun was not made when it was looked at last, or could not be fetched."""
MISSING_PARTS = "missing_parts"
"""Fewer vectors, or results of a moderation, than inputs were sent."""

MAX_TOKEN_COUNT = 2**53
"""A larger "number of tokens" is no number of tokens."""

TEXT_PARTS = frozenset({None, "text", "output_text"})
"""Others (what some models think aloud, what is not known yet) are no part of the answer's text."""


class Usage(msgspec.Struct):
    """Tokens of one answer; None where the server did not say."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    long_cache_write_tokens: int | None = None
    """Of these, those that are kept for twelve hours."""
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_image_tokens: int | None = None
    """Part of the input; they have a price of their own, as those that follow."""
    input_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    output_audio_tokens: int | None = None
    seconds: float | None = None
    """Of a video: it is billed by them."""


class Choice(msgspec.Struct):
    """One of several answers to a request."""

    text: str | None = None
    calls: str | None = None
    """JSON text of its tool calls."""

    @property
    def shown(self) -> str | None:
        """What stands in the column ``choices``."""
        return self.calls if self.text is None else self.text


class Media(msgspec.Struct):
    """A file that an answer brought, or says where it is."""

    data: bytes | None = None
    """None where there is only its address, or where it lies in the job directory already."""
    stored_bytes: int | None = None
    """Size, where it lies in the job directory already, below the name that it gets there."""
    told_type: str | None = None
    """What the server says that it is: ``image/png``. What its first bytes say counts more."""
    revised_prompt: str | None = None
    url: str | None = None


class ResponseContent(msgspec.Struct):
    """The parts of a response body that have a column of their own."""

    content: str | None = None
    """Text of the first choice, or of the final message."""
    pieces: list[str] | None = None
    """Of which ``content`` consists, where there is more than one: messages and their parts."""
    choices: list[Choice] | None = None
    """All of them, where there is more than one."""
    refusal: str | None = None
    structured: str | None = None
    """JSON text of tool calls or moderation results: structured whatever the request's format."""
    embeddings: list[Vector | None] | None = None
    """One for each input; None for an input whose vector did not come."""
    media: list[Media] | None = None
    """Pictures, sound, videos."""
    finish_reason: str | None = None
    """The worst, where there are several choices."""
    model: str | None = None
    usage: Usage | None = None
    service_tier: str | None = None
    defect: str | None = None
    """Why it is not a whole answer: ``content_filter``, ``refusal``, ``truncated``,
    ``unreadable_answer``, ``missing_parts``, or the code the response itself gives (``server_error``)."""
    defect_message: str | None = None
    has_text: bool = True
    """False where no text is due: tool calls, vectors, moderation, pictures."""


def read_usage(found: response_bodies.Usage) -> Usage | None:
    if not isinstance(found, UsageBody):
        return None
    if found.input_tokens is not None:
        return _to_usage(
            found.input_tokens, found.output_tokens, found.input_tokens_details, found.output_tokens_details
        )
    return _to_usage(
        found.prompt_tokens,
        found.completion_tokens,
        found.prompt_tokens_details,
        found.completion_tokens_details,
    )


def _to_usage(tokens_in: Any, tokens_out: Any, details_in: Details, details_out: Details) -> Usage:
    read = details_in if isinstance(details_in, TokenDetails) else _NO_DETAILS
    written = details_out if isinstance(details_out, TokenDetails) else _NO_DETAILS
    return Usage(
        _count(tokens_in),
        _count(read.cached_tokens),
        _count(read.cache_write_tokens),
        _count_long_writes(read.cache_write_tokens_details),
        _count(tokens_out),
        _count(written.reasoning_tokens),
        _count(read.image_tokens),
        _count(read.audio_tokens),
        _count(written.image_tokens),
        _count(written.audio_tokens),
    )


_NO_DETAILS = TokenDetails()


def _count_long_writes(details: Any) -> int | None:
    return _count(details.get("ttl_12h_tokens")) if isinstance(details, dict) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_TOKEN_COUNT else None


def find_text(content: Any) -> str | None:
    """Content is a string, or with some servers, and in responses, a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [string(part.get("text")) for part in parts_of(content) if is_kind(part, TEXT_PARTS)]
        return "".join(text for text in texts if text is not None) if texts else None
    return None


def is_kind(item: dict[str, Any], kinds: frozenset[str | None]) -> bool:
    """Whatever stands as its ``type``: a server's list or object there is no kind."""
    kind = item.get("type")
    return kind in kinds if kind is None or isinstance(kind, str) else False


def parts_of(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
