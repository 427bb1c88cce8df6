"""The trigger that a shard waits on while its batch runs."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_openai_batch.core.batch_view import BatchStatus, BatchView, describe_progress
from airflow_openai_batch.core.errors import NotFoundError
from airflow_openai_batch.triggers.connect import connect, find_watcher
from airflow_openai_batch.triggers.kill import CAN_ASK, cancel_if_given_up, warm_up

if TYPE_CHECKING:
    from airflow_openai_batch.triggers.watcher import Sighting

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 300.0
SCHEMA_VERSION = 2
"""Of the arguments stored in Airflow's database while a task is deferred."""
_AIRFLOW_KILLS = hasattr(BaseTrigger, "on_kill")
"""From 3.3 on."""


class OpenAIBatchEndTrigger(BaseTrigger):
    """Fires once: when the batch is final, is overdue, is not known any more, or is not the only one.

    Only `core.machine` decides what that means; the worker that resumes asks it again with a fresh look.

    The event is ``{"batch_id": ..., "status": ..., "schema_version": ...}`` with the batch's own final status, or
    ``overdue``, ``unknown``, ``duplicate``, or ``timeout`` (see ``deadline``).

    :param conn_id: the connection to ask with.
    :param batch_id: the batch to wait for.
    :param poll_interval: seconds between two looks.
    :param overdue_after: seconds after the batch's expiry, or after its cancellation began, at which waiting ends.
    :param deadline: Unix seconds at which waiting ends whatever happens; it survives a restart. ``None``: no bound.
    :param deadline_status: the event's status then.
    :param finish_task: end the task as success right here, without another worker process, when the batch
        ended with files to collect. Ignored where the task is run by ``dag.test()``, which knows only plain events.
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
        deadline_status: str = "timeout",
        finish_task: bool = False,
        settled: Sequence[str] = (),
        cancel_on_kill: bool = True,
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check and no conversion here: an exception in a trigger's __init__ kills the whole triggerer, again
        # after each restart, and a TypeError for a missing or an unknown argument fails the waiting task. While
        # a cluster is upgraded, or goes back, versions read what others wrote: everything has a default and
        # nothing is refused. `run` sees to what is missing.
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.batch_id = batch_id
        self.poll_interval = poll_interval
        self.overdue_after = overdue_after
        self.deadline = deadline
        self.deadline_status = deadline_status
        self.finish_task = finish_task
        self.settled = settled
        self.cancel_on_kill = cancel_on_kill
        self.schema_version = schema_version
        self.unknown = unknown
        self._was_cancelled = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self.unknown,
                "conn_id": self.conn_id,
                "batch_id": self.batch_id,
                "poll_interval": self.poll_interval,
                "overdue_after": self.overdue_after,
                "deadline": self.deadline,
                "deadline_status": self.deadline_status,
                "finish_task": self.finish_task,
                "settled": list(self.settled),
                "cancel_on_kill": self.cancel_on_kill,
                "schema_version": self.schema_version,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        if self.unknown:
            log.info("Arguments of another version are left aside: %s.", ", ".join(sorted(self.unknown)))
        if CAN_ASK and self.cancel_on_kill and self.task_instance is not None:
            warm_up(self.task_instance)
        try:
            yield await self._wait()
        except asyncio.CancelledError:
            self._was_cancelled = True
            raise

    async def on_kill(self) -> None:
        """Called by Airflow 3.3 after what a user does to the task; see `kill`."""
        if self.cancel_on_kill and self.task_instance is not None:
            await cancel_if_given_up(
                self.batch_id, self.task_instance, functools.partial(connect, self.conn_id)
            )

    async def cleanup(self) -> None:
        """On Airflow 3.2, which has no ``on_kill``; it comes here whatever ends the trigger."""
        if CAN_ASK and self._was_cancelled and not _AIRFLOW_KILLS:
            await self.on_kill()

    async def _wait(self) -> TriggerEvent:
        if not self.conn_id or not self.batch_id:
            return self._event("unknown")  # the worker knows
        told_at = 0.0
        sightings = find_watcher(self.conn_id).follow(self.batch_id, max(0.1, float(self.poll_interval)))
        try:
            async with asyncio.timeout(
                None if self.deadline is None else max(0.0, self.deadline - time.time())
            ):
                async for sighting in sightings:
                    now = time.time()
                    if (event := self._judge(sighting, now)) is not None:
                        return event
                    if now - told_at >= PROGRESS_EVERY_S:
                        told_at = now
                        log.info("%s %s", self.batch_id, describe_progress(sighting.batch, now))
        except NotFoundError:
            return self._event("unknown")
        except TimeoutError:
            return self._event(self.deadline_status)
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
            return self._event("duplicate")
        if view.status.is_final:
            log.info("%s %s", self.batch_id, describe_progress(view, now))
            return self._end(view, alone=not twins)
        if self._is_overdue(view, now):
            return self._event("overdue")
        if (
            self.deadline is not None and now >= self.deadline
        ):  # the loop's clock stands still in a sleeping machine
            return self._event(self.deadline_status)
        return None

    def _end(self, view: BatchView, *, alone: bool) -> TriggerEvent:
        # In dag.test() there is no task instance, and only plain events are known.
        if (
            self.finish_task
            and alone
            and view.status is not BatchStatus.FAILED
            and self.task_instance is not None
        ):
            return TaskSuccessEvent()
        return self._event(str(view.status))

    def _is_overdue(self, view: BatchView, now: float) -> bool:
        if (
            view.status is BatchStatus.CANCELLING
        ):  # what "overdue" would lead to has been done: wait as long again
            return now > view.times.get("cancelling_at", now) + self.overdue_after
        return view.expires_at is not None and now > view.expires_at + self.overdue_after

    def _event(self, status: str) -> TriggerEvent:
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {"batch_id": self.batch_id, "status": status, "schema_version": SCHEMA_VERSION}
        )


def _costs(batch: BatchView) -> bool:
    return not batch.status.is_final and batch.status is not BatchStatus.CANCELLING
