"""The bodies that nearly every request has, read fast: nothing but texts.

Whatever is not as plain as this is left to `tokens.measure`; both agree on every body that this one takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import msgspec

from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.rates import DEARER_TIERS
from airflow_openai_batch.requests.tokens.measure import (
    ONE_TOKEN_ROLES,
    REPEATING_ROLES,
    TOKENS_FOR_REPLY,
    TOKENS_PER_MESSAGE,
)
from airflow_openai_batch.requests.tokens.parts import (
    MAX_ALLOWED_TOKENS,
    Measure,
    allow_output,
    count_choices,
)


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str


class PlainBody(msgspec.Struct, gc=False):
    """A body of texts, taken apart only where its tokens must be counted."""

    model: str
    stream: bool | None = None
    service_tier: str | None = None

    inputs: ClassVar[int] = 0
    """Texts to embed."""
    choices: ClassVar[int] = 1
    """Answers that are written and billed."""

    @property
    def is_dearer(self) -> bool:
        """As `Measure.is_dearer`."""
        return self.service_tier is not None and self.service_tier in DEARER_TIERS

    @property
    def output_tokens(self) -> int | None:
        """As `Measure.output_tokens`, without measuring."""
        raise NotImplementedError

    def measure(self) -> Measure:
        raise NotImplementedError


class _Chat(PlainBody, kw_only=True, gc=False):
    messages: list[_Message]
    tools: None = None
    functions: None = None
    response_format: None = None
    web_search_options: None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None

    @property
    def output_tokens(self) -> int | None:
        limit = self.max_completion_tokens
        if limit is None:
            limit = self.max_tokens
        if limit is None or (self.n is None and 0 <= limit <= MAX_ALLOWED_TOKENS):
            return limit
        return allow_output(limit, self.n)

    @property
    def choices(self) -> int:  # type: ignore[override]
        return count_choices(self.n)

    def measure(self) -> Measure:
        texts: list[str] = []
        repeated: list[str] = []
        fixed = TOKENS_FOR_REPLY + (TOKENS_PER_MESSAGE + 1) * len(self.messages)
        for message in self.messages:
            role = message.role
            if role in REPEATING_ROLES:
                repeated.append(message.content)
            else:
                texts.append(message.content)
            if role not in ONE_TOKEN_ROLES:
                fixed -= 1
                texts.append(role)
        return Measure(fixed, texts, repeated, output_tokens=self.output_tokens)


class _Responses(PlainBody, kw_only=True, gc=False):
    input: str
    instructions: str | None = None
    tools: None = None
    text: None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    max_output_tokens: int | None = None

    @property
    def output_tokens(self) -> int | None:
        return allow_output(self.max_output_tokens)

    def measure(self) -> Measure:
        fixed = TOKENS_FOR_REPLY + TOKENS_PER_MESSAGE + 1
        output = self.output_tokens
        if self.instructions is None:
            return Measure(fixed, [self.input], output_tokens=output)
        fixed += TOKENS_PER_MESSAGE + 1
        return Measure(fixed, [self.input], [self.instructions], output_tokens=output)


class _Embeddings(PlainBody, kw_only=True, gc=False):
    input: str | list[str]

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return 1 if isinstance(self.input, str) else len(self.input)

    @property
    def output_tokens(self) -> int | None:
        return 0

    def measure(self) -> Measure:
        texts = [self.input] if isinstance(self.input, str) else self.input
        return Measure(0, texts, embedding_inputs=len(texts), output_tokens=0)


class PlainChatLine(msgspec.Struct, gc=False):
    """A whole line that asks for a chat completion: what most lines are, read in one go."""

    custom_id: str
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: _Chat


_DECODE: dict[Endpoint, Callable[[msgspec.Raw], PlainBody]] = {
    Endpoint.CHAT_COMPLETIONS: msgspec.json.Decoder(_Chat).decode,
    Endpoint.RESPONSES: msgspec.json.Decoder(_Responses).decode,
    Endpoint.EMBEDDINGS: msgspec.json.Decoder(_Embeddings).decode,
}


def read_plain(raw: msgspec.Raw, endpoint: Endpoint) -> PlainBody | None:
    """The body if it is plain, with a model and without streaming; else None."""
    decode = _DECODE.get(endpoint)
    if decode is None:
        return None
    try:
        body = decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return body if body.model and not body.stream else None
