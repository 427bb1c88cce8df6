"""A shard whose ledger is lost finds its batch again, and the search stays short however many batches there are."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import openai
import pytest

from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.models import find_price_entry
from airflow_openai_batch.sending.caller import Caller
from airflow_openai_batch.sending.driver import ShardDriver
from airflow_openai_batch.sending.machine import Goal
from airflow_openai_batch.sending.shard_files import LandingRules, open_shard
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.testing import OpenAIServer
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location


class Send(Protocol):
    """Has a shard sent; the id of its batch."""

    def __call__(self, number: int, to: OpenAIServer = ...) -> str: ...


HOUR_S = 3_600.0
SHARDS = 5


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """Batches take a day, and time stands still."""
    with OpenAIServer(speed=0, in_progress_s=24 * HOUR_S) as server:
        yield server


@pytest.fixture
def job(server: OpenAIServer, tmp_path: Path) -> Location:
    source = write_lines(tmp_path / "in.jsonl", [request_line(str(n)) for n in range(SHARDS)])
    job = resolve_plain(str(tmp_path / "job"))
    split(source, job, max_requests=1, now=server.clock.now())
    return job


@pytest.fixture
def send(server: OpenAIServer, job: Location) -> Send:
    """Has a shard sent by a worker of its own; the id of its batch."""

    def send(number: int, to: OpenAIServer = server) -> str:
        driver = ShardDriver(
            files=open_shard(job, number, resolve_plain, LandingRules()),
            connect=lambda: connect(to),
            caller=Caller(dag_id="dag", run_id="run", task_id="create", map_index=number, run_started_at=0.0),
            clock=to.clock.now,
        )
        with driver:
            driver.drive(Goal.CREATED, admitted=True)
            assert driver.batch_id is not None
            return driver.batch_id

    return send


def connect(server: OpenAIServer) -> BatchClient:
    return BatchClient(openai.OpenAI(base_url=server.base_url, api_key="sk-test"))


def create_others(server: OpenAIServer, count: int) -> None:
    with connect(server) as client:
        file_id = client.upload("lines.jsonl", io.BytesIO(request_line().encode() + b"\n")).id
        for _ in range(count):
            client.create(input_file_id=file_id, endpoint="/v1/chat/completions", metadata={})


def send_and_write_down(server: OpenAIServer, send: Send) -> str:
    """The batch of shard 0, which the search of another shard has noted an hour before."""
    batch_id = send(0)
    create_others(server, 250)
    server.clock.advance(HOUR_S)
    send(1)
    server.clock.advance(HOUR_S)
    return batch_id


def forget(job: Location, shard: int) -> None:
    shutil.rmtree(Path(job.path) / "state" / f"{shard:05d}")


def count_lists(server: OpenAIServer) -> int:
    return server.books.calls_of("GET /v1/batches")


def test_a_search_lists_only_what_came_since_the_one_before(server: OpenAIServer, send: Send) -> None:
    create_others(server, 249)
    server.clock.advance(HOUR_S)
    create_others(server, 1)
    send(0)
    assert count_lists(server) == 3  # nobody has looked before
    for shard in (1, 2, 3):
        send(shard)
    assert count_lists(server) == 3 + 3


@pytest.mark.parametrize("when", ["before others looked", "after others looked"])
def test_a_lost_ledger_costs_no_second_batch(
    server: OpenAIServer, job: Location, send: Send, when: str
) -> None:
    batch_id = send(0)
    create_others(server, 250)
    server.clock.advance(HOUR_S)
    if when == "after others looked":
        send(1)
        server.clock.advance(HOUR_S)
    before = len(server.batches())
    forget(job, 0)
    assert send(0) == batch_id
    assert len(server.batches()) == before


def test_what_another_plan_or_a_torn_file_says_is_not_believed(
    server: OpenAIServer, job: Location, send: Send
) -> None:
    batch_id = send_and_write_down(server, send)
    book = Path(job.path) / "known_batches.json"
    torn = book.read_bytes()[:-9]
    for content in (torn, book.read_bytes().replace(b'"plan":"', b'"plan":"x').replace(b"batch_", b"b_")):
        book.write_bytes(content)
        forget(job, 0)
        assert send(0) == batch_id


def test_one_404_on_a_batch_that_was_seen_is_not_believed(
    server: OpenAIServer, job: Location, send: Send
) -> None:
    batch_id = send_and_write_down(server, send)
    forget(job, 0)
    server.script(http="GET /batches/*", status=404, code="not_found")
    assert send(0) == batch_id


def test_what_was_listed_in_another_project_is_not_believed(
    server: OpenAIServer, job: Location, send: Send
) -> None:
    batch_id = send(0)
    with OpenAIServer(speed=0, in_progress_s=24 * HOUR_S) as other:
        other.clock.advance(server.clock.now() + HOUR_S - other.clock.now())
        create_others(other, 300)  # ids of emulators count, and the last of these is not among ours
        send(1, other)
    create_others(server, 250)
    server.clock.advance(2 * HOUR_S)
    forget(job, 0)
    assert send(0) == batch_id


def test_a_batch_is_created_without_the_price_list(send: Send) -> None:
    """To read it takes a worker as long as all else that there is to do."""
    find_price_entry.cache_clear()
    send(0)
    assert find_price_entry.cache_info().currsize == 0
