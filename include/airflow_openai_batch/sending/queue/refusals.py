"""Why a batch failed validation: does it pass by itself, and what is the limit?

OpenAI reports a full queue only on the batch, after a 200 for its creation, and gives the limit only as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.error_codes import ACCOUNT_CODES
from airflow_openai_batch.openai_api.servers.choice import find_full_queue, read_amount

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.batch import BatchError

_LIMIT = re.compile(r"Limit:\s*([\d,]+)")
_FILE_NOT_READY = re.compile(
    r"cannot find (?:the )?file|no such file object"
    r"|\bfile\b[^:]{0,100}?(?:\bnot (?:yet )?(?:been )?(?:fully )?(?:processed|ready|uploaded)\b"
    r"|\bis still (?:being )?(?:processed|processing|uploaded|uploading)\b"
    r"|\bmust be processed\b|\bnot in (?:the )?\W?processed\b)",
    re.IGNORECASE,
)
"""OpenAI, Azure and compatible servers, of a file that was just uploaded: it passes. A colon ends the search, so that
a file's name in front of another reason says nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``kind``: those of `PASSING_REFUSALS` pass by themselves, ``fatal`` is about the account, ``permanent`` about the
    file."""

    kind: Literal["queue_full", "file_missing", "fatal", "permanent"]
    code: str
    message: str
    limit: int | None = None
    unit: Literal["tokens", "requests"] = "tokens"
    """Of ``limit``: embeddings are limited by requests, too."""

    @property
    def queue_limit(self) -> QueueLimit:
        """What the refusal says of the queue; nothing where it is about something else."""
        if self.unit == "requests":
            return QueueLimit(requests=self.limit, requests_by="refusal")
        return QueueLimit(tokens=self.limit, tokens_by="refusal")


def read_queue_limit(message: str) -> QueueLimit:
    """The queue's limit out of a refusal's message, as the ledger keeps it; empty where there is none."""
    return _read_full(message, "").queue_limit if find_full_queue(message) else QueueLimit()


def is_file_not_ready(message: str) -> bool:
    """Whether a refusal, of a call or of a batch, is about a file that the server does not show or use yet."""
    return _FILE_NOT_READY.search(message) is not None


def describe_refused(batch_id: str, refusal: Refusal) -> str:
    """The sentence for logs and errors."""
    reason = f"{refusal.code} {refusal.message}".strip()
    return f"{batch_id} failed validation, nothing ran and nothing was billed: {reason}"


def classify_refusal(errors: tuple[BatchError, ...]) -> Refusal:
    """The refusal that decides: a permanent one first, since waiting would not help it."""
    if not errors:
        return Refusal("permanent", "", "the server gave no reason")
    found = [_classify(error) for error in errors]
    order = {"fatal": 0, "permanent": 1, "queue_full": 2, "file_missing": 3}
    return min(found, key=lambda refusal: order[refusal.kind])


def _classify(error: BatchError) -> Refusal:
    if error.code == "token_limit_exceeded" or find_full_queue(error.message):
        return _read_full(error.message, error.code)
    if is_file_not_ready(error.message):
        return Refusal("file_missing", error.code, error.message)
    place = f"line {error.line}: " if error.line is not None else ""
    kind: Literal["fatal", "permanent"] = "fatal" if error.code in ACCOUNT_CODES else "permanent"
    # The texts of the table of validation errors name ids, models and files, not bodies; cut all the same.
    return Refusal(kind, error.code, f"{place}{error.message[:300]}")


def _read_full(message: str, code: str) -> Refusal:
    found, plain = find_full_queue(message), _LIMIT.search(message)
    limit = read_amount(found) if found else None
    if limit is None and plain:
        limit = int(plain[1].replace(",", ""))
    unit: Literal["tokens", "requests"] = (
        "requests" if found and found["unit"].lower() == "request" else "tokens"
    )
    return Refusal("queue_full", code, message, limit, unit)
