"""One watcher per running loop and connection serves all deferred tasks of a triggerer.

A thousand deferred tasks are one client, one loop and ten list pages a cycle instead of a thousand GETs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_openai_batch.client import PAGE, AsyncBatchClient
from airflow_openai_batch.core.errors import FatalAccountError, NotFoundError, RemoteError

if TYPE_CHECKING:
    from airflow_openai_batch.core.batch_view import BatchView

log = logging.getLogger(__name__)

FAULT_WAIT_MAX_S = 300.0
"""Longest wait between two cycles while OpenAI cannot be reached; there is no bound on how often."""
NOT_FOUND_TIMES = 3
"""A batch is gone only after so many cycles in a row that say so."""

ClientFactory = Callable[[], Awaitable[AsyncBatchClient]]


@dataclass(eq=False, slots=True)
class _Watch:
    batch_id: str
    poll_interval_s: float
    seen: asyncio.Queue[BatchView | Exception] = field(default_factory=asyncio.Queue)
    not_found: int = 0


class BatchWatcher:
    """Fetches all watched batches together, cycle after cycle, as long as anyone watches."""

    def __init__(self, make_client: ClientFactory) -> None:
        self._make_client = make_client
        self._client: AsyncBatchClient | None = None
        self._watches: set[_Watch] = set()
        self._loop_task: asyncio.Task[None] | None = None

    async def follow(self, batch_id: str, poll_interval_s: float) -> AsyncIterator[BatchView]:
        """Every view of a batch that a cycle brings, until the caller stops.

        Faults of the network and of the key are waited out, with one log line each.

        :raises NotFoundError: when OpenAI said several times in a row that it does not know the batch.
        :raises Exception: whatever ended the loop, which is a defect of ours and must not hang a task.
        """
        watch = _Watch(batch_id, poll_interval_s)
        self._watches.add(watch)
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._run(), name="openai-batch-watcher")
        try:
            while True:
                view = await watch.seen.get()
                if isinstance(view, Exception):
                    raise view
                yield view
        finally:
            self._watches.discard(watch)

    async def _run(self) -> None:
        faults = 0
        try:
            while self._watches:
                interval_s = min(watch.poll_interval_s for watch in self._watches)
                await asyncio.sleep(interval_s if not faults else _fault_wait_s(interval_s, faults))
                try:
                    await self._cycle()
                except RemoteError as error:
                    faults += 1
                    await self._meet_fault(error, faults)
                else:
                    faults = 0
        except Exception as error:
            log.exception("The watcher of OpenAI batches broke.")
            for watch in self._watches:
                watch.seen.put_nowait(error)
        finally:
            await self._drop_client()

    async def _meet_fault(self, error: RemoteError, faults: int) -> None:
        log.warning(
            "Watching %d batches: %s Waiting on (fault %d in a row).", len(self._watches), error, faults
        )
        if isinstance(error, FatalAccountError):
            await self._drop_client()  # the key may have been rotated: read the connection again

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    async def _cycle(self) -> None:
        if self._client is None:
            self._client = await self._make_client()
        wanted = {watch.batch_id for watch in self._watches}
        views = await fetch_views(self._client, wanted)
        for watch in list(self._watches):
            view = views.get(watch.batch_id)
            if view is not None:
                watch.not_found = 0
                watch.seen.put_nowait(view)
            elif watch.batch_id in wanted:
                watch.not_found += 1
                if watch.not_found >= NOT_FOUND_TIMES:
                    watch.seen.put_nowait(NotFoundError(f"OpenAI does not know {watch.batch_id} (any more)."))


async def fetch_views(client: AsyncBatchClient, wanted: set[str]) -> dict[str, BatchView]:
    """The wanted batches, by whichever way needs fewer calls; those OpenAI does not know are left out.

    Lists pages of 100, newest first, as long as a page may still bring more than its price of one call;
    what is left is fetched one by one.
    """
    views: dict[str, BatchView] = {}
    missing = set(wanted)
    after: str | None = None
    pages = 0
    while len(missing) > 1 and pages < len(wanted):
        page = await client.list_page(after)
        pages += 1
        found = {view.id: view for view in page if view.id in missing}
        views |= found
        missing -= found.keys()
        if len(page) < PAGE or (not found and pages > 1 + len(wanted) // PAGE):
            break
        after = page[-1].id
    for batch_id in missing:
        with contextlib.suppress(NotFoundError):
            views[batch_id] = await client.fetch(batch_id)
    return views


def _fault_wait_s(interval_s: float, faults: int) -> float:
    base = min(max(interval_s, 1.0) * 2 ** min(faults, 10), FAULT_WAIT_MAX_S)
    return float(base * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, not a secret


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, BatchWatcher]] = WeakKeyDictionary()


def get_watcher(conn_id: str, make_client: ClientFactory) -> BatchWatcher:
    """The watcher of the running loop for this connection."""
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    return watchers.setdefault(conn_id, BatchWatcher(make_client))
