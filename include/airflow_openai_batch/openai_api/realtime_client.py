"""What sending in real time needs of the ``openai`` client: a body posted as it is, and how that fails."""

from __future__ import annotations

from typing import Any

import openai
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncOpenAI, OpenAIError

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncOpenAI",
    "OpenAIError",
    "post",
    "wait_for_answers",
]

_CONNECT_S = 5.0
"""As the client has it."""


async def post(client: AsyncOpenAI, endpoint: str, body: bytes) -> Any:
    """The answer to one request, whatever is in it: a response of the client's HTTP library.

    :param endpoint: ``/v1/chat/completions``.
    :raises APIStatusError: for a status of 300 or more.
    :raises APIConnectionError: if none came; of these, `APITimeoutError` if none came in time.
    """
    answer = await client.post(
        endpoint.removeprefix("/v1"), cast_to=openai.HttpxBinaryResponseContent, content=body
    )
    return answer.response


def wait_for_answers(client: AsyncOpenAI, at_least_s: float) -> AsyncOpenAI:
    """The same client with so much patience for each answer; one that has more of it keeps it."""
    timeout = client.timeout
    patience_s = timeout.read if isinstance(timeout, openai.Timeout) else timeout
    if patience_s is None or patience_s >= at_least_s:
        return client
    return client.with_options(timeout=openai.Timeout(at_least_s, connect=_CONNECT_S))
