"""A task that waits in a worker decides about room in the batch queue as the triggerer does."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.sending.queue.room import Need
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger
from fixtures.job import Job, chat_line
from triggers.account import create_batches

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [
    pytest.mark.usefixtures("openai_conn", "form_roots"),
    pytest.mark.openai_server(in_progress_s=1e9),  # nothing leaves the queue
]

LIMIT = 1_000
MODEL = "gpt-4o-mini"


@pytest.fixture
def sensor(tmp_path: Path) -> OpenAIBatchSensor:
    """Looks once when it is poked, and sends its shard where there is room."""
    job = Job(tmp_path).write([chat_line("1")])
    output = resolve_location(job.uri)
    split_job(str(job.input), output, resolve=resolve_location, limits=ShardLimits(), now=time.time())
    return OpenAIBatchSensor(
        task_id="wait",
        shard={"job": job.uri, "shard": 0},
        send_mode="batch",
        deferrable=False,
        enqueued_token_limit=LIMIT,
    )


def poke(sensor: OpenAIBatchSensor) -> None:
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="wait", map_index=-1, try_number=1)
    run = SimpleNamespace(start_date=datetime.now(tz=UTC), conf={})
    sensor.poke({"ti": ti, "dag_run": run, "dag": None})  # type: ignore[typeddict-item]


def has_sent(server: OpenAIServer) -> bool:
    return any(batch["metadata"] and "shard" in batch["metadata"] for batch in server.batches())


def fires(tokens: int) -> bool:
    """Whether the triggerer would let the same shard go."""

    async def wait() -> bool:
        need, limit = Need(MODEL, tokens, 1, "key"), QueueLimit(tokens=LIMIT)
        made = OpenAIBatchRoomTrigger.for_need(need, limit, conn_id="openai_default", poll_interval=0.1)
        try:
            return (await asyncio.wait_for(anext(made.run()), 3.0)).payload["status"] == "room"
        except TimeoutError:
            return False

    return asyncio.run(wait())


def hold(server: OpenAIServer, batch_id: str, tokens: int) -> None:
    """Let a batch say that it holds so much."""
    with server.lock:
        batch = next(batch for batch in server.emulator.batches if batch.id == batch_id)
        batch.metadata = {"input_tokens": str(tokens), "model": MODEL, "job_key": "another"}


@pytest.mark.parametrize("newer", [0, 1_100])
def test_whoever_is_in_the_queue_counts_however_many_have_come_since(
    openai_server: OpenAIServer, sensor: OpenAIBatchSensor, newer: int
) -> None:
    """Only the newest thousand were looked at."""
    first, *_ = create_batches(openai_server, 1 + newer)
    hold(openai_server, first, LIMIT)
    poke(sensor)
    assert not has_sent(openai_server)
    assert not fires(10)
    hold(openai_server, first, 100)
    poke(sensor)
    assert has_sent(openai_server)
    assert fires(10)


def test_no_more_batches_are_created_than_openai_allows_in_an_hour(
    openai_server: OpenAIServer, sensor: OpenAIBatchSensor
) -> None:
    create_batches(openai_server, 2_000)
    asked = openai_server.books.calls_of("POST /v1/files"), openai_server.books.calls_of("POST /v1/batches")
    poke(sensor)
    assert asked == (
        openai_server.books.calls_of("POST /v1/files"),
        openai_server.books.calls_of("POST /v1/batches"),
    )
    assert not fires(10)


def test_its_name_with_what_it_waits_for_fits_into_airflows_database(sensor: OpenAIBatchSensor) -> None:
    """A worker's wait ends with the name that it had: PostgreSQL would not take the task's end with a longer one."""
    sensor.waits_for = "the server says: " + "come back later, " * 30
    assert sensor.label.startswith("shard 0 · 1 requests · ")
    assert len(sensor.label) == 250
