"""Together: jobs in capitals, with dates as text; bare lists; nothing that OpenAI has and it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_openai_batch.testing.requests import CHAT, COMPLETIONS
from airflow_openai_batch.testing.servers.rules import JSON, ServerRules

_PURPOSES = {"batch_output": "batch-api"}


@dataclass(frozen=True, kw_only=True)
class TogetherRules(ServerRules):
    def show_batch(self, batch: JSON) -> JSON:
        status = batch["status"].upper()
        counts = batch["request_counts"] or {"completed": 0, "total": 0}
        done, total = counts["completed"], counts["total"]
        errors = batch["errors"]["data"] if batch["errors"] else []
        return {
            "id": batch["id"],
            "user_id": "user_1",
            "input_file_id": batch["input_file_id"],
            "file_size_bytes": 1,
            "status": "CANCELING" if status == "CANCELLING" else status,
            "job_deadline": _write_date(batch["expires_at"]),
            "created_at": _write_date(batch["created_at"]),
            "endpoint": batch["endpoint"],
            "progress": 100 * done / total if total else 0.0,
            "model_id": batch["model"],
            "output_file_id": batch["output_file_id"],
            "error_file_id": batch["error_file_id"],
            "error": errors[0]["message"] if errors else None,
            "completed_at": _write_date(batch["completed_at"]),
        }

    def show_created(self, batch: JSON) -> JSON:
        return {"job": batch, "warning": ""}

    def show_file(self, file: JSON) -> JSON:
        kept = ("id", "object", "bytes", "created_at", "filename", "purpose")
        shown = {name: file[name] for name in kept}
        return {**shown, "purpose": _PURPOSES.get(file["purpose"], file["purpose"])}

    def show_list(self, page: JSON) -> Any:
        return page["data"] if page["data"] and "job_deadline" in page["data"][0] else {"data": page["data"]}


TOGETHER = TogetherRules(
    name="together",
    batch_purpose="batch-api",
    purposes=("batch-api", "fine-tune", "eval"),
    takes_expiry=False,
    keeps_metadata=False,
    has_pages=False,
    tells_purposes_apart=False,
    endpoints=(CHAT, COMPLETIONS),
)


def _write_date(at: float | None) -> str | None:
    """With nanoseconds, as Go writes it."""
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.000000000Z"
