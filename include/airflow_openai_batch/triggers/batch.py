"""The trigger that a shard waits on while its batch runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_openai_batch.core.batch_view import BatchStatus, BatchView, describe_progress
from airflow_openai_batch.core.errors import NotFoundError
from airflow_openai_batch.hook import OpenAIBatchHook
from airflow_openai_batch.triggers.watcher import get_watcher

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 300.0
SCHEMA_VERSION = 1
"""Of the arguments stored in Airflow's database while a task is deferred."""


class OpenAIBatchEndTrigger(BaseTrigger):
    """Fires once: when the batch is final, is overdue, or is not known any more.

    Only `core.machine` decides what that means; the worker that resumes asks it again with a fresh look.

    :param conn_id: the connection to ask with.
    :param batch_id: the batch to wait for.
    :param poll_interval: seconds between two looks; shared by all that wait on the same connection.
    :param overdue_after: seconds after the batch's expiry at which waiting ends.
    :param deadline: Unix seconds at which waiting ends whatever happens; it survives a restart. ``None``: no bound.
    :param finish_task: end the task as success right here, without another worker process, when the batch
        ended with files to collect. Ignored where the task is run by ``dag.test()``, which knows only plain events.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        batch_id: str,
        poll_interval: float = 60.0,
        overdue_after: float = 3600.0,
        deadline: float | None = None,
        finish_task: bool = False,
        schema_version: int = SCHEMA_VERSION,
    ) -> None:
        # No check and no conversion here: an exception in a trigger's __init__ kills the whole triggerer.
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.batch_id = batch_id
        self.poll_interval = poll_interval
        self.overdue_after = overdue_after
        self.deadline = deadline
        self.finish_task = finish_task
        self.schema_version = schema_version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "conn_id": self.conn_id,
                "batch_id": self.batch_id,
                "poll_interval": self.poll_interval,
                "overdue_after": self.overdue_after,
                "deadline": self.deadline,
                "finish_task": self.finish_task,
                "schema_version": self.schema_version,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield await self._wait()

    async def _wait(self) -> TriggerEvent:
        watcher = get_watcher(self.conn_id, OpenAIBatchHook(self.conn_id).aget_batch_client)
        told_at = 0.0
        views = watcher.follow(self.batch_id, max(0.1, float(self.poll_interval)))
        try:
            async with asyncio.timeout(
                None if self.deadline is None else max(0.0, self.deadline - time.time())
            ):
                async for view in views:
                    now = time.time()
                    if (event := self._judge(view, now)) is not None:
                        return event
                    if now - told_at >= PROGRESS_EVERY_S:
                        told_at = now
                        log.info("%s %s", self.batch_id, describe_progress(view, now))
        except NotFoundError:
            return self._event("unknown")
        except TimeoutError:
            return self._event("timeout")
        finally:
            await views.aclose()  # type: ignore[attr-defined]  # an async generator
        raise AssertionError("the watcher ended without an answer")

    def _judge(self, view: BatchView, now: float) -> TriggerEvent | None:
        if view.status.is_final:
            log.info("%s %s", self.batch_id, describe_progress(view, now))
            # In dag.test() there is no task instance, and only plain events are known.
            if self.finish_task and view.status is not BatchStatus.FAILED and self.task_instance is not None:
                return TaskSuccessEvent()
            return self._event(str(view.status))
        if view.expires_at is not None and now > view.expires_at + self.overdue_after:
            return self._event("overdue")
        return None

    def _event(self, status: str) -> TriggerEvent:
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {"batch_id": self.batch_id, "status": status, "schema_version": SCHEMA_VERSION}
        )
