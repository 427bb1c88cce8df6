"""What OpenAI lists as in flight, by connection: asked once for all users of this API server, while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import OpenAIBatchError, RemoteError
from airflow_openai_batch.openai_api.account_limits import AccountLimits, QueueLimit
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView, QueueSnapshot, choose_kept
from airflow_openai_batch.openai_api.batch_durations import LOOK_BACK_S, BatchDurations, UsualDurations
from airflow_openai_batch.openai_api.models import base_model
from airflow_openai_batch.plugin.iso import to_iso
from airflow_openai_batch.plugin.usual import describe_usual
from airflow_openai_batch.sending.queue.book import QueueBook
from airflow_openai_batch.sending.queue.refusals import classify_refusal
from airflow_openai_batch.sending.queue.room import sum_held
from airflow_openai_batch.triggers.batch_list import BatchList, BatchSource, list_past

log = logging.getLogger(__name__)

CYCLE_S = 5.0
AFTER_ERROR_S = 20.0
NOBODY_LOOKS_S = 20.0
"""So long after the last request the asking ends and the client is closed."""
LIMITS_S = 60.0
MOST_BATCHES = 10_000
"""That are remembered for one connection, the newest; 1 KB each."""


class Account:
    """One connection's batches. Read from any thread; written by the asker's loop alone, whole objects at a time."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.batches: Mapping[str, BatchView] = {}
        """By job_key, the one that is kept, as last seen."""
        self.error: str | None = None
        self.snapshot: QueueSnapshot | None = None
        self.usual = UsualDurations()
        """How long batches take."""
        self.looked_at = 0.0
        """Monotonic: when somebody asked last."""
        self.running = False
        self._seen: dict[str, BatchView] = {}
        self._refused: dict[str, tuple[float, int]] = {}
        self._limits = AccountLimits()
        self._limits_at = 0.0
        self._list, self._book = BatchList(), QueueBook()
        self._durations, self._knows_past = BatchDurations(), False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Cycle after cycle, until nobody has looked for a while."""
        client: BatchSource | None = None
        try:
            while time.monotonic() - self.looked_at < NOBODY_LOOKS_S:
                wait_s = CYCLE_S
                try:
                    client = client or await self._connect()
                    await self._read_limits()
                    await self._cycle(client)
                    self.error = None
                except Exception as error:
                    wait_s = self._note(error)
                    await _close(client)
                    client = None  # the connection may have been corrected
                await asyncio.sleep(wait_s)
        finally:
            self.running = False
            await _close(client)

    async def _connect(self) -> BatchSource:
        check_conn_id(self.conn_id, Giver.CODE)  # a split pushed it, which has looked at who gave it
        from airflow_openai_batch.triggers.connect import connect  # the client's imports take a second

        return await connect(self.conn_id)

    async def _read_limits(self) -> None:
        if time.monotonic() - self._limits_at < LIMITS_S and self._limits_at:
            return
        from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook

        self._limits = await asyncio.to_thread(lambda: OpenAIBatchHook(self.conn_id).get_limits())
        self._limits_at = time.monotonic()

    def _note(self, error: Exception) -> float:
        """Seconds until the next try."""
        if not isinstance(error, OpenAIBatchError):
            log.warning("Connection %r: %s", self.conn_id, type(error).__name__)
            log.debug("The reason:", exc_info=error)
        known = str(error) if isinstance(error, OpenAIBatchError) else type(error).__name__
        self.error = f"OpenAI's list of batches cannot be read: {known[:300]}"
        asked_for = error.retry_after_s if isinstance(error, RemoteError) else None
        return max(AFTER_ERROR_S, asked_for or 0.0)

    async def _cycle(self, client: BatchSource) -> None:
        now = time.time()
        views: dict[str, BatchView] = {}
        async for page in self._list.look(client, (), hoped=self._book.ids, since=self._book.since(now)):
            views.update((view.id, view) for view in page)
        self.snapshot = self._book.take(views.values(), now)
        self._list.keep_only(self._book.ids)
        self._remember(views)
        self._learn(views.values())
        if not self._knows_past:
            async for page in list_past(client, now - LOOK_BACK_S):
                self._learn(page)
            self._knows_past = True

    def _learn(self, views: Iterable[BatchView]) -> None:
        if self._durations.add(views):
            self.usual = self._durations.sum_up()

    def _remember(self, views: Mapping[str, BatchView]) -> None:
        self._seen.update((batch_id, view) for batch_id, view in views.items() if view.job_key)
        if len(self._seen) > MOST_BATCHES:
            newest = sorted(self._seen.values(), key=lambda view: view.created_at)[-MOST_BATCHES:]
            self._seen = {view.id: view for view in newest}
        by_key: dict[str, list[BatchView]] = {}
        for view in self._seen.values():
            by_key.setdefault(view.job_key or "", []).append(view)
        self.batches = {key: choose_kept(alike)[0] or alike[0] for key, alike in by_key.items()}
        for view in views.values():
            if view.status is BatchStatus.FAILED and view.model:
                self._note_refusal(view)

    def _note_refusal(self, view: BatchView) -> None:
        refusal, queue = classify_refusal(view.errors), base_model(view.model or "")
        if refusal.kind == "queue_full" and refusal.limit is not None and refusal.unit == "tokens":
            self._refused[queue] = max(self._refused.get(queue, (0.0, 0)), (view.created_at, refusal.limit))

    def describe(
        self, models: Collection[str], own_keys: Collection[str], now: float
    ) -> list[dict[str, Any]]:
        """``QUEUE``s of the page's API.

        :param models: that are shown even if nothing of them is in flight.
        :param own_keys: job_keys of the jobs that are shown; what else is in flight is others'.
        :param now: Unix seconds.
        """
        if self.snapshot is None and self.error is None:
            return []  # not read yet
        by_model: dict[str, list[BatchView]] = {base_model(model): [] for model in models}
        for view in self.snapshot.batches if self.snapshot else ():
            if view.model:
                by_model.setdefault(base_model(view.model), []).append(view)
        return [self._describe(model, views, own_keys, now) for model, views in sorted(by_model.items())]

    def _describe(
        self, model: str, views: list[BatchView], own_keys: Collection[str], now: float
    ) -> dict[str, Any]:
        others = [view for view in views if view.job_key not in own_keys]
        limit, said_by = self._find_limit(model)
        oldest = min((view.created_at for view in views), default=None)
        return {
            "conn_id": self.conn_id,
            "model": model,
            "tokens_in_flight": _sum_tokens(views),
            "limit": limit,
            "limit_from": said_by,
            "batches": len(views),
            "others_tokens": _sum_tokens(others),
            "oldest_age_s": None if oldest is None else max(0.0, now - oldest),
            "usual": [describe_usual(usual) for usual in self.usual.list_model(model)],
            "at": to_iso(self.snapshot.at if self.snapshot else None),
            "error": self.error,
        }

    def _find_limit(self, model: str) -> tuple[int | None, str | None]:
        if model in self._refused:
            return self._refused[model][1], "refusal"
        limit: QueueLimit = self._limits.queue_limit(model)
        return limit.tokens, None if limit.tokens is None else "connection"


def _sum_tokens(views: Collection[BatchView]) -> int:
    return sum(held.tokens for held in sum_held(views).values())


async def _close(client: BatchSource | None) -> None:
    if client is not None:
        with contextlib.suppress(Exception):
            await client.close()


class KnownAccounts:
    """All connections that somebody looked at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Account] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def look(self, conn_id: str) -> Account:
        """What is known of a connection, and ask on for a while."""
        with self._lock:
            account = self._known.setdefault(conn_id, Account(conn_id))
            account.looked_at = time.monotonic()
            if not account.running:
                account.running = True
                asyncio.run_coroutine_threadsafe(account.run(), self._get_loop())
            return account

    def find(self, conn_id: str) -> Account:
        """What is known of a connection; nobody is asked for it."""
        return self._known.get(conn_id) or Account(conn_id)

    def _get_loop(self) -> asyncio.AbstractEventLoop:
        """On a thread of its own, begun at the first look: the API server's loop is never held up."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="openai-batch-lists", daemon=True).start()
        return self._loop


ACCOUNTS = KnownAccounts()
