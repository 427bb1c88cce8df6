"""One watcher waits for all: against a real server, with faults, and without stalling the loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError, NotFoundError
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView, QueueSnapshot
from airflow_openai_batch.triggers.watcher import BatchWatcher, Sighting, get_watcher
from triggers.account import count_calls, create_batches, make_connect

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from airflow_openai_batch.triggers.batch_list import BatchSource


async def wait_final(watcher: BatchWatcher, batch_id: str, poll_interval_s: float = 0.1) -> BatchView:
    async for sighting in watcher.follow(batch_id, poll_interval_s):
        if sighting.batch.status.is_final:
            return sighting.batch
    raise AssertionError


async def first(things: AsyncIterator[Any]) -> Any:
    """The first thing, and no more."""
    try:
        return await asyncio.wait_for(anext(things), 20)
    finally:
        await things.aclose()  # type: ignore[attr-defined]  # an async generator


async def wait_for_calls(server: OpenAIServer, count: int) -> None:
    while count_calls(server) < count:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.05)


@pytest.fixture
def short_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_openai_batch.triggers.stall.WAIT_MAX_S", 0.1)


async def test_many_waiters_share_a_handful_of_calls(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=0.3)
    ids = create_batches(openai_server, 150)
    watcher = BatchWatcher(make_connect(openai_server))
    views = await asyncio.gather(*(wait_final(watcher, batch_id, 0.5) for batch_id in ids))
    assert {view.id for view in views} == set(ids)
    assert all(view.status is BatchStatus.COMPLETED for view in views)
    assert count_calls(openai_server) <= 3 * 2  # at most three cycles of two pages


@pytest.mark.usefixtures("short_stalls")
async def test_faults_are_waited_out_and_a_rotated_key_is_read_anew(openai_server: OpenAIServer) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    openai_server.script(http="GET /batches", status=503, times=2)
    openai_server.script(http="GET /batches", drop="before", times=2)
    openai_server.script(http="GET /batches", truncate_bytes=20, times=1)
    openai_server.script(http="GET /batches", status=429, code="rate_limit_exceeded", times=1)
    openai_server.script(http="GET /batches", status=401, code="invalid_api_key", times=1)
    openai_server.script(http="GET /batches", status=403, times=1)
    keys: list[str] = []
    watcher = BatchWatcher(make_connect(openai_server, lambda: keys.append("k") or "any"))  # type: ignore[func-returns-value]
    view = await asyncio.wait_for(wait_final(watcher, batch_id), 30)
    assert view.status is BatchStatus.COMPLETED
    assert len(keys) == 3  # at first, after 401, and after 403


@pytest.mark.usefixtures("short_stalls")
async def test_a_connection_that_is_away_for_a_while_is_waited_for(openai_server: OpenAIServer) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    tries = 0

    async def connect() -> BatchSource:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConfigError("connection 'c' does not exist.")
        return await make_connect(openai_server)()

    assert (await wait_final(BatchWatcher(connect), batch_id)).id == batch_id


async def test_what_the_server_asks_to_wait_is_waited(openai_server: OpenAIServer) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    openai_server.script(http="GET /batches", status=429, code="rate_limit_exceeded", retry_after_s=3)
    began = time.monotonic()
    await wait_final(BatchWatcher(make_connect(openai_server)), batch_id)
    assert time.monotonic() - began >= 3  # it would be two at most by our own choice
    assert count_calls(openai_server) == 2


@pytest.mark.usefixtures("short_stalls")
async def test_a_stall_is_one_warning_and_one_line_when_it_is_over(
    openai_server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="airflow_openai_batch")
    (batch_id,) = create_batches(openai_server, 1)
    openai_server.script(http="GET /batches", status=502, times=5)
    await wait_final(BatchWatcher(make_connect(openai_server)), batch_id)
    begun, over = (record for record in caplog.records if record.name.startswith("airflow_openai_batch"))
    assert begun.levelname == "WARNING"
    assert "listing batches: the server answered 502" in begun.message
    assert "again" in over.message
    assert "5 faults" in over.message


async def test_what_came_before_a_fault_is_not_lost(openai_server: OpenAIServer) -> None:
    ids = create_batches(openai_server, 150)
    openai_server.script(http="GET /batches", skip=1, status=503, times=None)
    watcher = BatchWatcher(make_connect(openai_server))
    waits = [asyncio.create_task(wait_final(watcher, batch_id)) for batch_id in ids]
    done, pending = await asyncio.wait(waits, timeout=2)
    assert {task.result().id for task in done} == set(ids[50:])  # the first page
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def test_a_batch_is_gone_only_after_several_answers_that_say_so(openai_server: OpenAIServer) -> None:
    openai_server.configure(list_lag_s=3600)
    (known,) = create_batches(openai_server, 1)
    openai_server.script(http="GET /batches/*", status=404, times=2)
    watcher = BatchWatcher(make_connect(openai_server))
    assert (await wait_final(watcher, known)).id == known
    with pytest.raises(NotFoundError, match="batch_nowhere"):
        await asyncio.wait_for(wait_final(watcher, "batch_nowhere"), 20)


async def test_a_crash_reaches_every_waiter_and_the_next_one_gets_a_fresh_loop(
    openai_server: OpenAIServer,
) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    broken = True

    async def connect() -> BatchSource:
        if broken:
            raise ZeroDivisionError("a defect")
        return await make_connect(openai_server)()

    watcher = BatchWatcher(connect)
    results = await asyncio.gather(
        *(wait_final(watcher, f"batch_{n}") for n in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [ZeroDivisionError] * 3
    broken = False
    assert (await wait_final(watcher, batch_id)).id == batch_id


async def test_the_last_waiter_closes_the_client_at_once(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=60)
    first_id, second_id = create_batches(openai_server, 2)
    clients: list[Any] = []

    async def connect() -> BatchSource:
        clients.append(await make_connect(openai_server)())
        return clients[-1]  # type: ignore[no-any-return]

    watcher = BatchWatcher(connect)
    leaving = asyncio.create_task(wait_final(watcher, first_id))
    staying = asyncio.create_task(wait_final(watcher, second_id))
    await wait_for_calls(openai_server, 2)
    leaving.cancel()
    await wait_for_calls(openai_server, count_calls(openai_server) + 1)  # it stops nobody
    staying.cancel()
    await asyncio.gather(leaving, staying, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert len(clients) == 1
    assert clients[0]._openai.is_closed()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "openai-batch-watcher"]


async def test_each_is_served_at_its_own_pace_without_a_call_more_than_the_fastest_needs(
    openai_server: OpenAIServer,
) -> None:
    openai_server.configure(in_progress_s=60)
    quick, slow = create_batches(openai_server, 2)
    watcher = BatchWatcher(make_connect(openai_server))
    looks: dict[str, int] = {quick: 0, slow: 0}

    async def follow(batch_id: str, interval_s: float) -> None:
        async for sighting in watcher.follow(batch_id, interval_s):
            looks[sighting.batch.id] += 1

    tasks = [asyncio.create_task(follow(quick, 0.4)), asyncio.create_task(follow(slow, 1.1))]
    await asyncio.sleep(3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 6 <= looks[quick] <= 8  # the first comes sooner
    assert looks[slow] >= 2
    assert count_calls(openai_server) in (looks[quick], looks[quick] + 1)


async def test_the_first_look_is_not_a_whole_interval_away(openai_server: OpenAIServer) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    began = time.monotonic()
    assert (
        await first(BatchWatcher(make_connect(openai_server)).follow(batch_id, 10.0))
    ).batch.id == batch_id
    assert time.monotonic() - began < 5


async def test_another_batch_of_the_same_send_is_noticed(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=60)
    openai_server.script(batch="failed", code="invalid_json_line", nth=3)
    first_id, second_id, _, other, fresh = create_batches(openai_server, 5, job_keys=["k", "k", "k", "j"])
    watcher = BatchWatcher(make_connect(openai_server))
    sightings: list[Sighting] = await asyncio.gather(
        *(first(watcher.follow(each, 0.1)) for each in (first_id, second_id, other, fresh))
    )
    twins = {sighting.batch.id: [twin.id for twin in sighting.twins] for sighting in sightings}
    assert twins == {first_id: [second_id], second_id: [first_id], other: [], fresh: []}


async def test_the_queue_is_all_that_is_in_flight_and_later_only_what_is_new_is_listed(
    openai_server: OpenAIServer,
) -> None:
    openai_server.configure(in_progress_s=3600)
    openai_server.script(batch="failed", code="token_limit_exceeded", times=40)
    refused = create_batches(openai_server, 40)
    running = create_batches(openai_server, 200)
    watcher = BatchWatcher(make_connect(openai_server))
    snapshots = watcher.follow_queue(0.2)
    snapshot: QueueSnapshot = await anext(snapshots)
    assert [view.id for view in snapshot.batches] != []
    assert {view.id for view in snapshot.batches} == set(running)
    assert snapshot.batches[0].model == "gpt-4o-mini"
    assert snapshot.created_last_hour == len(refused) + len(running)
    assert count_calls(openai_server) == 3

    openai_server.clock.advance(3600)  # they end
    new = create_batches(openai_server, 5)
    while {view.id for view in snapshot.batches} != set(new):
        snapshot = await anext(snapshots)
    calls = count_calls(openai_server)
    await anext(snapshots)
    await anext(snapshots)
    assert count_calls(openai_server) - calls == 2  # a page a cycle
    await snapshots.aclose()  # type: ignore[attr-defined]


async def test_who_comes_later_to_the_queue_is_told_at_once_without_a_call(
    openai_server: OpenAIServer,
) -> None:
    openai_server.configure(in_progress_s=3600)
    create_batches(openai_server, 3)
    watcher = BatchWatcher(make_connect(openai_server))
    snapshots = watcher.follow_queue(60)
    snapshot = await anext(snapshots)
    calls = count_calls(openai_server)
    later = await asyncio.gather(*(first(watcher.follow_queue(60)) for _ in range(50)))
    assert all(each is snapshot for each in later)
    assert count_calls(openai_server) == calls
    await snapshots.aclose()  # type: ignore[attr-defined]


async def test_the_loop_is_not_stalled(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=0.5, latency_s=0.2)
    ids = create_batches(openai_server, 20)
    connect = make_connect(openai_server)
    client = await connect()  # as `connect` does it in a thread
    await client.list_page(None)  # what is imported at the first call

    async def connected() -> BatchSource:
        return client

    watcher = BatchWatcher(connected)
    worst = 0.0

    async def heartbeat() -> None:
        nonlocal worst
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.01)
            worst = max(worst, time.thread_time() - before)  # of this thread: the machine may be busy

    beat = asyncio.create_task(heartbeat())
    await asyncio.gather(*(wait_final(watcher, batch_id) for batch_id in ids))
    beat.cancel()
    assert worst < 0.1


async def test_a_watcher_per_connection(openai_server: OpenAIServer) -> None:
    connect = make_connect(openai_server)
    assert get_watcher("a", connect) is get_watcher("a", connect)
    assert get_watcher("a", connect) is not get_watcher("b", connect)
