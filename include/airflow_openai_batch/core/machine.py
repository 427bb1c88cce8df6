"""The shard's state machine: from what happened and what was observed to what is to be done next.

Pure: no clock, no I/O. Operators, sensor, trigger and the tests' virtual clock share it; a loop around it
(`airflow_openai_batch.driver`) carries the steps out, and every step may be repeated after a crash.

::

    planned -> uploaded -> created -> ended -> landed -> (leftover? next send : done)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_openai_batch.core.batch_view import BatchStatus, BatchView, choose_kept, describe_duration
from airflow_openai_batch.core.errors import BatchRejectedError, FatalAccountError, JobError, OpenAIBatchError
from airflow_openai_batch.core.refusals import Refusal, classify_refusal, describe_refused
from airflow_openai_batch.core.shard_state import FILE_WAITS_S, Goal, ShardState


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the machine is. Seconds."""

    create_timeout_s: float = 120.0
    """A foreign intent to create is taken over only after this long."""
    queue_wait_s: float = 60.0
    """First wait after a refusal for queue room; doubles up to ``queue_wait_max_s``."""
    queue_wait_max_s: float = 900.0
    grace_s: float = 3600.0
    """A batch that is not final this long after its expiry is cancelled and harvested."""
    max_setbacks: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was observed at OpenAI in this pass; ``None``: not looked yet."""

    candidates: tuple[BatchView, ...] | None = None
    """All batches that carry this send's job_key."""
    batch: BatchView | None = None
    vanished: bool = False
    """OpenAI answered 404 for the batch, repeatedly."""


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Reached:
    """The goal is reached; nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Find:
    """List the batches with this send's job_key, back to ``since`` where that is known (Unix seconds)."""

    since: float | None


@dataclass(frozen=True, slots=True)
class Adopt:
    """Record a batch that is there already; cancel its duplicates."""

    batch: BatchView
    duplicates: tuple[BatchView, ...] = ()


@dataclass(frozen=True, slots=True)
class Upload:
    """Upload what this send carries."""


@dataclass(frozen=True, slots=True)
class Create:
    """Record the intent, then create the batch."""


@dataclass(frozen=True, slots=True)
class Observe:
    """Fetch the batch."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class RecordEnded:
    """The batch is final and may carry paid lines."""

    batch: BatchView


@dataclass(frozen=True, slots=True)
class RecordRefused:
    """The batch failed validation; ``error`` is set where waiting does not help."""

    batch: BatchView
    refusal: Refusal
    error: OpenAIBatchError | None


@dataclass(frozen=True, slots=True)
class RecordLost:
    """OpenAI no longer knows the batch."""

    batch_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The batch is long overdue: cancel it, its finished lines will be harvested."""

    batch: BatchView


@dataclass(frozen=True, slots=True)
class Wait:
    """The batch runs; look again later."""

    batch: BatchView


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do before ``until`` (Unix seconds)."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Land:
    """Fetch the files of the ended send, write the shard's rows, find what is left over."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The shard cannot go on; ``error`` says what happened."""

    error: OpenAIBatchError


Step = (
    Reached
    | Find
    | Adopt
    | Upload
    | Create
    | Observe
    | RecordEnded
    | RecordRefused
    | RecordLost
    | Cancel
    | Wait
    | Pause
    | Land
    | Stop
)


def is_reached(state: ShardState, goal: Goal) -> bool:
    """Whether the shard has come that far. A goal before ``DONE`` is reached by any send."""
    if state.done is not None:
        return True
    reached = {
        Goal.UPLOADED: state.file_id is not None or state.batch_id is not None or bool(state.ended),
        Goal.CREATED: state.batch_id is not None or bool(state.ended),
        Goal.ENDED: bool(state.ended),
        Goal.LANDED: state.landed_send > 0,
    }
    return reached.get(goal, False)


def next_step(
    state: ShardState,
    seen: Seen,
    *,
    goal: Goal,
    now: float,
    me: str,
    key: str,
    policy: Policy = DEFAULT_POLICY,
) -> Step:
    """What to do next to bring the shard to ``goal``.

    :param now: Unix seconds.
    :param me: who asks, in the form of ``Event.by``: its own intents need no patience.
    :param key: the job_key of the current send; seeds the jitter, so that the machine stays pure.
    """
    if is_reached(state, goal):
        return Reached()
    if len(state.setbacks) >= policy.max_setbacks:
        return Stop(JobError("the shard makes no progress: " + "; ".join(state.setbacks)))
    if state.landed_send == state.send or any(ended.send == state.send for ended in state.ended):
        return Land()
    if state.batch_id is not None:
        return _follow(state.batch_id, seen, now, policy)
    return _get_batch(state, seen, now, me, key, policy)


def _get_batch(state: ShardState, seen: Seen, now: float, me: str, key: str, policy: Policy) -> Step:
    """Find before create: whoever died before writing it down may have created the batch."""
    if seen.candidates is None:
        return Find(state.first_intent_at)
    kept, duplicates = choose_kept(list(seen.candidates))
    if kept is not None:
        return Adopt(kept, tuple(duplicates))
    if seen.candidates:  # all failed validation: that is the answer to this send
        return Adopt(max(seen.candidates, key=lambda batch: (batch.created_at, batch.id)))
    until, why = _patience(state, key, policy)
    if now < until:
        return Pause(until, why)
    if state.file_id is None or state.file_sha256 != state.content.sha256:
        return Upload()
    if (
        state.intent_at is not None
        and state.intent_by != me
        and now < state.intent_at + policy.create_timeout_s
    ):
        return Pause(
            state.intent_at + policy.create_timeout_s,
            f"{state.intent_by} was about to create this batch; its reply may still come",
        )
    return Create()


def _patience(state: ShardState, key: str, policy: Policy) -> tuple[float, str]:
    if state.refused_at is None:
        return 0.0, ""
    if state.file_refusals:
        wait_s = FILE_WAITS_S[min(state.file_refusals, len(FILE_WAITS_S)) - 1]
        return state.refused_at + wait_s, "OpenAI cannot find the uploaded file yet"
    if not state.queue_refusals:
        return 0.0, ""
    wait_s = min(policy.queue_wait_s * 2 ** min(state.queue_refusals - 1, 10), policy.queue_wait_max_s)
    jitter = 0.75 + 0.5 * hashlib.sha256(key.encode()).digest()[0] / 255
    return (
        state.refused_at + wait_s * jitter,
        f"the batch queue is full (refused {state.queue_refusals} times): needs {state.content.input_tokens:,} tokens",
    )


def _follow(batch_id: str, seen: Seen, now: float, policy: Policy) -> Step:
    if seen.vanished:
        return RecordLost(batch_id, f"OpenAI does not know {batch_id} any more")
    batch = seen.batch
    if batch is None or batch.id != batch_id:
        return Observe(batch_id)
    if batch.status is BatchStatus.FAILED:
        refusal = classify_refusal(batch.errors)
        return RecordRefused(batch, refusal, _refusal_error(batch, refusal))
    if batch.status.is_final:
        return RecordEnded(batch)
    overdue = batch.expires_at is not None and now > batch.expires_at + policy.grace_s
    if overdue and batch.status is not BatchStatus.CANCELLING:
        return Cancel(batch)
    return Wait(batch)


def _refusal_error(batch: BatchView, refusal: Refusal) -> OpenAIBatchError | None:
    if refusal.kind in ("queue_full", "file_missing"):
        return None
    text = describe_refused(batch.id, refusal)
    if refusal.kind == "fatal":
        return FatalAccountError(f"{text}. Settle it with OpenAI, then clear the task.", code=refusal.code)
    return BatchRejectedError(text, code=refusal.code)


def describe_stand(state: ShardState, now: float, *, resumed: bool) -> str:
    """One line for the log of a task that takes a shard up: what is there already.

    :param resumed: the task's own goal was reached before: it was cleared or tried again.
    """
    verb = "resumed from" if resumed else "goes on from"
    if state.done is not None:
        return "done before, nothing sent again"
    if state.batch_id is not None:
        age = describe_duration(max(0.0, now - (state.created_at or now)))
        return f"{verb} created ({state.batch_id}, {age} ago), nothing sent again"
    if state.landed_send:
        return f"{verb} landed send {state.landed_send}, {state.content.requests:,} requests left over"
    if state.file_id is not None:
        return f"{verb} uploaded ({state.file_id})"
    return f"{verb} {state.events} events without a batch"
