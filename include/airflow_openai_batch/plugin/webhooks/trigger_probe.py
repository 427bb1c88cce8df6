"""A trigger as it stands in Airflow's database, narrowed to one batch and asked in this process what it would say.

The event is then what the trigger itself would have sent: a plain one, or the end of the task where it was told to
finish it, by the same code and after a look at OpenAI of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.triggers.first_of import fold_members, make_trigger, read_members
from airflow_openai_batch.triggers.held import HeldTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

BATCH_END = "airflow_openai_batch.triggers.batch.OpenAIBatchEndTrigger"
_FIRST_OF = "airflow_openai_batch.triggers.first_of.FirstOfTrigger"
TRIGGERS = (BATCH_END, _FIRST_OF)
"""Class paths of those that wait for batches."""
LOOK_EVERY_S = 1.0
ANSWER_WITHIN_S = 30.0


def find_batch_ids(classpath: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """The batches that a trigger waits for."""
    if classpath == BATCH_END:
        yield str(kwargs.get("batch_id"))
    elif classpath == _FIRST_OF:
        for path, arguments in read_members(kwargs).values():
            yield from find_batch_ids(path, arguments)


async def ask_trigger(classpath: str, kwargs: Mapping[str, Any], batch_id: str) -> TriggerEvent | None:
    """What the trigger says now of this batch; ``None`` if it would still wait.

    It is asked without the right to cancel anything or to land it, and of several shards only for those that wait for
    this batch.
    """
    trigger = make_trigger(classpath, _narrow(classpath, kwargs, batch_id))
    if isinstance(trigger, HeldTrigger):
        trigger.holds = False  # whoever asks has waited
    # Without a task instance it would take this for dag.test(), where it may not end a task.
    trigger.task_instance = SimpleNamespace(task_id=None)  # type: ignore[assignment]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_WITHIN_S), contextlib.aclosing(trigger.run()) as events:  # type: ignore[type-var]
            async for event in events:
                return event
    return None


def _narrow(classpath: str, kwargs: Mapping[str, Any], batch_id: str) -> dict[str, Any]:
    if classpath == BATCH_END:
        return {**kwargs, "poll_interval": LOOK_EVERY_S, "cancel_on_kill": False, "landing": None}
    members = {
        name: (path, _narrow(path, arguments, batch_id))
        for name, (path, arguments) in read_members(kwargs).items()
        if batch_id in find_batch_ids(path, arguments)
    }
    return {**kwargs, "triggers": {}, "tables": fold_members(members)}
