"""How many tokens pictures will have, worked out from what OpenAI says that they cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_openai_batch.requests.request import read_request

CASES: list[tuple[dict[str, Any], int | None]] = [
    ({"model": "gpt-image-1.5", "quality": "low", "size": "1024x1024"}, 272),
    ({"model": "gpt-image-1.5", "quality": "medium", "size": "1536x1024"}, 1_584),
    ({"model": "gpt-image-1.5", "quality": "high", "size": "1024x1536", "n": 3}, 3 * 6_240),
    ({"model": "gpt-image-1.5"}, 6_240),  # left to the model: the most that it may choose
    ({"model": "gpt-image-1.5", "quality": "auto", "size": "auto"}, 6_240),
    ({"model": "gpt-image-1-mini", "quality": "low", "size": "1024x1024"}, 625),
    ({"model": "gpt-image-2-2026-04-21", "quality": "high", "size": "1024x1024"}, 7_034),
    ({"model": "gpt-image-2.6-flare", "quality": "medium", "size": "2048x1024"}, 3_534),
    ({"model": "gpt-image-2.5-sunburst", "quality": "max"}, None),
    ({"model": "flux-pro", "quality": "low"}, None),
]


@pytest.mark.parametrize(("body", "tokens"), CASES)
def test_what_a_picture_has_at_most(body: dict[str, Any], tokens: int | None) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/images/generations"}
    found = read_request(json.dumps({**line, "body": {"prompt": "A cat", **body}}).encode()).measure()
    assert found.output_tokens == tokens
    assert found.texts == ["A cat"]
