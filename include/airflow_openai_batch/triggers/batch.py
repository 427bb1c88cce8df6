"""The trigger that a shard waits on while its batch runs."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_openai_batch.errors import NotFoundError
from airflow_openai_batch.job.shard_state import Waited
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView, describe_progress
from airflow_openai_batch.sending.judging import is_late, judge_batch
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.sending.steps import Cancel, RecordEnded, RecordRefused, Wait
from airflow_openai_batch.triggers.connect import connect, find_watcher
from airflow_openai_batch.triggers.held import HeldTrigger, read_seconds
from airflow_openai_batch.triggers.kill import CAN_ASK, cancel_if_given_up, warm_up
from airflow_openai_batch.triggers.watcher import Sighting

if TYPE_CHECKING:
    from airflow_openai_batch.sending.policy import OnDeadline

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 300.0
SCHEMA_VERSION = 3
"""Of the arguments stored in Airflow's database while a task is deferred."""
_AIRFLOW_KILLS = hasattr(BaseTrigger, "on_kill")
"""From 3.3 on."""


class OpenAIBatchEndTrigger(HeldTrigger):
    """Fires once: when there is something to do about the batch, it is not known any more, or is not the only one.

    Only `sending.judging` decides when there is something to do, here as in the worker that resumes and asks it again
    with a fresh look.

    The event is ``{"batch_id": ..., "status": ..., "schema_version": ...}`` with the batch's own final status, or
    ``overdue``, ``unknown``, ``duplicate`` (with ``twins``, the others), ``deadline_status``, or ``timed_out``.

    :param conn_id: the connection to ask with.
    :param batch_id: the batch to wait for.
    :param poll_interval: seconds between two looks.
    :param overdue_after: seconds of patience: `Policy.grace_s`.
    :param deadline: Unix seconds at which the shard is late; it survives a restart. ``None``: no bound.
    :param on_deadline: what is to be done then, see `Policy`; a batch that is being cancelled already is waited for.
    :param deadline_status: the event's status then.
    :param timeout_at: Unix seconds at which waiting ends whatever happens. ``None``: no bound.
    :param created_at: see `Waited`.
    :param cancel_asked_at: see `Waited`.
    :param stopped_at: see `Waited`.
    :param rest_s: see `Waited`.
    :param finish_task: end the task as success right here, without another worker process, when the batch
        ended with files to collect. Ignored where the task is run by ``dag.test()``, which knows only plain events.
    :param landing: an order of `triggers.landing`: land the shard right here, and end the task as success, when the
        batch has completed. Ignored where ``finish_task`` is.
    :param settled: batches of the same send that the worker knows of: seeing them is no reason to wake it.
    :param cancel_on_kill: cancel the batch when a user marks the task or its run failed. Clearing it and marking
        it success never do.
    :param unknown: what another version of this class has stored. It is kept and handed on.
    """

    def __init__(
        self,
        *,
        conn_id: str = "",
        batch_id: str = "",
        poll_interval: float = 60.0,
        overdue_after: float = 3600.0,
        deadline: float | None = None,
        on_deadline: OnDeadline = "fail",
        deadline_status: str = "timeout",
        timeout_at: float | None = None,
        created_at: float = 0.0,
        cancel_asked_at: float = 0.0,
        stopped_at: float = 0.0,
        rest_s: float = 0.0,
        finish_task: bool = False,
        landing: Mapping[str, Any] | None = None,
        settled: Sequence[str] = (),
        cancel_on_kill: bool = True,
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check and no conversion here: an exception in a trigger's __init__ kills the whole triggerer, again
        # after each restart, and a TypeError for a missing or an unknown argument fails the waiting task. While
        # a cluster is upgraded, or goes back, versions read what others wrote: everything has a default and
        # nothing is refused. `run` sees to what is missing.
        super().__init__()
        self.conn_id = conn_id
        self.batch_id = batch_id
        self.poll_interval = poll_interval
        self.overdue_after = overdue_after
        self.deadline = deadline
        self.on_deadline = on_deadline
        self.deadline_status = deadline_status
        self.timeout_at = timeout_at
        self.created_at = created_at
        self.cancel_asked_at = cancel_asked_at
        self.stopped_at = stopped_at
        self.rest_s = rest_s
        self.finish_task = finish_task
        self.landing = landing
        self.settled = settled
        self.cancel_on_kill = cancel_on_kill
        self.schema_version = schema_version
        self.unknown = unknown
        self._seen: BatchView | None = None
        self._completed: BatchView | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = (
            "conn_id", "batch_id", "poll_interval", "overdue_after", "deadline", "on_deadline", "deadline_status",
            "timeout_at", "created_at", "cancel_asked_at", "stopped_at", "rest_s", "finish_task", "landing",
            "cancel_on_kill", "schema_version",
        )  # fmt: skip
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**self.unknown, **{name: getattr(self, name) for name in names}, "settled": list(self.settled)},
        )

    async def find_event(self) -> TriggerEvent:
        if self.unknown:
            log.info("Arguments of another version are left aside: %s.", ", ".join(sorted(self.unknown)))
        if CAN_ASK and self.cancel_on_kill and self.task_instance is not None:
            warm_up(self.task_instance)
        if not self.conn_id or not self.batch_id:
            return self._event("unknown")  # the worker knows
        event = await self._wait()
        if self.landing is None or self._completed is None or self.task_instance is None:
            return event
        try:  # in a thread, since it imports much at the first time
            landing = await asyncio.to_thread(
                importlib.import_module, "airflow_openai_batch.triggers.landing"
            )
        except ImportError as error:
            log.warning("A worker lands: %s cannot be imported here.", error.name)
            return event
        has_landed = await landing.land_here(self.landing, self.conn_id, self._completed)
        return TaskSuccessEvent() if has_landed else event

    async def _wait(self) -> TriggerEvent:
        while True:
            alarm_s = self._find_alarm_s(time.time())
            try:
                async with asyncio.timeout(alarm_s):
                    return await self._follow()
            except TimeoutError:
                if (event := self._meet_alarm(time.time())) is not None:
                    return event
            except NotFoundError:
                return self._event("unknown")

    async def on_kill(self) -> None:
        """Called by Airflow 3.3 after what a user does to the task; see `kill`."""
        if self.cancel_on_kill and self.task_instance is not None:
            await cancel_if_given_up(
                self.batch_id, self.task_instance, functools.partial(connect, self.conn_id)
            )

    async def cleanup(self) -> None:
        """On Airflow 3.2, which has no ``on_kill``; it comes here whatever ends the trigger."""
        if CAN_ASK and self.was_cancelled and not _AIRFLOW_KILLS:
            await self.on_kill()

    def _find_alarm_s(self, now: float) -> float | None:
        """Seconds until time itself may have something to say; a deadline that has passed, the next look sees to."""
        alarms = [] if self.timeout_at is None else [self.timeout_at]
        if self.deadline is not None and self.deadline > now:
            alarms.append(self.deadline)
        return max(0.0, min(alarms) - now) if alarms else None

    def _meet_alarm(self, now: float) -> TriggerEvent | None:
        if self.timeout_at is not None and now >= self.timeout_at:
            return self._event("timed_out")
        if self.deadline is None or now < self.deadline:  # a moment too soon
            return None
        return (
            self._event(self.deadline_status)
            if self._seen is None
            else self._judge(Sighting(self._seen), now)
        )

    async def _follow(self) -> TriggerEvent:
        told_at = 0.0
        sightings = find_watcher(self.conn_id).follow(
            self.batch_id, max(0.1, read_seconds(self.poll_interval))
        )
        try:
            async for sighting in sightings:
                now = time.time()
                self._seen = sighting.batch
                if (event := self._judge(sighting, now)) is not None:
                    return event
                if now - told_at >= PROGRESS_EVERY_S:
                    told_at = now
                    log.info("%s %s", self.batch_id, describe_progress(sighting.batch, now))
        finally:
            await sightings.aclose()  # type: ignore[attr-defined]  # an async generator
        raise AssertionError("the watcher ended without an answer")

    def _judge(self, sighting: Sighting, now: float) -> TriggerEvent | None:
        view = sighting.batch
        twins = [twin for twin in sighting.twins if twin.id not in self.settled]
        if running := [twin.id for twin in twins if _costs(twin)]:
            log.warning(
                "%s is not the only batch of its send, there is also %s.", view.id, ", ".join(running)
            )
            return self._event("duplicate", twins=running)
        policy = Policy(
            deadline_at=self.deadline, on_deadline=self.on_deadline, grace_s=read_seconds(self.overdue_after)
        )
        waited = Waited(
            created_at=self.created_at,
            cancel_asked_at=self.cancel_asked_at,
            stopped_at=self.stopped_at,
            rest_s=self.rest_s,
        )
        match judge_batch(view, now=now, policy=policy, waited=waited):
            case Wait():
                if (
                    self.timeout_at is not None and now >= self.timeout_at
                ):  # the loop's clock stands still in a sleeping machine
                    return self._event("timed_out")
                return None
            case RecordEnded() | RecordRefused():
                log.info("%s %s", self.batch_id, describe_progress(view, now))
                return self._end(view, alone=not twins)
            case Cancel(hurries=True):
                return self._event(self.deadline_status)
            case _:
                return self._event(self.deadline_status if is_late(now, policy) else "overdue")

    def _end(self, view: BatchView, *, alone: bool) -> TriggerEvent:
        if alone and view.status is BatchStatus.COMPLETED and not view.failed:  # errors are for a worker
            self._completed = view
        # In dag.test() there is no task instance, and only plain events are known.
        if (
            self.finish_task
            and alone
            and view.status is not BatchStatus.FAILED
            and self.task_instance is not None
        ):
            return TaskSuccessEvent()
        return self._event(str(view.status))

    def _event(self, status: str, **more: Any) -> TriggerEvent:
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {"batch_id": self.batch_id, "status": status, "schema_version": SCHEMA_VERSION, **more}
        )


def _costs(batch: BatchView) -> bool:
    return not batch.status.is_final and batch.status is not BatchStatus.CANCELLING
