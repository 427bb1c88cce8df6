"""A batch: what is known of it, and how OpenAI shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.testing.faults import BatchFault
from airflow_openai_batch.testing.refusals import ApiError, missing
from airflow_openai_batch.testing.requests import BATCH_ENDPOINTS

if TYPE_CHECKING:
    from airflow_openai_batch.testing.landing import BatchLanding
    from airflow_openai_batch.testing.scan import RequestScan
    from airflow_openai_batch.testing.servers.rules import ServerRules

JSON = dict[str, Any]

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_STAMPS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_NO_FAULT = BatchFault(batch="completed")


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch, from its creation to its end."""

    id: str
    number: int
    """From 1, in the order of creation."""
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    created_at: float
    expires_at: float
    output_expires_s: int | None
    completion_window: str = "24h"
    fault: BatchFault = _NO_FAULT
    status: str = "validating"
    stamps: dict[str, float] = field(default_factory=dict)
    """When it came to each status."""
    stage: int = 0
    """Raised with each step of its life: what was due for an earlier stage is void."""
    takes_s: float = 0.0
    """In progress, as far as it goes undisturbed."""
    done_at_cancel: int | None = None
    queued: tuple[str, int, int] | None = None
    """Model, tokens and requests it holds in the queue."""
    errors: list[JSON] = field(default_factory=list)
    model: str | None = None
    requests: int = 0
    input_tokens: int = 0
    scan: RequestScan | None = None
    landing: BatchLanding | None = None
    result_ids: tuple[str, str] = ("", "")
    output_file_id: str | None = None
    error_file_id: str | None = None
    counts: tuple[int, int] | None = None
    """Completed and failed, once known."""
    usage: tuple[int, int] | None = None
    shown: int = 0
    """How often it was shown after its end."""

    def enter(self, status: str, at: float) -> None:
        self.status = status
        self.stamps[status] = at
        self.stage += 1

    def done_by(self, now: float) -> int:
        """Requests that have run by now."""
        started = self.stamps.get("in_progress")
        if started is None:
            return 0
        scripted = self.fault.done_of(self.requests)
        most = self.requests if scripted is None else scripted
        if self.takes_s <= 0:
            return most if scripted is not None else self.requests // 2
        return min(most, int(self.requests * min(1.0, (now - started) / self.takes_s)))

    def to_json(self, now: float) -> JSON:
        body: JSON = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            "request_counts": self._counts(now),
            "metadata": self.metadata,
            "model": self.model,
            "usage": self._usage(),
        }
        for name in _STAMPS:
            stamp = self.stamps.get(name)
            body[f"{name}_at"] = None if stamp is None else int(stamp)
        for name in self.fault.omit:
            body[name] = None
        if self.status in TERMINAL and self._names_files_late(now):
            body["output_file_id"] = body["error_file_id"] = None
        return body

    def _names_files_late(self, now: float) -> bool:
        self.shown += 1
        if self.shown <= self.fault.file_ids_late:
            return True
        return now < self.stamps[self.status] + self.fault.file_ids_late_s

    def _counts(self, now: float) -> JSON:
        if self.status in ("validating", "failed"):
            return {"total": 0, "completed": 0, "failed": 0}
        if self.counts is not None:
            completed, failed = self.counts
        elif self.status == "finalizing":
            completed, failed = self.requests, 0  # reads 100% although nothing is there yet
        elif self.done_at_cancel is not None:
            completed, failed = self.done_at_cancel, 0
        else:
            completed, failed = (self.done_by(now) if self.takes_s else 0), 0
        return {"total": self.requests, "completed": completed, "failed": failed}

    def _usage(self) -> JSON | None:
        if self.usage is None:
            return None
        given, made = self.usage
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }


def check_creation(params: Any, rules: ServerRules) -> None:
    """:raises ApiError: 400, for parameters that the server refuses at once."""
    if not isinstance(params, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(params.get(name), str):
            raise missing(name)
    rules.check_creation(params)
    if params["endpoint"] not in BATCH_ENDPOINTS:
        supported = ", ".join(f"'{endpoint}'" for endpoint in BATCH_ENDPOINTS)
        raise ApiError(
            400,
            f"Invalid value: '{params['endpoint'][:100]}'. Supported values are: {supported}.",
            code="invalid_value",
            param="endpoint",
        )
    if not rules.takes_window(params["completion_window"]):
        raise ApiError(
            400,
            f"Invalid value: '{params['completion_window'][:100]}'. Value must be '24h'"
            f"{'.' if rules.longest_window_h == 24 else ' to 7d.'}",
            code="invalid_value",
            param="completion_window",
        )
    check_metadata(params.get("metadata"))


def count_days(window: str) -> float:
    """Of a ``completion_window``."""
    return int(window[:-1]) / (1 if window.endswith("d") else 24)


def check_metadata(metadata: Any) -> None:
    """:raises ApiError: 400, for more than 16 pairs, keys over 64 or values over 512 characters."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise ApiError(
            400, "Invalid type for 'metadata': expected an object.", code="invalid_type", param="metadata"
        )
    if len(metadata) > 16:
        raise ApiError(
            400,
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but "
            "got an "
            f"object with {len(metadata)} properties instead.",
            code="object_above_max_properties",
            param="metadata",
        )
    for key, value in metadata.items():
        if len(key) > 64:
            raise ApiError(
                400,
                "Invalid 'metadata': property name too long. Expected a string with maximum length 64, "
                "but got a "
                f"string with length {len(key)} instead.",
                code="string_above_max_length",
                param="metadata",
            )
        if not isinstance(value, str):
            raise ApiError(
                400,
                f"Invalid type for 'metadata.{key}': expected a string.",
                code="invalid_type",
                param=f"metadata.{key}",
            )
        if len(value) > 512:
            raise ApiError(
                400,
                f"Invalid 'metadata.{key}': string too long. Expected a string with maximum length 512, "
                "but got a "
                f"string with length {len(value)} instead.",
                code="string_above_max_length",
                param=f"metadata.{key}",
            )
