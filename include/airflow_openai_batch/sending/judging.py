"""What a batch that was looked at means: the one place that says what is over, late, overdue or stuck.

The machine asks it in a worker, and the trigger in the triggerer, with the same arguments: a trigger never sends a task
back to a worker for what the machine would answer with `Wait`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import BatchRejectedError, FatalAccountError, JobError, OpenAIBatchError
from airflow_openai_batch.job.shard_state import PASSING_REFUSALS, WHATEVER_DEADLINE
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.sending.queue.refusals import Refusal, classify_refusal, describe_refused
from airflow_openai_batch.sending.steps import Cancel, RecordEnded, RecordRefused, Stop, Wait
from airflow_openai_batch.wording import describe_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_openai_batch.job.shard_state import Waited
    from airflow_openai_batch.sending.policy import Lane, Policy

WINDOW_S = 24 * 3600.0
"""OpenAI's completion window, for batches that do not say when they expire."""
LATE = "not finished within finish_within_h"
HURRIED = "finish_within_h is nearly over"
LATE_WAY_OUT = "Clear the task to wait on, or set on_deadline to flex, realtime or publish."

HURRYING = frozenset({"flex", "realtime"})
"""Values of ``on_deadline`` that ask for all answers by then."""
CANCELLING_S = 600.0
"""OpenAI says that cancelling takes ten minutes at most."""
IN_TIME = 0.9
TOO_LATE = 2.0
LEAST_BEFORE_FLEX = 0.1
"""A batch gets so much of the time at least before the rest goes out through flex, which costs the same."""
LEAST_BEFORE_SLOW_FLEX = 0.75
"""And so much where flex could not even do half of it in all of the time: then the batch is the better hope."""
LEAST_BEFORE_REALTIME = 0.5

Judgement = RecordRefused | RecordEnded | Stop | Cancel | Wait


def judge_batch(batch: BatchView, *, now: float, policy: Policy, waited: Waited) -> Judgement:
    """What is to be done about a batch as it was seen."""
    if batch.status is BatchStatus.FAILED:
        refusal = classify_refusal(batch.errors)
        return RecordRefused(batch, refusal, _refusal_error(batch, refusal))
    if batch.status.is_final:
        return RecordEnded(batch)
    late = is_late(now, policy, rest_s=waited.rest_s * _find_share_left(batch))
    if late and policy.on_deadline == "fail":
        return Stop(JobError(f"{LATE}, {batch.id} is {batch.status} and goes on. {LATE_WAY_OUT}"))
    overdue_at = _find_overdue_at(batch, policy, waited)
    asked_at = waited.cancel_asked_at or batch.times.get("cancelling_at") or 0.0
    asked = asked_at > waited.stopped_at
    if batch.status is BatchStatus.CANCELLING or asked:
        stuck_at = max(asked_at or overdue_at, waited.stopped_at) + policy.grace_s
        return Stop(_stuck_error(batch, policy), forgiving=True) if now > stuck_at else Wait(batch)
    if late:
        if is_late(now, policy):
            hurries = policy.on_deadline in HURRYING
            return Cancel(batch, "has not finished within finish_within_h", hurries=hurries)
        return Cancel(
            batch, "leaves just the time that the rest takes until finish_within_h is over", hurries=True
        )
    return Cancel(batch, "is long overdue") if now > overdue_at else Wait(batch)


def is_late(now: float, policy: Policy, *, rest_s: float = 0.0, hurried_for: float = 0.0) -> bool:
    """Whether the deadline of the whole shard has passed, or is so near that what is left has to go out one by one.

    :param rest_s: seconds that this takes, see `choose_rest_s`; 0: it does not come into question.
    :param hurried_for: see `ShardState`.
    """
    if policy.deadline_at is None:
        return False
    left_s = policy.deadline_at - now
    if left_s <= 0:
        return True
    if policy.on_deadline not in HURRYING:
        return False
    # What cannot be done in twice the time that is left is not begun: the batch is the better hope.
    in_time = rest_s + CANCELLING_S >= IN_TIME * left_s and rest_s <= TOO_LATE * left_s
    return hurried_for in (policy.deadline_at, WHATEVER_DEADLINE) or (rest_s > 0 and in_time)


def find_late_at(policy: Policy, rest_s: float) -> float | None:
    """From when on a send that waits for room is late, Unix seconds."""
    if policy.deadline_at is None or not rest_s:
        return policy.deadline_at
    return policy.deadline_at - (rest_s + CANCELLING_S) / IN_TIME


def choose_rest_s(
    policy: Policy, requests: int, find_pace: Callable[[Lane], float], *, has_flex: bool
) -> float:
    """How long so many requests take one by one, where that is to be kept free before the deadline; else 0.

    Where flex takes longer than a batch can spare, it answers what it can by then, and real time the rest.

    :param find_pace: requests a second; 0: not known.
    """
    if policy.deadline_at is None or policy.on_deadline not in HURRYING:
        return 0.0
    in_realtime_s = _divide(requests, find_pace("realtime"))
    if policy.on_deadline == "flex" and has_flex and (through_flex_s := _divide(requests, find_pace("flex"))):
        is_slow = through_flex_s > TOO_LATE * policy.within_s
        spare_s = _find_spare_s(policy, LEAST_BEFORE_SLOW_FLEX if is_slow else LEAST_BEFORE_FLEX)
        if through_flex_s <= spare_s:
            return through_flex_s
        if 0 < in_realtime_s <= spare_s:
            return spare_s
    return in_realtime_s if in_realtime_s <= _find_spare_s(policy, LEAST_BEFORE_REALTIME) else 0.0


def _find_spare_s(policy: Policy, least: float) -> float:
    """Seconds of answers one by one for which a batch still gets so much of the time."""
    return (1 - least) * policy.within_s * IN_TIME - CANCELLING_S


def _divide(requests: int, per_s: float) -> float:
    """Seconds; 0 where the pace is not known."""
    return requests / per_s if per_s > 0 else 0.0


def _find_share_left(batch: BatchView) -> float:
    """Of its requests, one at least, since a batch may hang with all of them answered; all where it does not say."""
    return 1.0 if not batch.total else max(1, batch.total - batch.completed - batch.failed) / batch.total


def _find_overdue_at(batch: BatchView, policy: Policy, waited: Waited) -> float:
    """From when on a batch that is not final has taken too long; never where nothing says when it began, nor where its
    server lets it go on.

    How long it may take is the server's to say, when it began the ledger's: a server's clock may be hours off ours.
    """
    if not batch.expires:
        return math.inf
    lasts_s = batch.expires_at - batch.created_at if batch.expires_at and batch.created_at else None
    if began_at := waited.created_at or batch.created_at:
        return began_at + (WINDOW_S if lasts_s is None else lasts_s) + policy.grace_s
    return (batch.expires_at or math.inf) + policy.grace_s


def _stuck_error(batch: BatchView, policy: Policy) -> OpenAIBatchError:
    waited = describe_duration(policy.grace_s)
    return JobError(
        f"{batch.id} was to be cancelled more than {waited} ago and is still {batch.status}; OpenAI says that "
        "this takes ten minutes at most. What it has finished is paid for and is collected once it is over; until then "
        "nothing of it is sent again. Clear the task to wait as long again, and ask whoever runs the server if that "
        "does not help."
    )


def _refusal_error(batch: BatchView, refusal: Refusal) -> OpenAIBatchError | None:
    if refusal.kind in PASSING_REFUSALS:
        return None
    text = describe_refused(batch.id, refusal)
    if refusal.kind == "fatal":
        return FatalAccountError(f"{text}. Settle it with OpenAI, then clear the task.", code=refusal.code)
    return BatchRejectedError(text, code=refusal.code)
