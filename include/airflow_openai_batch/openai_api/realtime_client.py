"""What sending in real time needs of the ``openai`` client: a body posted as it is, and how that fails."""

from __future__ import annotations

from typing import Any

import openai
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncOpenAI

__all__ = ["APIConnectionError", "APIError", "APIStatusError", "APITimeoutError", "AsyncOpenAI", "post"]


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
