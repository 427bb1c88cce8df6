"""Why a batch failed validation: does it pass by itself, and what is the limit?

OpenAI reports a full queue only on the batch, after a 200 for its creation, and gives the limit only as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_openai_batch.core.account import ACCOUNT_CODES

if TYPE_CHECKING:
    from airflow_openai_batch.core.batch_view import BatchError

_LIMIT = re.compile(r"Limit:\s*([\d,]+)")
_QUEUE_FULL = re.compile(r"[Ee]nqueued (?:token|request) limit reached")
_FILE_NOT_VISIBLE = re.compile(r"Cannot find file")


@dataclass(frozen=True, slots=True)
class Refusal:
    """``kind``: ``queue_full`` and ``file_missing`` pass by themselves, ``fatal`` is about the account,
    ``permanent`` about the file."""

    kind: Literal["queue_full", "file_missing", "fatal", "permanent"]
    code: str
    message: str
    limit: int | None = None


def describe_refused(batch_id: str, refusal: Refusal) -> str:
    """The sentence for logs and errors."""
    reason = f"{refusal.code} {refusal.message}".strip()
    return f"{batch_id} failed validation, nothing ran and nothing was billed: {reason}"


def classify_refusal(errors: tuple[BatchError, ...]) -> Refusal:
    """The refusal that decides: a permanent one first, since waiting would not help it."""
    if not errors:
        return Refusal("permanent", "", "OpenAI gave no reason")
    found = [_classify(error) for error in errors]
    order = {"fatal": 0, "permanent": 1, "queue_full": 2, "file_missing": 3}
    return min(found, key=lambda refusal: order[refusal.kind])


def _classify(error: BatchError) -> Refusal:
    if error.code == "token_limit_exceeded" or _QUEUE_FULL.search(error.message):
        match = _LIMIT.search(error.message)
        return Refusal(
            "queue_full", error.code, error.message, int(match[1].replace(",", "")) if match else None
        )
    if _FILE_NOT_VISIBLE.search(error.message):
        return Refusal("file_missing", error.code, error.message)
    place = f"line {error.line}: " if error.line is not None else ""
    kind: Literal["fatal", "permanent"] = "fatal" if error.code in ACCOUNT_CODES else "permanent"
    # The texts of the table of validation errors name ids, models and files, not bodies; cut all the same.
    return Refusal(kind, error.code, f"{place}{error.message[:300]}")
