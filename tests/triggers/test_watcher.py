"""One watcher waits for all: against a real server, with faults, and without stalling the loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import openai
import pytest

from airflow_openai_batch.client import AsyncBatchClient
from airflow_openai_batch.core.batch_view import BatchStatus, BatchView
from airflow_openai_batch.core.errors import NotFoundError
from airflow_openai_batch.triggers.batch_list import BatchList
from airflow_openai_batch.triggers.watcher import BatchWatcher

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

LINE = json.dumps(
    {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]},
    }
).encode()


def create_batches(server: OpenAIServer, count: int) -> list[str]:
    client = openai.OpenAI(base_url=server.base_url, api_key="any")
    file_id = client.files.create(file=("f.jsonl", LINE), purpose="batch").id
    return [
        client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        for _ in range(count)
    ]


def client_factory(
    server: OpenAIServer, key: Callable[[], str] = lambda: "any"
) -> Callable[[], Awaitable[AsyncBatchClient]]:
    async def make() -> AsyncBatchClient:
        return AsyncBatchClient(openai.AsyncOpenAI(base_url=server.base_url, api_key=key()))

    return make


async def wait_final(watcher: BatchWatcher, batch_id: str, poll_interval_s: float = 0.1) -> BatchView:
    async for sighting in watcher.follow(batch_id, poll_interval_s):
        if sighting.batch.status.is_final:
            return sighting.batch
    raise AssertionError


async def test_many_waiters_share_a_handful_of_calls(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=0.3)
    ids = create_batches(openai_server, 150)
    before = openai_server.books.calls.total()
    watcher = BatchWatcher(client_factory(openai_server))
    views = await asyncio.gather(*(wait_final(watcher, batch_id, 0.5) for batch_id in ids))
    assert {view.id for view in views} == set(ids)
    assert all(view.status is BatchStatus.COMPLETED for view in views)
    assert openai_server.books.calls.total() - before <= 3 * 2  # at most three cycles of two pages


async def test_faults_are_waited_out_and_a_rotated_key_is_read_anew(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    monkeypatch.setattr("airflow_openai_batch.triggers.stall.WAIT_MAX_S", 0.1)
    openai_server.script(http="GET /batches", status=503, times=2)
    openai_server.script(http="GET /batches", drop="before", times=2)
    openai_server.script(http="GET /batches", status=429, code="rate_limit_exceeded", times=1)
    openai_server.script(http="GET /batches", status=401, code="invalid_api_key", times=2)
    keys: list[str] = []
    watcher = BatchWatcher(client_factory(openai_server, lambda: keys.append("k") or "any"))  # type: ignore[func-returns-value]
    view = await asyncio.wait_for(wait_final(watcher, batch_id), 20)
    assert view.status is BatchStatus.COMPLETED
    assert len(keys) == 3  # at first, and after each 401


async def test_a_batch_is_gone_only_after_several_answers_that_say_so(openai_server: OpenAIServer) -> None:
    (known,) = create_batches(openai_server, 1)
    openai_server.script(http="GET /batches/*", status=404, times=2)
    watcher = BatchWatcher(client_factory(openai_server))
    assert (await wait_final(watcher, known)).id == known
    with pytest.raises(NotFoundError, match="batch_nowhere"):
        await asyncio.wait_for(wait_final(watcher, "batch_nowhere"), 20)


async def test_a_crash_of_the_loop_reaches_every_waiter() -> None:
    async def broken() -> AsyncBatchClient:
        raise ZeroDivisionError("a defect")

    watcher = BatchWatcher(broken)
    results = await asyncio.gather(
        *(wait_final(watcher, f"batch_{n}") for n in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [ZeroDivisionError] * 3


async def test_a_waiter_that_leaves_stops_nobody_and_the_last_one_closes_the_client(
    openai_server: OpenAIServer,
) -> None:
    openai_server.configure(in_progress_s=0.6)
    first, second = create_batches(openai_server, 2)
    watcher = BatchWatcher(client_factory(openai_server))
    leaving = asyncio.create_task(wait_final(watcher, first))
    staying = asyncio.create_task(wait_final(watcher, second))
    await asyncio.sleep(0.25)
    leaving.cancel()
    assert (await staying).id == second
    await asyncio.sleep(0.3)
    calls = openai_server.books.calls.total()
    await asyncio.sleep(0.3)
    assert openai_server.books.calls.total() == calls  # nobody watches, nobody asks


async def test_the_loop_is_not_stalled(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=0.5, latency_s=0.2)
    ids = create_batches(openai_server, 20)
    watcher = BatchWatcher(client_factory(openai_server))
    worst = 0.0

    async def heartbeat() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            worst = max(worst, time.perf_counter() - before - 0.01)

    beat = asyncio.create_task(heartbeat())
    await asyncio.gather(*(wait_final(watcher, batch_id) for batch_id in ids))
    beat.cancel()
    assert worst < 0.2  # Airflow logs a warning from here on


async def test_a_batch_far_down_the_list_is_fetched_alone(openai_server: OpenAIServer) -> None:
    ids = create_batches(openai_server, 220)
    client = await client_factory(openai_server)()
    before = openai_server.books.calls.total()
    wanted = {ids[0], ids[-1]}
    views = [view async for page in BatchList().look(client, wanted) for view in page]
    assert wanted <= {view.id for view in views}
    assert openai_server.books.calls.total() - before <= 3
    await client.close()
