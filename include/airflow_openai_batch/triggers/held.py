"""What all our triggers share: they leave a task alone for a moment after it was deferred.

The process that deferred the task lingers for as long as ``[workers] min_heartbeat_interval``, and only then the
scheduler hears of its end. Where an event has sent the task back to a worker by then, the scheduler takes that end for
the new process's and fails the task ("finished with state success, but the task instance's state attribute is queued").
An event that ends the task right in the triggerer queues nothing and is not held.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTaskEndEvent, BaseTrigger, TriggerEvent

from airflow_openai_batch.access.settings import SECTION

MIN_AGE_S = 10.0
"""See `find_min_age_s`, for Airflow's default of 5 s."""


def find_min_age_s() -> float:
    """No task is resumed sooner after it was deferred: ``[openai_batch] min_deferral``, else two heartbeats."""
    said = str(conf.get(SECTION, "min_deferral", fallback="") or "").strip()
    if said:
        return max(0.0, float(said))
    return max(MIN_AGE_S, 2.0 * float(conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)))


class HeldTrigger(BaseTrigger):
    """Base of all our triggers. Fires once; subclasses find the event."""

    poll_interval: float = 0.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.holds = True
        """Whether events are held; whoever runs a trigger within another, or asks it for a task that has waited long
        enough, sets it to false."""
        self.was_cancelled = False
        self._began = 0.0

    @abstractmethod
    async def find_event(self) -> TriggerEvent:
        """Wait for what is to be told."""

    def is_progress(self, event: TriggerEvent) -> bool:
        """Whether the task can go on with this. All else is said no more often than once in ``poll_interval``."""
        return False

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self._began = _now()
        try:
            event = await self.find_event()
            if not isinstance(event, BaseTaskEndEvent):
                await asyncio.sleep(self.hold_left_s(progress=self.is_progress(event)))
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        yield event

    def hold_left_s(self, *, progress: bool = False) -> float:
        """For how long an event has still to wait. Not in ``dag.test()``, where there is no worker to wait for and no
        task instance."""
        if not self.holds or self.task_instance is None:
            return 0.0
        wanted_s = find_min_age_s() if progress else max(find_min_age_s(), read_seconds(self.poll_interval))
        return max(0.0, self._began + wanted_s - _now())


def read_seconds(value: Any) -> float:
    """Of an argument that anybody may have stored."""
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        return 60.0


def _now() -> float:
    return asyncio.get_running_loop().time()
