"""What a user did to a deferred task, and what follows for its batch.

Tried on Airflow 3.3.2: a trigger's ``on_kill`` runs after mark failed, mark success, clear and failing the DAG run
alike, and also in a triggerer whose heartbeat was late, for all triggers that another one took over. It is not told
which. The state of the task instance says it, and can be asked for through the supervisor: ``failed`` after mark
failed and after failing the run; ``success``; nothing, ``scheduled`` or later after clear; ``deferred`` after a
takeover. A run that exceeds its ``dagrun_timeout`` leaves its tasks ``skipped`` and is itself ``failed``.

Two things make ``on_kill`` more brittle than it looks. While a trigger winds up, 3.3.2 cancels it anew every second,
``on_kill`` included, and says nothing of it: what must not be cut off runs in a task of its own. And the first
question to the supervisor makes it load Airflow's API, for seconds, on a busy machine for as long as ``on_kill`` may
take: it is asked once beforehand.

Airflow before 3.3 has no ``on_kill``: there, a cancelled ``run`` may mean any of this or that the triggerer stops, and
the state tells these apart just the same (``deferred`` where the triggerer stops). On 3.1 nothing can be asked, see
`CAN_ASK`, and the batch goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS
from asgiref.sync import sync_to_async

from airflow_openai_batch.errors import NotFoundError, TransientError
from airflow_openai_batch.server_words import describe_error

if TYPE_CHECKING:
    from airflow_openai_batch.triggers.batch_list import BatchSource

log = logging.getLogger(__name__)

CAN_ASK = AIRFLOW_V_3_2_PLUS
"""In 3.1.0, a question that a cancelled trigger asks mixes up the answers to all, and the whole triggerer ends."""
KILL_TIMEOUT_S = 25.0
"""Airflow gives ``on_kill`` 30 s."""
TRIES = 4
TRY_AGAIN_S = 1.0


_running: set[asyncio.Task[None]] = set()
_warm = False


def warm_up(task_instance: Any) -> None:
    """Ask the supervisor for a state, once per process and without waiting for it; in vain if it cannot be had."""
    global _warm
    if not _warm:
        _warm = True
        _start(_ask_in_vain(task_instance))


async def _ask_in_vain(task_instance: Any) -> None:
    with contextlib.suppress(Exception):
        await is_given_up(task_instance)


async def cancel_if_given_up(
    batch_id: str, task_instance: Any, connect: Callable[[], Awaitable[BatchSource]]
) -> None:
    """Cancel the batch if its task was marked failed, or its run was. Never raises: the task is over.

    Goes on when it is cancelled itself, unless all tasks of the loop are, as when the triggerer stops.
    """
    task = _start(_cancel_if_given_up(batch_id, task_instance, connect))
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise


def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _running.add(task)  # the loop itself holds tasks only weakly
    task.add_done_callback(_running.discard)
    return task


async def _cancel_if_given_up(
    batch_id: str, task_instance: Any, connect: Callable[[], Awaitable[BatchSource]]
) -> None:
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            if not await is_given_up(task_instance):
                log.info("%s goes on: its task was not marked failed.", batch_id)
                return
            await _cancel(batch_id, connect)
    except Exception as error:
        log.warning(
            "%s may go on: it could not be cancelled (%s). Cancel it at OpenAI, or run the job again, "
            "which waits for it.",
            batch_id,
            describe_error(error),
        )
    else:
        log.info(
            "The task was marked failed: %s is being cancelled. What it has finished by then is paid for, and is "
            "collected when the task is cleared or the job runs again.",
            batch_id,
        )


async def is_given_up(task_instance: Any) -> bool:
    """Whether the task instance, as the database has it now, is failed; or skipped, in a run that is failed."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    # In a thread of asgiref's, as Airflow's own triggers ask: older ones can answer only there.
    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    found = states.get(task_instance.run_id) or {}
    state = next(iter(found.values()), None)  # one instance was asked for
    if state == "skipped":
        run_state = await sync_to_async(RuntimeTaskInstance.get_dagrun_state)(
            task_instance.dag_id, task_instance.run_id
        )
        return bool(run_state == "failed")
    return bool(state == "failed")


async def _cancel(batch_id: str, connect: Callable[[], Awaitable[BatchSource]]) -> None:
    """A batch that is final already, or unknown, is left as it is."""
    client = await connect()
    try:
        for count in range(1, TRIES + 1):
            try:
                await client.cancel(batch_id)
            except NotFoundError:
                return
            except TransientError:
                if count == TRIES:
                    raise
                await asyncio.sleep(TRY_AGAIN_S * count)
            else:
                return
    finally:
        await client.close()
