"""From "this batch is over" to the tasks that wait for it, in the background and within bounds.

Nothing is kept beyond the process: what a crash loses, the next poll of the trigger finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import NotFoundError
from airflow_openai_batch.plugin.webhooks.deferred_tasks import Waiting, find_waiting, is_busy, resume
from airflow_openai_batch.plugin.webhooks.trigger_probe import LOOK_EVERY_S, ask_trigger
from airflow_openai_batch.triggers.held import find_min_age_s

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.batch import BatchView

log = logging.getLogger(__name__)

MOST_PENDING = 2_000
"""Events that are seen to at the same time; most of them sleep."""
MOST_REMEMBERED = 10_000
AT_ONCE = 4
"""Questions to the database at the same time."""
END_WITHIN_S = 120.0
"""A batch of which OpenAI says that it is over, and then shows it running."""
LOOKS_S = (0.0, 5.0, 10.0, 20.0, 40.0)
"""Seconds before each look for a task that waits: it may be about to defer."""
BUSY_LOOKS_S = (30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1_800.0)
"""And then, while the task that created the batch runs: one with a whole job may land other shards for long."""


class Wakes:
    """Events under way, and the ids of those that were taken."""

    def __init__(self) -> None:
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._pending: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    def take(self, delivery: str, conn_id: str, batch_id: str) -> bool:
        """Begin with an event, unless it was taken before; false if there are too many under way.

        :param delivery: the ``webhook-id``; OpenAI delivers at least once.
        """
        if delivery in self._taken or (conn_id, batch_id) in self._pending:
            return True
        if len(self._pending) >= MOST_PENDING:
            return False
        self._taken[delivery] = None
        if len(self._taken) > MOST_REMEMBERED:
            self._taken.popitem(last=False)
        task = asyncio.create_task(self._wake_or_tell(conn_id, batch_id), name=f"wake for {batch_id}")
        self._pending[conn_id, batch_id] = task
        task.add_done_callback(lambda _: self._pending.pop((conn_id, batch_id), None))
        return True

    async def _wake_or_tell(self, conn_id: str, batch_id: str) -> None:
        try:
            await self._wake(conn_id, batch_id)
        except Exception as error:  # whatever it is, Airflow's internals included
            kind = type(error).__name__  # the text may quote the database or an answer
            log.warning(
                "Nobody was woken for %s, polling goes on (%s).",
                batch_id,
                kind,
                exc_info=log.isEnabledFor(logging.DEBUG),
            )

    async def _wake(self, conn_id: str, batch_id: str) -> None:
        batch = await see_end(conn_id, batch_id)
        if batch is None:
            return
        for look, pause_s in enumerate((*LOOKS_S, *BUSY_LOOKS_S)):
            if look >= len(LOOKS_S) and not await self._in_turn(asyncio.to_thread(is_busy, batch.metadata)):
                break
            await asyncio.sleep(pause_s)
            found = await self._in_turn(asyncio.to_thread(find_waiting, batch_id, batch.metadata))
            if found:
                await asyncio.gather(*(self._wake_one(waiting, batch_id) for waiting in found))
            if found or batch.job_key is None:
                return
        log.info("Nobody waits for %s.", batch_id)

    async def _wake_one(self, waiting: Waiting, batch_id: str) -> None:
        await asyncio.sleep(max(0.0, waiting.since + find_min_age_s() - time.time()))
        event = await ask_trigger(waiting.classpath, waiting.arguments, batch_id)
        if event is not None and await self._in_turn(asyncio.to_thread(resume, waiting, event)):
            log.info("%s goes on: %s is over.", waiting.name, batch_id)

    async def _in_turn(self, work: Coroutine[Any, Any, Any]) -> Any:
        async with self._turn:
            return await work


async def see_end(conn_id: str, batch_id: str) -> BatchView | None:
    """The batch as the connection shows it, once it is final; ``None`` if it is not there or does not end."""
    from airflow_openai_batch.triggers.connect import find_watcher

    sightings = find_watcher(conn_id).follow(batch_id, LOOK_EVERY_S)
    try:
        async with asyncio.timeout(END_WITHIN_S), contextlib.aclosing(sightings):  # type: ignore[type-var]
            async for sighting in sightings:
                if sighting.batch.status.is_final:
                    return sighting.batch
    except NotFoundError:
        log.info("Connection %r does not lead to %s.", conn_id, batch_id)
    except TimeoutError:
        log.info("%s is said to be over, and is not.", batch_id)
    return None
