"""Counting what OpenAI's batch queue will count: the input tokens of a request."""

from __future__ import annotations

from airflow_openai_batch.requests.tokens.count import TokenCount, count_request_tokens

# With the modules that other folders may import from.
__all__ = [
    "TokenCount",
    "count_request_tokens",
    "counters",
    "drawings",
    "images",
    "parts",
    "ranks",
    "token_samples",
]
