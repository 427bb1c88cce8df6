"""The wait for the batch queue: real triggers on one loop, the real watcher, the emulator over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import openai
import pytest

from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.sending.queue.room import Need
from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger, get_room
from fixtures.wait import wait_until

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

MODEL = "gpt-4o-mini"
LIMIT = QueueLimit(tokens=1_000)


@pytest.fixture
def create_batch(openai_server: OpenAIServer) -> Callable[..., str]:
    """Create a batch as a worker does: with what it needs in its metadata."""
    client = openai.OpenAI(base_url=openai_server.base_url, api_key="any", max_retries=0)

    def create(job_key: str, tokens: int, model: str = MODEL) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "x" * 4 * tokens}]}
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
        file = client.files.create(file=("f.jsonl", json.dumps(line).encode()), purpose="batch")
        return client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"job_key": job_key, "input_tokens": str(tokens), "model": model},
        ).id

    return create


def trigger(job_key: str, tokens: int, limit: QueueLimit = LIMIT, **arguments: Any) -> OpenAIBatchRoomTrigger:
    """As Airflow has it: written to its database and read again."""
    made = OpenAIBatchRoomTrigger.for_need(
        Need(MODEL, tokens, 1, job_key),
        limit,
        **{"conn_id": "openai_default", "poll_interval": 0.1, **arguments},
    )
    path, stored = made.serialize()
    assert path == "airflow_openai_batch.triggers.room.OpenAIBatchRoomTrigger"
    return OpenAIBatchRoomTrigger(**json.loads(json.dumps(stored)))


async def fire(waiting: OpenAIBatchRoomTrigger) -> str:
    async for event in waiting.run():
        return str(event.payload["status"])
    raise AssertionError


@contextlib.asynccontextmanager
async def waiting(made: OpenAIBatchRoomTrigger):  # type: ignore[no-untyped-def]
    task = asyncio.create_task(fire(made))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_an_empty_queue_has_room_at_once(openai_conn: str) -> None:
    assert await asyncio.wait_for(fire(trigger("a", 1_000, poll_interval=60)), 10) == "room"


@pytest.mark.openai_server(in_progress_s=3_600, speed=0)
async def test_a_full_queue_is_waited_for_until_a_batch_ends(
    openai_server: OpenAIServer, openai_conn: str, create_batch: Callable[..., str]
) -> None:
    await asyncio.to_thread(create_batch, "running", 900)
    async with waiting(trigger("a", 200)) as task:
        await asyncio.sleep(0.5)
        assert not task.done()
        openai_server.clock.advance(3_700)
        assert await asyncio.wait_for(task, 10) == "room"


@pytest.mark.long
@pytest.mark.openai_server(in_progress_s=3_600)
async def test_many_that_wait_together_are_never_let_into_the_same_room(
    openai_server: OpenAIServer, openai_conn: str, create_batch: Callable[..., str]
) -> None:
    openai_server.configure(queue_limits={MODEL: 1_000}, list_lag_s=0.4)
    in_flight: list[str] = []

    async def run_shard(key: str) -> None:
        assert await fire(trigger(key, 300, asked_at=time.time())) == "room"
        in_flight.append(key)
        await asyncio.to_thread(create_batch, key, 300)

    shards = [asyncio.create_task(run_shard(str(number))) for number in range(7)]
    for finished in (3, 6, 7):
        await asyncio.sleep(2)
        assert len(in_flight) == finished
        openai_server.clock.advance(3_700)
    await asyncio.gather(*shards)
    assert not openai_server.books.refusals
    assert [set(in_flight[:3]), set(in_flight[3:6])] == [set("012"), set("345")]  # first come, first served


async def test_a_batch_that_is_over_before_anyone_looked_does_not_hold_its_room(
    openai_server: OpenAIServer, openai_conn: str, create_batch: Callable[..., str]
) -> None:
    for number in range(3):
        assert await asyncio.wait_for(fire(trigger(str(number), 1_000)), 5) == "room"
        await asyncio.to_thread(create_batch, str(number), 1_000)  # complete when it is first looked at


@pytest.mark.openai_server(in_progress_s=3_600, speed=0)
async def test_the_deadline_ends_the_wait(
    openai_server: OpenAIServer, openai_conn: str, create_batch: Callable[..., str]
) -> None:
    await asyncio.to_thread(create_batch, "running", 900)
    started = time.time()
    assert await fire(trigger("a", 200, deadline=started + 0.5)) == "timeout"
    assert time.time() - started < 5
    assert await fire(trigger("a", 200, deadline=started - 5)) == "timeout"


async def test_patience_after_a_refusal_is_kept_though_the_queue_looks_empty(openai_conn: str) -> None:
    until = time.time() + 0.8
    assert await asyncio.wait_for(fire(trigger("a", 200, not_before=until)), 10) == "room"
    assert time.time() >= until


async def test_what_a_refusal_told_one_shard_stops_another_that_can_never_fit(openai_conn: str) -> None:
    told = QueueLimit(tokens=500, tokens_by="refusal")
    async with waiting(trigger("refused", 400, told, not_before=time.time() + 60)) as refused:
        await asyncio.sleep(0.3)
        async for event in trigger("large", 800).run():
            assert event.payload["status"] == "too_large"
            assert QueueLimit.from_dict(event.payload["limit"]) == told
        assert not refused.done()


async def test_nobody_goes_while_openai_cannot_be_reached(
    openai_server: OpenAIServer, openai_conn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = openai_server.script(http="GET /batches", status=503, times=None)
    async with waiting(trigger("a", 200)) as task:
        await asyncio.to_thread(wait_until, "refused", lambda: openai_server.hits(rule) >= 1, timeout_s=30)
        assert not task.done()
        openai_server.unscript(rule)
        assert await asyncio.wait_for(task, 20) == "room"


@pytest.mark.openai_server(in_progress_s=3_600, speed=0)
async def test_the_log_says_what_is_waited_for_and_does_not_repeat_it(
    openai_conn: str, create_batch: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="airflow_openai_batch.triggers.room")
    await asyncio.to_thread(create_batch, "running", 900)
    async with waiting(trigger("a", 300)), waiting(trigger("b", 200)):
        await asyncio.sleep(0.8)
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"Waiting for room in the batch queue of {MODEL}: {text}."
        for text in (
            "needs 200 tokens, 100 of 1,000 free, 1 shard before this one",
            "needs 300 tokens, 100 of 1,000 free",
        )
    ]


async def test_a_trigger_that_is_stopped_leaves_nothing_behind(openai_conn: str) -> None:
    async with waiting(trigger("stopped", 1_000, not_before=time.time() + 60)) as task:
        await asyncio.sleep(0.3)
        task.cancel()
    assert await asyncio.wait_for(fire(trigger("b", 900, limit=QueueLimit(tokens=900))), 10) == "room"
    room = get_room("openai_default")
    assert "before this one" not in room.describe(
        room.join(Need(MODEL, 1, 1), LIMIT, now=time.time()), time.time()
    )


def test_arguments_of_another_version_are_no_reason_to_crash() -> None:
    older = OpenAIBatchRoomTrigger(conn_id="c", model=MODEL, tokens=1, schema_version=0)
    newer = OpenAIBatchRoomTrigger(conn_id="c", colour="green", tokens="many")  # type: ignore[arg-type]
    assert older.serialize()[1]["schema_version"] == 0
    assert newer.serialize()[1]["colour"] == "green"
