"""What a usage tier allows, for parameters that are empty where the connection says it."""

from __future__ import annotations

from airflow_openai_batch.openai_api.tiers import REALTIME_CONCURRENCY, TIERS, enqueued_tokens

__all__ = ["TIERS", "find_concurrency", "find_queue_limit"]


def find_concurrency(tier: str) -> int | str:
    """Real-time requests in the air at once; "" for what is no tier."""
    return next((REALTIME_CONCURRENCY[known] for known in TIERS if known == tier), "")


def find_queue_limit(model: str, tier: str) -> int | str | None:
    """Input tokens that the batch queue holds; "" for what is no tier, None where the model's limit is not known."""
    return next((enqueued_tokens(model, known) for known in TIERS if known == tier), "")
