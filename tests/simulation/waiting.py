"""What stands for the triggers: waits without a worker, and what they tell the worker at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.openai_api.batch import BatchView
from airflow_openai_batch.openai_api.servers.choice import SERVERS
from airflow_openai_batch.sending.judging import find_late_at, judge_batch
from airflow_openai_batch.sending.queue.line import AdmissionQueue
from airflow_openai_batch.sending.steps import AwaitRoom, Pause, Wait
from simulation.job import OUTPUT

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import Waited
    from airflow_openai_batch.sending.driver import Waiting
    from airflow_openai_batch.sending.policy import Policy
    from airflow_openai_batch.testing.batches import Batch
    from simulation.tasks import Job

OVER = ("completed", "failed", "expired", "cancelled")
FALSE_ALARM = 0.02
"""Share of looks after which a task goes on without a reason: a triggerer died, somebody cleared it."""


@dataclass(frozen=True, slots=True)
class Told:
    """How a wait ended, as `ShardDriver.drive` takes it."""

    admitted: bool = False
    twins: bool = False


def wait_for(job: Job, outcome: Waiting, shard: int, policy: Policy, waited: Waited) -> Told:
    """Wait as the triggers do."""
    world = job.world
    match outcome:
        case AwaitRoom():
            return Told(admitted=_await_room(job, outcome, shard, policy))
        case Pause(until):
            world.sleep(until - world.now() + 0.1)
            return Told()
        case Wait(batch):
            return Told(twins=_follow(job, batch, policy, waited))


def _follow(job: Job, view: BatchView, policy: Policy, waited: Waited) -> bool:
    """Poll until there is something to do about the batch or another one of its send shows; whether that was it.

    Polls at which nothing new can be seen are left out.
    """
    world, poll_s, began_at = job.world, job.world.scenario.poll_s, job.world.now()
    overdue_at = (view.expires_at or math.inf) + policy.grace_s
    deadline_at = math.inf if policy.deadline_at is None else policy.deadline_at
    hurries_at = find_late_at(policy, waited.rest_s) if waited.rest_s else None
    first = True
    while True:
        news_at = min(_iter_news(job, view), default=math.inf)
        until = min([news_at, *(at for at in (overdue_at, deadline_at) if at > world.now())])
        if hurries_at is not None:  # from then on each answer counts
            until = min(until, max(hurries_at, world.now() + poll_s))
        polls = max(1, math.ceil((until - began_at) / poll_s)) if until < math.inf else 1
        poll_at = began_at + polls * poll_s
        if poll_at <= world.now():
            poll_at += poll_s
        world.watch(poll_at - world.now())
        if world.now() < poll_at:  # something happened meanwhile
            continue
        if any(
            _is_shown(job, twin) and (first or twin.created_at <= view.created_at + 1)
            for twin in _twins(job, view)
        ):
            return True
        first = False
        shown = job.emulator.batches.get(view.id).to_json(world.now())
        now = BatchView.from_dict(shown, expires=job.emulator.settings.rules.expires_batches)
        judged = judge_batch(now, now=world.now(), policy=policy, waited=waited)
        if not isinstance(judged, Wait) or world.chance.random() < FALSE_ALARM:
            return False


def _iter_news(job: Job, view: BatchView) -> Iterator[float]:
    """When something may be seen that is not seen now."""
    if job.emulator.batches.next_due is not None:
        yield job.emulator.batches.next_due
    for twin in _twins(job, view):
        yield twin.created_at + job.world.scenario.list_lag_s


def _twins(job: Job, view: BatchView) -> Iterator[Batch]:
    """Other batches of the same send that still cost something."""
    key = (job.emulator.batches.get(view.id).metadata or {})["job_key"]
    for batch in job.emulator.batches:
        if (
            batch.id != view.id
            and (batch.metadata or {})["job_key"] == key
            and batch.status not in (*OVER, "cancelling")
        ):
            yield batch


def _is_shown(job: Job, batch: Batch) -> bool:
    return batch.created_at + job.world.scenario.list_lag_s <= job.world.now()


def check_twins(job: Job, view: BatchView, since: float) -> None:
    """A task that hands back to wait for a batch has cancelled all others of its send that it could see.

    :param since: when it began, Unix seconds.
    """
    for twin in _twins(job, view):
        shown_at = twin.created_at + job.world.scenario.list_lag_s
        assert shown_at >= since, f"{twin.id[:12]} goes on beside {view.id[:12]}, though the list shows it"


def _await_room(job: Job, wish: AwaitRoom, shard: int, policy: Policy) -> bool:
    """Stand in the triggerer's line; a triggerer that dies begins a new one."""
    world = job.world
    asked_at, queue, waiter = world.now(), None, None
    while True:
        if waiter is None or queue is not job.queue:
            queue = job.queue
            waiter = queue.join(
                wish.need,
                wish.limit,
                now=world.now(),
                asked_at=asked_at,
                not_before=wish.not_before,
                holder=f"{OUTPUT}|{shard}",
            )
        world.sleep(world.scenario.poll_s)
        if world.chance.random() < 0.02:
            job.queue = AdmissionQueue()
            continue
        if world.find_spell() is None and queue is job.queue:
            queue.see(_list_batches(job), created_last_hour=0, at=world.now())
            queue.admit(world.now())
        if waiter.granted_at is not None:
            queue.leave(waiter, taken=True)
            return True
        if policy.deadline_at is not None and world.now() > policy.deadline_at:
            queue.leave(waiter, taken=False)
            return False


def _list_batches(job: Job) -> list[BatchView]:
    """What the watcher's latest list shows."""
    page, server = job.emulator.list_batches(limit=100), SERVERS[job.emulator.settings.server]
    batches = page if isinstance(page, list) else page["data"]
    return [
        BatchView.from_dict(server.read_batch(batch), expires=server.expires_batches) for batch in batches
    ]
