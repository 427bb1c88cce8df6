"""How long batches usually take, as the page is told it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.batch_durations import UsualDuration


def describe_usual(usual: UsualDuration) -> dict[str, Any]:
    """A ``USUAL`` of the page's API."""
    return {
        "model": usual.model,
        "up_to": usual.up_to,
        "batches": usual.batches,
        "median_s": usual.median_s,
        "p95_s": usual.p95_s,
    }
