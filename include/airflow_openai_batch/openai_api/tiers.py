"""What OpenAI grants an account by its usage tier, per model.

Source: the rate limits on OpenAI's model pages. They change, differ from what an account was given by hand, and from
what live errors say: numbers in the connection's extra win over these, and a refusal's number wins over all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_openai_batch.openai_api.models import base_model

Tier = Literal["free", "1", "2", "3", "4", "5"]
TIERS: tuple[Tier, ...] = ("free", "1", "2", "3", "4", "5")

ENQUEUED_EMBEDDING_REQUESTS = 1_000_000
"""What the queue of an embedding model holds, in any tier, beside its tokens. Source: OpenAI's refusals."""

REQUESTS_PER_MINUTE: dict[Tier, int] = {
    "free": 3,
    "1": 500,
    "2": 5_000,
    "3": 5_000,
    "4": 10_000,
    "5": 10_000,
}
"""The least that a text model has in a tier; OpenAI's x-ratelimit headers tell of more."""

REALTIME_CONCURRENCY: dict[Tier, int] = {"free": 1, "1": 10, "2": 20, "3": 50, "4": 50, "5": 50}
"""Ours, not OpenAI's: requests in the air at once that come close to the limits with answers of a few seconds."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Models with the same limits; from tier 1 to tier 5, and without the free one, where batches are not sold."""

    enqueued_tokens: tuple[int, ...]
    tokens_per_minute: tuple[int, ...]


_K, _M, _B = 10**3, 10**6, 10**9

_GPT_4 = _Family(
    (90 * _K, 1_350 * _K, 50 * _M, 200 * _M, 5 * _B), (30 * _K, 450 * _K, 800 * _K, 2 * _M, 30 * _M)
)
_GPT_5 = _Family(
    (1_500 * _K, 3 * _M, 100 * _M, 200 * _M, 15 * _B), (500 * _K, 1 * _M, 2 * _M, 4 * _M, 40 * _M)
)
_MINI = _Family((2 * _M, 20 * _M, 40 * _M, 1 * _B, 15 * _B), (200 * _K, 2 * _M, 4 * _M, 10 * _M, 150 * _M))
_GPT_5_MINI = _Family(
    (5 * _M, 20 * _M, 40 * _M, 1 * _B, 15 * _B), (500 * _K, 2 * _M, 4 * _M, 10 * _M, 180 * _M)
)
_EMBEDDING = _Family((3 * _M, 20 * _M, 100 * _M, 500 * _M, 4 * _B), (1 * _M, 1 * _M, 5 * _M, 5 * _M, 10 * _M))

_FAMILIES: dict[str, _Family] = {
    "gpt-4o": _GPT_4,
    "chatgpt-4o-latest": _GPT_4,
    "gpt-4.1": _GPT_4,
    "gpt-5.2-pro": _GPT_4,
    "gpt-5": _GPT_5,
    "gpt-5.2-codex": _GPT_5,
    "gpt-5.4": _GPT_5,
    "gpt-5.5": _GPT_5,
    "gpt-5.6-sol": _GPT_5,
    "gpt-4o-mini": _MINI,
    "gpt-4.1-mini": _MINI,
    "gpt-4.1-nano": _MINI,
    "gpt-5-nano": _MINI,
    "gpt-6-luna": _MINI,
    "gpt-5.4-nano": _MINI,
    "gpt-5-mini": _GPT_5_MINI,
    "gpt-5.6-luna": _GPT_5_MINI,
    "text-embedding-3-large": _EMBEDDING,
    "text-embedding-3-small": _EMBEDDING,
    "text-embedding-ada-002": _EMBEDDING,
}
"""For gpt-6-luna the least that a small model has. Nothing is guessed of others: a refusal tells their limit."""


def enqueued_tokens(model: str, tier: Tier) -> int | None:
    """The batch queue's limit in input tokens; ``None`` where it is not known."""
    return _pick(model, tier, "enqueued_tokens")


def enqueued_requests(model: str) -> int | None:
    """The batch queue's limit in requests, which only embeddings have."""
    return ENQUEUED_EMBEDDING_REQUESTS if base_model(model).startswith("text-embedding-") else None


def tokens_per_minute(model: str, tier: Tier) -> int | None:
    """Of real-time requests; ``None`` where it is not known."""
    return _pick(model, tier, "tokens_per_minute")


def _pick(model: str, tier: Tier, what: Literal["enqueued_tokens", "tokens_per_minute"]) -> int | None:
    family = _FAMILIES.get(base_model(model))
    if family is None or tier == "free":
        return None
    limits: tuple[int, ...] = getattr(family, what)
    return limits[int(tier) - 1]
