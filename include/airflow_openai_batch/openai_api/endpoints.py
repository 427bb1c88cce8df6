"""The endpoints that a batch can go to."""

from __future__ import annotations

from enum import StrEnum


class Endpoint(StrEnum):
    """The ``url`` of a request line; the value is what OpenAI calls it.

    Source: the Batch API guide, and what the client's ``batches.create`` takes. Bodies are JSON for all of them:
    pictures that are edited stand in them as a URL, a data URL or a file id.
    """

    RESPONSES = "/v1/responses"
    CHAT_COMPLETIONS = "/v1/chat/completions"
    EMBEDDINGS = "/v1/embeddings"
    COMPLETIONS = "/v1/completions"
    MODERATIONS = "/v1/moderations"
    IMAGE_GENERATIONS = "/v1/images/generations"
    IMAGE_EDITS = "/v1/images/edits"
    VIDEOS = "/v1/videos"


BY_URL: dict[str, Endpoint] = {endpoint.value: endpoint for endpoint in Endpoint}

IMAGES = frozenset({Endpoint.IMAGE_GENERATIONS, Endpoint.IMAGE_EDITS})
MEDIA = IMAGES | {Endpoint.VIDEOS}
"""What they answer with is files."""

WITHOUT_OUTPUT = frozenset({Endpoint.EMBEDDINGS, Endpoint.MODERATIONS})
"""Their answers have no tokens of output."""

MAX_EMBEDDING_INPUTS_PER_REQUEST = 2_048
"""Source: the embeddings reference."""

MAX_EMBEDDING_TOKENS_PER_REQUEST = 300_000
"""Summed over all inputs of one request. Source: the embeddings reference."""
