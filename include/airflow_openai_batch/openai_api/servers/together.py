"""Together: dates as text, statuses in capitals, no metadata, lists without pages.

Source: the API's reference and its Python client.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_openai_batch.openai_api.servers.profile import ServerProfile, with_fields

_DATES = ("created_at", "completed_at", "expires_at")


@dataclass(frozen=True, kw_only=True)
class TogetherProfile(ServerProfile):
    """Its batches are called jobs."""

    def read_made(self, answer: dict[str, Any]) -> dict[str, Any]:
        job = answer.get("job")
        return job if isinstance(job, dict) else answer

    def read_batch(self, batch: Any) -> Any:
        if not isinstance(batch, dict):
            return batch
        changes: dict[str, Any] = {}
        if "expires_at" not in batch and "job_deadline" in batch:
            changes["expires_at"] = batch["job_deadline"]
        if batch.get("error") and "errors" not in batch:
            changes["errors"] = batch["error"]
        if "model" not in batch and "model_id" in batch:
            changes["model"] = batch["model_id"]
        return _with_seconds({**batch, **changes})

    def read_file(self, file: Any) -> Any:
        return _with_seconds(file)


TOGETHER = TogetherProfile(
    name="together",
    title="Together",
    hosts=("api.together.xyz", "api.together.ai"),
    address="https://api.together.xyz/v1",
    upload_purpose="batch-api",
    result_purpose="batch-api",
    takes_expiry=False,
    keeps_metadata=False,
    has_pages=False,
    bare_lists=True,
    endpoints=frozenset({"/v1/chat/completions", "/v1/completions"}),
)


def _with_seconds(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return with_fields(value, {name: _read_date(value[name]) for name in _DATES if name in value})


def _read_date(value: Any) -> Any:
    """Unix seconds of ``2026-01-15T14:30:00.123456789Z``; what is no such date as it is, to be refused in words."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
