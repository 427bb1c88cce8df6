"""The shard's state machine: from what happened and what was observed to what is to be done next.

Pure: no clock, no I/O. Operators, sensor, trigger and the tests' virtual clock share it; a loop around it
(`airflow_openai_batch.sending.driver`) carries the steps out, and every step may be repeated after a crash.

::

    planned -> room -> uploaded -> created -> ended -> landed -> (leftover? next send : done) -> cleaned
           \\-> through flex, in real time -^
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from airflow_openai_batch.errors import ConfigError, JobError, OpenAIBatchError
from airflow_openai_batch.job.shard_state import (
    FILE_WAITS_S,
    Goal,
    ShardState,
    find_holder,
    has_sample,
    is_reached,
)
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import CLOCK_MARGIN_S, BatchView, choose_kept
from airflow_openai_batch.openai_api.results_check import RESULTS_UNPROVEN
from airflow_openai_batch.sending.judging import HURRIED, HURRYING, LATE, LATE_WAY_OUT, is_late, judge_batch
from airflow_openai_batch.sending.policy import DEFAULT_POLICY, Lane, Policy
from airflow_openai_batch.sending.queue.room import Need, check_fits
from airflow_openai_batch.sending.result_looks import MOST_LOOKS, count_looks, wait_before
from airflow_openai_batch.sending.steps import (
    Adopt,
    AwaitRoom,
    CleanUp,
    Create,
    EndRealtime,
    Find,
    Land,
    Observe,
    Pause,
    Reached,
    SendRealtime,
    Step,
    Stop,
    TakeSample,
    Upload,
)
from airflow_openai_batch.wording import describe_duration, number_of

NEW_BATCH_S = 600.0
"""So long a batch that OpenAI does not show may just be too new."""
NEW_BATCH_LOOK_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What was observed in this pass; ``None``: not looked yet."""

    candidates: tuple[BatchView, ...] | None = None
    """All batches that carry this send's job_key."""
    looked_at: float | None = None
    """When these were asked for, Unix seconds."""
    batch: BatchView | None = None
    vanished: bool = False
    """OpenAI answered 404 for the batch, repeatedly."""
    admitted: bool = False
    """The queue has room for this send."""
    twins: bool = False
    """Somebody has seen another batch of this send."""
    left_files: bool = False
    """OpenAI could not be asked to delete the shard's files; that holds nothing up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What the machine is told besides events and observations.

    :param now: Unix seconds.
    :param me: who asks, in the form of ``Event.by``: its own claims need no patience.
    :param key: the job_key of the current send; seeds the jitter, so that the machine stays pure.
    :param model: of the shard.
    :param limit: the batch queue's, where the connection or the DAG says one.
    """

    now: float
    me: str
    key: str
    model: str = ""
    shard: int = 0
    tokens_at_most: bool = False
    """The shard's tokens are a bound or an estimate."""
    limit: QueueLimit = field(default_factory=QueueLimit)
    has_flex: bool = False
    """The model and endpoint of the shard are known to have it."""
    without_flex: str = ""
    """Why they cannot have it, where that is certain."""
    rest_s: float = 0.0
    """See `Waited`: of what the current send carries."""
    realtime_per_s: float = 0.0
    """Requests a second in real time, where a deadline is kept by it; 0: not known."""


def next_step(
    state: ShardState,
    seen: Observations,
    *,
    goal: Goal,
    where: StepContext,
    policy: Policy = DEFAULT_POLICY,
) -> Step:
    """What to do next to bring the shard to ``goal``."""
    if _has_files_to_delete(state) and goal >= Goal.LANDED and policy.clean_up and not seen.left_files:
        return CleanUp()
    if is_reached(state, goal) or (policy.first is not None and has_sample(state, policy.first)):
        return Reached()
    if len(state.setbacks) >= policy.max_setbacks:
        return Stop(
            JobError(
                "the shard makes no progress: " + "; ".join(state.setbacks) + ". Clear the task to try again."
            ),
            forgiving=True,
        )
    if state.landed_send == state.send or any(ended.send == state.send for ended in state.ended):
        return _land(state, where)
    if state.batch_id is not None:
        return _follow(state, state.batch_id, seen, where, policy)
    if policy.first is not None and state.sampled is None and not state.claims:
        return TakeSample(policy.first)
    return _get_batch(state, seen, goal, where, policy)


def _land(state: ShardState, where: StepContext, *, final: bool = False) -> Step:
    """Results that are in doubt are looked at again, for minutes; then the shard stops, or goes on without what is
    gone for sure or costs nothing to ask again."""
    if state.takes_all:
        return Land(final, frozenset(MOST_LOOKS))
    given_up = {code for code, looks in state.doubts.items() if looks >= count_looks(code)}
    if RESULTS_UNPROVEN not in given_up:
        until = state.doubted_at + wait_before(sum(state.doubts.values()))
        if state.doubts and state.doubt_code not in given_up and where.now < until:
            return Pause(until, f"looking again for what the batch promises ({state.doubt})")
        return Land(final, frozenset(given_up))
    looks = sum(state.doubts.values())
    return Stop(
        JobError(
            f"shard {where.shard}: {state.doubt}. It was looked at {looks} times. Nothing is sent again, since answers "
            "that were paid may still be there. Ask whoever runs the server, or the proxy before it, where they are, "
            "then clear the task; to give them up and ask again, run the job once more with repair=true."
        ),
        forgiving=True,
    )


def _has_files_to_delete(state: ShardState) -> bool:
    return state.done is not None and bool(state.remote_files) and not state.cleaned


def _get_batch(state: ShardState, seen: Observations, goal: Goal, where: StepContext, policy: Policy) -> Step:
    """Find before create: whoever died before writing it down may have created the batch."""
    late = is_late(where.now, policy, rest_s=where.rest_s, hurried_for=state.hurried_for)
    # What was never sent, as far as the ledger goes, is uploaded without: the task that creates looks anyway. Where the
    # ledger was lost, that is one file too many; where it was not, one list of batches less for each shard.
    may_upload = goal is Goal.UPLOADED and _since(state) is None and not late
    if seen.candidates is None and not may_upload:
        return Find(_since(state))
    kept, duplicates = choose_kept(list(seen.candidates or ()))
    if kept is not None:
        return Adopt(kept, tuple(duplicates))
    if seen.candidates:  # all failed validation: that is the answer to this send
        return Adopt(max(seen.candidates, key=lambda batch: (batch.created_at, batch.id)))
    uploaded = state.file_id is not None and state.file_sha256 == state.content.sha256
    if late and policy.on_deadline != "fail" and (wait := _await_lost_reply(state, seen, where, policy)):
        return wait
    if late and policy.on_deadline == "publish" and not state.realtime:
        # The shard of a sample is not done with it: the next run may want all of it.
        return _land(state, where, final=True) if policy.first is None else Reached()
    if late and policy.on_deadline == "fail":
        return Stop(
            JobError(f"{LATE}, {state.content.requests:,} requests are still to be sent. {LATE_WAY_OUT}")
        )
    lane = _choose_lane(state, where, policy, late=late)
    if late or state.realtime or (not uploaded and lane != "batch"):
        return Reached() if goal is Goal.UPLOADED else _send_one_by_one(state, where, policy, lane, late=late)
    return _prepare_batch(state, seen, where, policy, uploaded=uploaded)


def _choose_lane(state: ShardState, where: StepContext, policy: Policy, *, late: bool) -> Lane:
    lane = policy.choose_lane(state.content.requests, late=late, has_flex=where.has_flex)
    if lane != "flex":
        return lane
    too_slow = state.flex_closed and state.flex_closed_for > 0 and state.flex_closed_for == policy.deadline_at
    closed = state.flex_closed and not state.flex_closed_for
    if too_slow or (policy.falls_back(late=late) and (where.without_flex or closed)):
        return "realtime"
    return lane


def _send_one_by_one(
    state: ShardState, where: StepContext, policy: Policy, lane: Lane, *, late: bool
) -> Step:
    if state.realtime and (wait := _await_others(state, where, policy)):
        return wait
    if state.flex and (lane == "batch" or (late and policy.on_deadline == "publish")):
        # Whoever asked for flex has asked for the price of a batch: no more than that is paid for the rest.
        return EndRealtime()
    if lane == "batch":
        return SendRealtime()
    is_planned = lane == policy.choose_lane(state.content.requests, late=False, has_flex=where.has_flex)
    late_by = "" if is_planned or not late else LATE if is_late(where.now, policy) else HURRIED
    if lane == "realtime":
        return SendRealtime(late_by)
    falls_back = policy.falls_back(late=late)
    if where.without_flex and not falls_back:
        return Stop(
            ConfigError(
                f"mode=flex: {where.without_flex} Set mode=batch, which costs the same, or mode=realtime, which costs "
                "twice as much, and clear the task."
            )
        )
    if where.now < state.not_before and not falls_back:
        return Pause(state.not_before, "flex has no capacity")
    until = policy.deadline_at
    keeps = until is not None and where.now < until and policy.on_deadline in HURRYING
    if late and not (keeps and where.realtime_per_s):
        until = None
    return SendRealtime(late_by, lane, falls_back, until, where.realtime_per_s if keeps else 0.0)


def _since(state: ShardState) -> float | None:
    """Since when a batch of this send may be there, by the server's clock; ``None``: nothing is known of one."""
    if state.first_intent_at is None or state.first_file_at is not None:
        return state.first_file_at
    return state.first_intent_at - CLOCK_MARGIN_S


def _await_lost_reply(
    state: ShardState, seen: Observations, where: StepContext, policy: Policy
) -> Pause | Find | None:
    """Once the requests go out another way nobody looks for a batch any more that the list has not shown yet."""
    if state.realtime or not state.claims:
        return None
    shown_at = max(claim.at for claim in state.claims) + policy.create_timeout_s
    if where.now < shown_at:
        return Pause(shown_at, "the list may not show yet what a lost reply was about")
    return Find(_since(state)) if seen.looked_at is not None and seen.looked_at < shown_at else None


def _prepare_batch(
    state: ShardState, seen: Observations, where: StepContext, policy: Policy, *, uploaded: bool
) -> Step:
    until, why = _patience(state, where.key, policy)
    limit = _find_limit(state, where.limit)
    if (
        (not uploaded or state.queue_refusals)
        and (limit.tokens is not None or limit.requests is not None)
        and not state.file_refusals
    ):
        need = Need(
            model=where.model,
            tokens=state.content.input_tokens,
            requests=state.content.requests,
            job_key=where.key,
            at_most=where.tokens_at_most or state.content.leftover_send > 0,
        )
        try:
            check_fits(need, limit, shard=where.shard)
        except OpenAIBatchError as error:
            return Stop(error)
        if not seen.admitted:
            return AwaitRoom(need, limit, until, why)
    elif where.now < until:
        return Pause(until, why)
    if not uploaded:
        return Upload()
    return _await_others(state, where, policy) or _look_again(state, seen, where, policy) or Create()


def _look_again(state: ShardState, seen: Observations, where: StepContext, policy: Policy) -> Find | None:
    """A look that is older than what somebody else's call could still do says nothing of it."""
    if seen.looked_at is None:
        return None
    done_at = max((claim.at for claim in state.claims if claim.by != where.me), default=0.0)
    stale = done_at and seen.looked_at < done_at + policy.create_timeout_s
    return Find(_since(state)) if stale else None


def _await_others(state: ShardState, where: StepContext, policy: Policy) -> Pause | None:
    """Whoever claimed this send may still be at it."""
    lasts_s = policy.realtime_claim_s if state.realtime else policy.create_timeout_s
    holder = find_holder(state, lasts_s)
    if holder is None or holder.by == where.me or where.now >= holder.at + lasts_s:
        return None
    what = "is sending these requests" if state.realtime else "was about to create this batch"
    return Pause(holder.at + lasts_s, f"{holder.by} {what}; its answer may still come")


def may_pay(state: ShardState, where: StepContext, policy: Policy) -> bool:
    """Whether a claim that was just written down holds: two may have written theirs side by side."""
    open_ = state.batch_id is None and not any(ended.send == state.send for ended in state.ended)
    return open_ and _await_others(state, where, policy) is None


def _find_limit(state: ShardState, told: QueueLimit) -> QueueLimit:
    """What OpenAI said when it refused wins over what was configured."""
    said = QueueLimit(
        tokens=state.queue_limits.get("tokens"),
        requests=state.queue_limits.get("requests"),
        tokens_by="refusal",
        requests_by="refusal",
    )
    return told.overridden_by(said)


def _patience(state: ShardState, key: str, policy: Policy) -> tuple[float, str]:
    """Until when to wait (Unix seconds, 0 for not at all), and for what."""
    asked = (state.not_before, "the server asked to wait" if state.not_before else "")
    return max(asked, _wait_out_refusal(state, key, policy))


def _wait_out_refusal(state: ShardState, key: str, policy: Policy) -> tuple[float, str]:
    if state.refused_at is None:
        return 0.0, ""
    if state.file_refusals:
        wait_s = FILE_WAITS_S[min(state.file_refusals, len(FILE_WAITS_S)) - 1]
        return state.refused_at + wait_s, "the server cannot find the uploaded file yet"
    if not state.queue_refusals:
        return 0.0, ""
    wait_s = min(policy.queue_wait_s * 2 ** min(state.queue_refusals - 1, 10), policy.queue_wait_max_s)
    return (
        state.refused_at + wait_s * draw_jitter(key),
        f"the batch queue is full (refused {state.queue_refusals} times): needs {state.content.input_tokens:,} tokens",
    )


def draw_jitter(key: str) -> float:
    """0.75 to 1.25, the same for the same send, so that shards that were refused together part."""
    return 0.75 + 0.5 * hashlib.sha256(key.encode()).digest()[0] / 255


def _follow(state: ShardState, batch_id: str, seen: Observations, where: StepContext, policy: Policy) -> Step:
    if seen.vanished:
        return _meet_vanished(state, batch_id, where)
    batch = seen.batch
    if batch is None or batch.id != batch_id:
        return Observe(batch_id)
    # Else there is one: no reply was lost, and nobody else was at it.
    if state.intents > 1 or seen.twins or batch.may_have_twin:
        if seen.candidates is None:
            return Find(_since(state))
        kept, others = choose_kept([batch, *(each for each in seen.candidates if each.id != batch_id)])
        duplicates = tuple(each for each in others if each.id not in state.duplicates)
        if kept is not None and (kept.id != batch_id or duplicates):
            return Adopt(kept, duplicates)
    waited = replace(state.waited, rest_s=where.rest_s)
    return judge_batch(batch, now=where.now, policy=policy, waited=waited)


def _meet_vanished(state: ShardState, batch_id: str, where: StepContext) -> Step:
    """OpenAI never forgets a batch: the key is one of another project. To send again would pay again."""
    if state.created_at is not None and where.now < state.created_at + NEW_BATCH_S:
        return Pause(where.now + NEW_BATCH_LOOK_S, f"the server does not show {batch_id} yet")
    return Stop(
        JobError(
            f"shard {where.shard}: the server does not know {batch_id}, which this job created. Most likely the "
            "connection leads to another project or server than it did then: use the former one, then clear the "
            f"task. If the batch is really gone, remove state/{where.shard:05d}/ from the job directory and clear the "
            "task: this shard alone is sent again, and paid again."
        )
    )


def describe_stand(state: ShardState, now: float, *, resumed: bool) -> str:
    """One line for the log of a task that takes a shard up: what is there already.

    :param resumed: the task was cleared or tried again, or another run left it.
    """
    verb = "resumed from" if resumed else "next step after"
    if state.done is not None:
        return "done before, nothing sent again"
    if state.batch_id is not None:
        age = describe_duration(max(0.0, now - (state.created_at or now)))
        return f"{verb} created ({state.batch_id}, {age} ago)" + (", nothing sent again" if resumed else "")
    if state.forgiven_through and state.forgiven_through == state.landed_send:
        return "reopened: what has no good result is asked again"
    if state.landed_send:
        return f"{verb} landed send {state.landed_send}, {number_of(state.content.requests, 'request')} left over"
    if state.file_id is not None:
        return f"{verb} uploaded ({state.file_id})"
    if state.realtime:
        return f"{verb} a send " + ("through flex" if state.flex else "in real time")
    return f"{verb} {number_of(state.events, 'event')} without a batch"
