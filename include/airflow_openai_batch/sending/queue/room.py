"""OpenAI's batch queue: what a send needs of it, what is in it, and whether the one fits into the other.

The queue is shared by everyone of an organisation, per model, and holds what is *enqueued*: input tokens, and for
embeddings requests, from a batch's validation to its end. OpenAI tells nobody what is in it. What can be known
is what our own batches say of themselves in their metadata; of strangers' batches the model and the number of
requests. So a look is a good guess and a refusal is the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.openai_api.models import base_model
from airflow_openai_batch.wording import format_amount

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.account_limits import LimitSource, QueueLimit
    from airflow_openai_batch.openai_api.batch import BatchView

QUEUE_SHARE = 0.95
"""Of the queue's limit that one shard may fill: OpenAI's count may differ a little from ours."""


_SAID_BY: dict[LimitSource, str] = {
    "tier": "by the tier in the connection's extra",
    "connection": "by the connection's extra",
    "parameter": "by the run's enqueued_{unit}_limit",
    "refusal": "as the server said when it refused a batch",
}


@dataclass(frozen=True, slots=True)
class Need:
    """What one send takes of the queue."""

    model: str
    tokens: int
    """Input tokens."""
    requests: int
    job_key: str = ""
    """Of the send: by it the batch is known when it turns up in a list."""
    at_most: bool = False
    """``tokens`` is a bound or an estimate. It then never says that a send cannot fit: at the latest it goes
    when the queue is empty."""

    @property
    def queue(self) -> str:
        """Dated models and fine-tuned ones share the queue of the model they are of."""
        return base_model(self.model)

    @property
    def held(self) -> Held:
        """What it holds of the queue once it is sent."""
        return Held(self.tokens, self.requests)


@dataclass(frozen=True, slots=True)
class Held:
    """What is in a queue."""

    tokens: int = 0
    requests: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(self.tokens + other.tokens, self.requests + other.requests)

    def __sub__(self, other: Held) -> Held:
        return Held(self.tokens - other.tokens, self.requests - other.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A queue as one send finds it."""

    need: Need
    limit: QueueLimit
    held: Held

    @property
    def free_tokens(self) -> int | None:
        """``None`` where no limit is known."""
        return None if self.limit.tokens is None else max(0, self.limit.tokens - self.held.tokens)

    @property
    def free_requests(self) -> int | None:
        return None if self.limit.requests is None else max(0, self.limit.requests - self.held.requests)

    @property
    def fits(self) -> bool:
        tokens = self.need.tokens
        if self.need.at_most and self.limit.tokens is not None:
            tokens = min(tokens, self.limit.tokens)
        return (self.free_tokens is None or tokens <= self.free_tokens) and (
            self.free_requests is None or self.need.requests <= self.free_requests
        )

    def __str__(self) -> str:
        """``needs 1.9M tokens, 0.4M of 2.0M free``."""
        text = f"needs {format_amount(self.need.tokens)} tokens"
        if self.limit.tokens is not None and self.free_tokens is not None:
            text += f", {format_amount(self.free_tokens)} of {format_amount(self.limit.tokens)} free"
        if self.limit.requests is not None and self.free_requests is not None:
            text += (
                f"; {self.need.requests:,} requests, "
                f"{format_amount(self.free_requests)} of {format_amount(self.limit.requests)} free"
            )
        return text


def find_room(batches: Iterable[BatchView], need: Need, limit: QueueLimit) -> Room:
    """The room for one send among these batches; final ones hold nothing, `validating` ones do."""
    return Room(need=need, limit=limit, held=sum_held(batches).get(need.queue, Held()))


def sum_held(batches: Iterable[BatchView]) -> dict[str, Held]:
    """What the batches that are not final hold, by queue."""
    held: dict[str, Held] = {}
    for batch in batches:
        if not batch.status.is_final and batch.model:
            queue = base_model(batch.model)
            held[queue] = held.get(queue, Held()) + read_held(batch)
    return held


def read_held(batch: BatchView) -> Held:
    """What one batch holds. Of a stranger's batch the tokens are not known; a refusal will tell."""
    return Held(
        _read_count(batch, "input_tokens"),
        # while it is validating, OpenAI has not counted yet
        max(batch.total, _read_count(batch, "requests")),
    )


def _read_count(batch: BatchView, name: str) -> int:
    text = batch.metadata.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def never_fits(need: Need, limit: QueueLimit) -> bool:
    """Whether even an empty queue could not hold this send."""
    tokens = limit.tokens is not None and need.tokens > limit.tokens and not need.at_most
    return tokens or (limit.requests is not None and need.requests > limit.requests)


def check_fits(need: Need, limit: QueueLimit, *, shard: int) -> None:
    """:raises JobError: if even an empty queue could not hold this send, with the number to split by."""
    if not never_fits(need, limit):
        return
    if limit.tokens is not None and need.tokens > limit.tokens and not need.at_most:
        raise _too_large(need, "token", need.tokens, limit.tokens, limit.tokens_by, shard)
    assert limit.requests is not None  # noqa: S101 - for the type checker
    raise _too_large(need, "request", need.requests, limit.requests, limit.requests_by, shard)


def _too_large(need: Need, unit: str, needed: int, limit: int, said_by: LimitSource, shard: int) -> JobError:
    number = max(1, int(limit * QUEUE_SHARE)) if unit == "token" else limit
    correct = "" if said_by == "refusal" else ", or correct the limit if it is wrong"
    return JobError(
        f"shard {shard} needs {needed:,} {unit}s, the batch queue of {need.queue} holds {limit:,} "
        f"({_SAID_BY[said_by].format(unit=unit)}): it can never be sent. Split again with "
        f"max_{unit}s_per_shard={number} and on_existing=restart, which pays again for what is done{correct}."
    )
