"""Counting tokens as the splitter does, for an emulator whose queue limit must bind where OpenAI's does."""

from __future__ import annotations

from typing import Any

from airflow_openai_batch.requests.tokens import count_request_tokens


def count_exact_tokens(body: dict[str, Any], endpoint: str) -> int:
    """For ``OpenAIServer(count_tokens=...)``: about 80 microseconds per KB of text."""
    return count_request_tokens(body, endpoint).tokens
