"""The endpoints that a batch of text requests can go to."""

from __future__ import annotations

from enum import StrEnum


class Endpoint(StrEnum):
    """The ``url`` of a request line; the value is what OpenAI calls it.

    Source: the Batch API guide. The image and video endpoints, which it names too, take no text batch.
    """

    RESPONSES = "/v1/responses"
    CHAT_COMPLETIONS = "/v1/chat/completions"
    EMBEDDINGS = "/v1/embeddings"
    COMPLETIONS = "/v1/completions"
    MODERATIONS = "/v1/moderations"


BY_URL: dict[str, Endpoint] = {endpoint.value: endpoint for endpoint in Endpoint}

MAX_EMBEDDING_INPUTS_PER_REQUEST = 2_048
"""Source: the embeddings reference."""

MAX_EMBEDDING_TOKENS_PER_REQUEST = 300_000
"""Summed over all inputs of one request. Source: the embeddings reference."""
