"""What OpenAI grants an account by its usage tier, per model.

Source: ``models.toml``, and for a newer name the youngest model of its family that is in it. They change, differ from
what an account was given by hand, and from what live errors say: numbers in the connection's extra win over these, and
a refusal's number wins over all.
"""

from __future__ import annotations

from typing import Literal

from airflow_openai_batch.openai_api.model_table import read_model_table
from airflow_openai_batch.openai_api.models import base_model, find_youngest_of_family

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
    rows = read_model_table().queues
    name = find_youngest_of_family(base_model(model), rows)
    if name is None or tier == "free":
        return None
    limits: tuple[int, ...] = getattr(rows[name], what)
    return limits[int(tier) - 1]
