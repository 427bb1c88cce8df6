"""What a batch looks like to us, whichever client fetched it, and what that means."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_openai_batch.openai_api.server_objects import (
    OddAnswerError,
    read_count,
    read_fields,
    read_id,
    read_optional_id,
    read_time,
)
from airflow_openai_batch.server_words import clean_code, clean_words
from airflow_openai_batch.wording import describe_duration

log = logging.getLogger(__name__)

LIST_PAGE = 100
"""The most batches OpenAI lists on one page."""
MOST_MODEL_CHARS = 200
MOST_ERRORS = 100
"""Entries of ``errors.data`` that are read; each concerns a line."""
LIST_MARGIN_S = 600.0
"""A list may be sorted by another time stamp than it shows: look this much further back."""
CREATE_TIMEOUT_S = 60.0
"""Of the call that creates a batch, all in all: after twice as long nobody has it under way any more."""
CLOCK_MARGIN_S = 86_400.0
"""How far a worker's clock may be from the server's, where no time of the server's own is known."""


class BatchStatus(StrEnum):
    """OpenAI's own words. `cancelling` is not final: it can take ten minutes and its lines are paid."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})

TIME_STAMPS = (
    "created_at",
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "expires_at",
)


_FINAL_TIMES = ("completed_at", "expired_at", "cancelled_at", "failed_at")


def final_time(times: Mapping[str, float]) -> float | None:
    """When a batch became final, from OpenAI's time stamps (Unix seconds); ``None`` while it is not.

    ``expires_at`` is no such time: it lies a day ahead of a batch that just completed.
    """
    return next((times[name] for name in _FINAL_TIMES if times.get(name)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchError:
    """One entry of ``batch.errors.data``; every field is optional at OpenAI."""

    code: str = ""
    message: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A batch as it was when it was fetched. Times are Unix seconds."""

    id: str
    status: BatchStatus
    input_file_id: str
    times: dict[str, float]
    completed: int = 0
    failed: int = 0
    total: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: tuple[BatchError, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    """As OpenAI says it, else as our metadata does; unknown for the batches of strangers that say neither."""
    expires: bool = True
    """Whether its server ends it when its time is over."""
    may_have_twin: bool = False
    """Whether its server may have made another by the same call."""

    @property
    def created_at(self) -> float:
        return self.times.get("created_at", 0.0)

    @property
    def expires_at(self) -> float | None:
        return self.times.get("expires_at")

    @property
    def job_key(self) -> str | None:
        return self.metadata.get("job_key")

    def is_of(self, job_key: str, *, files: Collection[str] = (), former: Collection[str] = ()) -> bool:
        """Whether it is one of this send.

        :param files: that this send was created from, by which a batch is known where a server keeps no metadata.
        :param former: batches of other sends, which may have carried the same files.
        """
        if self.job_key is not None:
            return self.job_key == job_key
        return self.input_file_id in files and self.id not in former

    @classmethod
    def from_dict(cls, batch: Any, *, expires: bool = True, may_have_twin: bool = False) -> BatchView:
        """Read the JSON form of OpenAI's batch object; counts, errors and metadata may be absent.

        :param expires: whether the server ends batches whose time is over.
        :param may_have_twin: whether the server may have made another by the same call.

        :raises OddAnswerError: if it is no batch: without an id, a status or a creation, or with dates in another form.
        """
        batch = read_fields(batch)
        batch_id = read_id(batch, "id")
        counts = batch["request_counts"] if isinstance(batch.get("request_counts"), dict) else {}
        metadata = _read_metadata(batch.get("metadata"))
        times = {name: at for name in TIME_STAMPS if (at := read_time(batch, name)) is not None}
        if "created_at" not in times:  # searches end by it
            raise OddAnswerError("has no created_at")
        return cls(
            id=batch_id,
            status=_read_status(batch.get("status")),
            input_file_id=read_optional_id(batch, "input_file_id") or "",
            times=times,
            completed=read_count(counts, "completed") or 0,
            failed=read_count(counts, "failed") or 0,
            total=read_count(counts, "total") or 0,
            # "" stands for "no such file" in some answers
            output_file_id=read_optional_id(batch, "output_file_id"),
            error_file_id=read_optional_id(batch, "error_file_id"),
            errors=_read_errors(batch.get("errors")),
            metadata=metadata,
            model=_read_model(batch.get("model")) or metadata.get("model"),
            expires=expires,
            may_have_twin=may_have_twin,
        )


@dataclass(frozen=True, slots=True)
class BatchPage:
    """One page of the list of batches, newest first."""

    batches: list[BatchView]
    has_more: bool | None = None
    """``None`` where the server does not say."""


def read_has_more(page: Mapping[str, Any]) -> bool | None:
    """What a page of a list says of the next one; anything but a truth value says nothing."""
    said = page.get("has_more")
    return said if isinstance(said, bool) else None


def _read_model(value: Any) -> str:
    """It goes into the page and the tags of metrics."""
    return clean_words(value, MOST_MODEL_CHARS) if isinstance(value, str) else ""


def _read_metadata(value: Any) -> dict[str, str]:
    """Pairs of texts; a stranger's batch may have anything there."""
    pairs = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in pairs if isinstance(key, str) and isinstance(text, str)}


def _read_errors(value: Any) -> tuple[BatchError, ...]:
    """The entries of ``errors.data``, cleaned: they go into the ledger, logs and the page."""
    entries = value.get("data") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        entries = [] if entries is None else [{"message": entries}]
    return tuple(_read_error(entry) for entry in entries[:MOST_ERRORS])


def _read_error(entry: Any) -> BatchError:
    if not isinstance(entry, dict):
        return BatchError(message=clean_words(entry))
    return BatchError(
        code=clean_code(entry.get("code")),
        message=clean_words(entry.get("message")),
        line=read_count(entry, "line"),
    )


_SPELLINGS = {"canceling": "cancelling", "canceled": "cancelled"}
"""Of other servers, some of which write in capitals, too: an end that is not known as one is waited for in vain."""


def _read_status(word: Any) -> BatchStatus:
    """A word that OpenAI may invent is no end: one stranger's batch must not break the list of all."""
    if not isinstance(word, str) or not word:
        raise OddAnswerError("has no status")
    plain = word.strip().lower()
    try:
        return BatchStatus(_SPELLINGS.get(plain, plain))
    except ValueError:
        log.debug("A batch has the unknown status %.40r; it counts as in progress.", word)
        return BatchStatus.IN_PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSnapshot:
    """What was in flight when the batches were listed, those of strangers too.

    :param at: Unix seconds, before the first page was asked for.
    :param batches: all that are not final, newest first, from the list of the last 26 hours.
    :param created_last_hour: batches of any status; OpenAI allows 2,000 an hour.
    :param ended: final ones created in the last hour that this look came by, among them those that were over before
        any look saw them running.
    """

    at: float
    batches: tuple[BatchView, ...]
    created_last_hour: int
    ended: tuple[BatchView, ...] = ()


def choose_kept(batches: list[BatchView]) -> tuple[BatchView | None, list[BatchView]]:
    """Of all batches with one job_key, the one that counts and the others.

    The lowest (created_at, id) among those that did not fail validation wins, so that everyone who looks
    at the same list keeps the same one.
    """
    alive = sorted(
        (b for b in batches if b.status is not BatchStatus.FAILED), key=lambda b: (b.created_at, b.id)
    )
    return (alive[0], alive[1:]) if alive else (None, [])


def describe_progress(batch: BatchView, now: float) -> str:
    """``in_progress 63% (6,300 of 10,000), about 12 min to go`` for logs; counts only."""
    if not batch.total:
        return str(batch.status)
    finished = batch.completed + batch.failed
    text = f"{batch.status} {finished / batch.total:.0%} ({finished:,} of {batch.total:,}"
    text += f", {batch.failed:,} failed)" if batch.failed else ")"
    if left_s := estimate_left(batch, now):
        text += f", about {describe_duration(left_s)} to go"
    return text


def estimate_left(batch: BatchView, now: float) -> float | None:
    """Seconds until all is answered, at the batch's own pace so far; None before the first answer and after its end."""
    finished = batch.completed + batch.failed
    began = batch.times.get("in_progress_at") or batch.created_at
    if batch.status is not BatchStatus.IN_PROGRESS or not 0 < finished <= batch.total or now <= began:
        return None
    return (now - began) * (batch.total - finished) / finished
