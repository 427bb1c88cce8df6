"""One watcher per running loop and connection serves all deferred tasks of a triggerer.

A thousand deferred tasks are one client, one loop and ten list pages a cycle instead of a thousand GETs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from airflow_openai_batch.errors import FatalAccountError, NotFoundError, OpenAIBatchError, RemoteError
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView, QueueSnapshot
from airflow_openai_batch.sending.queue.book import QueueBook
from airflow_openai_batch.triggers.batch_list import BatchList, BatchSource
from airflow_openai_batch.triggers.gauges import InFlight
from airflow_openai_batch.triggers.stall import Stall

log = logging.getLogger(__name__)

SOONER_AT_FIRST = 10
"""Times: how much sooner than after an interval a batch is looked at first."""
NOT_FOUND_TIMES = 3
"""A batch is gone only after so many cycles in a row that say so."""
AT_A_TIME = 25
"""Waiters that are told something before the loop gets its turn."""

Connect = Callable[[], Awaitable[BatchSource]]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A watched batch, and others that were created for the same send."""

    batch: BatchView
    twins: tuple[BatchView, ...] = ()
    """Batches with the same job_key that did not fail validation: a reply was lost, and a list lagged."""


@dataclass(frozen=True, slots=True)
class _Notice:
    """A line for the log of the waiting task; the watcher's own log belongs to none."""

    level: int
    text: str


@dataclass(eq=False, slots=True)
class _Waiter:
    """One deferred task; ``batch_id`` is ``None`` for those that wait for the queue."""

    batch_id: str | None
    poll_interval_s: float
    due_at: float
    """Of the loop's clock."""
    inbox: asyncio.Queue[Sighting | QueueSnapshot | _Notice | Exception] = field(
        default_factory=asyncio.Queue
    )
    not_found: int = 0


class BatchWatcher:
    """Fetches all watched batches together, cycle after cycle, as long as anyone watches."""

    def __init__(self, connect: Connect, conn_id: str = "") -> None:
        self._connect = connect
        self._in_flight = InFlight(conn_id)
        self._waiters: set[_Waiter] = set()
        self._joined = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._list = BatchList()
        self._queue = QueueBook()
        self._snapshot: QueueSnapshot | None = None
        self._stall: Stall | None = None

    async def follow(self, batch_id: str, poll_interval_s: float) -> AsyncIterator[Sighting]:
        """Every sight of a batch that a cycle brings, until the caller stops; the first after a tenth of an interval,
        so that a triggerer that was started anew knows soon, and waits that begin together share a look.

        Faults of the network and of the key are waited out, with a line in the caller's log.

        :raises NotFoundError: when OpenAI said several times in a row that it does not know the batch.
        :raises Exception: whatever ended the loop, which is a defect of ours and must not hang a task.
        """
        due_at = asyncio.get_running_loop().time() + poll_interval_s / SOONER_AT_FIRST
        with self._waiting(_Waiter(batch_id, poll_interval_s, due_at)) as waiter:
            while True:
                message = await _receive(waiter)
                if isinstance(message, Sighting):
                    yield message

    async def follow_queue(self, poll_interval_s: float) -> AsyncIterator[QueueSnapshot]:
        """What is in flight in the whole account, cycle after cycle; the latest at once if it is not older.

        The first cycle goes through the list of the last 26 hours (40 pages at most), later ones through what is
        new and what was still running. Faults are waited out as by `follow`.

        :raises Exception: as `follow`.
        """
        now, age_s = asyncio.get_running_loop().time(), self._snapshot_age_s()
        waiter = _Waiter(None, poll_interval_s, now)
        if self._snapshot is not None and age_s < poll_interval_s:
            waiter.due_at = now + poll_interval_s - age_s
            waiter.inbox.put_nowait(self._snapshot)
        with self._waiting(waiter):
            while True:
                message = await _receive(waiter)
                if (
                    isinstance(message, QueueSnapshot) and message is self._snapshot
                ):  # not one that is outdated
                    yield message

    def _snapshot_age_s(self) -> float:
        return max(0.0, time.time() - self._snapshot.at) if self._snapshot is not None else 0.0

    @contextlib.contextmanager
    def _waiting(self, waiter: _Waiter) -> Iterator[_Waiter]:
        """The first one starts the loop; the last one ends it, and with it the client, at once."""
        self._waiters.add(waiter)
        self._joined.set()
        if self._loop_task is None or self._loop_task.done():
            # A context of its own: what the loop logs belongs to no task, least of all to the one that came first.
            self._loop_task = asyncio.create_task(
                self._run(), name="openai-batch-watcher", context=contextvars.Context()
            )
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._in_flight.show({}, (), time.time())
                if self._loop_task is not None:
                    self._loop_task.cancel()
                    self._loop_task = None

    async def _run(self) -> None:
        self._stall = None
        async with _Client(self._connect) as client:
            try:
                while self._waiters:
                    await self._sleep()
                    try:
                        await self._cycle(await client.get())
                    except OpenAIBatchError as error:
                        await self._meet(error, client)
            except Exception as error:
                log.exception("The watcher of OpenAI batches broke.")
                waiters, self._waiters, self._loop_task = self._waiters, set(), None  # the next starts afresh
                for waiter in waiters:
                    waiter.inbox.put_nowait(error)

    async def _sleep(self) -> None:
        """Until the first one is due; who comes meanwhile may be due sooner."""
        while (wait_s := min(waiter.due_at for waiter in self._waiters) - _now()) > 0:
            self._joined.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._joined.wait()

    async def _meet(self, error: OpenAIBatchError, client: _Client) -> None:
        stall = self._stall = self._stall or Stall(_now())
        text = stall.meet(error, _now())
        if text is not None:
            await self._tell_all(_Notice(logging.WARNING, text))
        if isinstance(error, FatalAccountError):
            await client.drop()  # the key may have been rotated: read the connection again
        await asyncio.sleep(stall.wait_s(error.retry_after_s if isinstance(error, RemoteError) else None))

    async def _cycle(self, client: BatchSource) -> None:
        now, at = _now(), time.time()
        due = self._take_due(now)
        wanted = {waiter.batch_id for waiter in due if waiter.batch_id is not None}
        for_queue = any(waiter.batch_id is None for waiter in due)
        views: dict[str, BatchView] = {}
        pages = self._list.look(
            client,
            wanted,
            hoped=self._queue.ids if for_queue else (),
            since=self._queue.since(at) if for_queue else None,
        )
        try:
            async for page in pages:
                views.update((view.id, view) for view in page)
        except OpenAIBatchError:
            await self._tell_seen(views)
            raise
        if self._stall is not None:
            await self._tell_all(_Notice(logging.INFO, self._stall.end(_now())))
            self._stall = None
        await self._tell_seen(views)
        self._in_flight.show(views, {each.batch_id for each in self._waiters if each.batch_id}, at)
        for waiter in due:
            waiter.due_at = now + waiter.poll_interval_s
        unknown = wanted - views.keys()
        self._count_unknown(waiter for waiter in due if waiter.batch_id in unknown)
        if for_queue:
            self._snapshot = self._queue.take(views.values(), at)
            await self._tell_all(self._snapshot, [each for each in self._waiters if each.batch_id is None])
        self._list.keep_only(
            {each.batch_id for each in self._waiters if each.batch_id}.union(self._queue.ids)
        )

    def _take_due(self, now: float) -> list[_Waiter]:
        """Who is due, and who will be before half a cycle of the fastest is over: they share this one."""
        fastest_s = min(waiter.poll_interval_s for waiter in self._waiters)
        return [waiter for waiter in self._waiters if waiter.due_at <= now + fastest_s / 2]

    async def _tell_seen(self, views: dict[str, BatchView]) -> None:
        """Whoever's batch was seen is told, also who is not due yet: it cost nothing."""
        by_key: defaultdict[str, list[BatchView]] = defaultdict(list)
        for view in views.values():
            if view.job_key is not None and view.status is not BatchStatus.FAILED:
                by_key[view.job_key].append(view)
        for count, waiter in enumerate(list(self._waiters)):
            seen = views.get(waiter.batch_id or "")
            if seen is not None:
                waiter.not_found = 0
                alike = by_key.get(seen.job_key or "", ())
                waiter.inbox.put_nowait(Sighting(seen, tuple(each for each in alike if each.id != seen.id)))
            if count % AT_A_TIME == 0:
                await asyncio.sleep(0)

    async def _tell_all(
        self, message: QueueSnapshot | _Notice, waiters: Collection[_Waiter] | None = None
    ) -> None:
        for count, waiter in enumerate(list(self._waiters) if waiters is None else waiters):
            waiter.inbox.put_nowait(message)
            if count % AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _count_unknown(self, waiters: Iterable[_Waiter]) -> None:
        for waiter in waiters:
            waiter.not_found += 1
            if waiter.not_found >= NOT_FOUND_TIMES:
                waiter.inbox.put_nowait(
                    NotFoundError(f"The server does not know {waiter.batch_id} (any more).")
                )


class _Client:
    """The client of one run of the loop: made when it is needed, closed when the run ends."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._client: BatchSource | None = None

    async def get(self) -> BatchSource:
        if self._client is None:
            self._client = await self._connect()
        return self._client

    async def drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    async def __aenter__(self) -> _Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()


async def _receive(waiter: _Waiter) -> Sighting | QueueSnapshot | None:
    """The next message; lines for the log are written here, where the log is the waiting task's own."""
    message = await waiter.inbox.get()
    if isinstance(message, Exception):
        raise message
    if isinstance(message, _Notice):
        log.log(message.level, message.text)
        return None
    return message


def _now() -> float:
    return asyncio.get_running_loop().time()


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, BatchWatcher]] = WeakKeyDictionary()


def get_watcher(conn_id: str, connect: Connect) -> BatchWatcher:
    """The watcher of the running loop for this connection."""
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    return watchers.setdefault(conn_id, BatchWatcher(connect, conn_id))
