"""What publishing deletes at OpenAI: everything that is known to be the job's, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.sending.remote_cleanup import iter_keys, sweep_files
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.testing import OpenAIServer

OUTPUT = "s3://bucket/job"


@pytest.fixture
def client(openai_server: OpenAIServer) -> Iterator[BatchClient]:
    with BatchClient(openai.OpenAI(base_url=openai_server.base_url, api_key="sk-test")) as client:
        yield client


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    source = write_lines(tmp_path / "in.jsonl", [request_line("a"), request_line("b")])
    return split(source, resolve_plain(str(tmp_path / "job"))).plan


def send(client: BatchClient, job_key: str) -> tuple[str, str]:
    """:return: the ids of the uploaded file and of the batch."""
    lines = f"{request_line('a')}\n".encode()
    file_id = client.upload(f"{job_key}.jsonl", io.BytesIO(lines)).id
    batch = client.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", metadata={"job_key": job_key}
    )
    return file_id, batch.id


def list_files(client: BatchClient) -> dict[str, str]:
    return dict([*client.iter_files("input"), *client.iter_files("result")])


def test_files_of_the_job_go_and_those_of_others_stay(
    openai_server: OpenAIServer, client: BatchClient, plan: Plan
) -> None:
    send(client, next(iter_keys(plan, OUTPUT, {0: 1})))
    stranger, batch_id = send(client, "of somebody else")
    result = client.fetch(batch_id).output_file_id
    assert len(list_files(client)) == 4
    assert sweep_files(client, plan, OUTPUT, {0: 1}) == 2
    assert list_files(client).keys() == {stranger, result}


def test_results_that_the_batch_does_not_name_are_known_by_their_own_name(
    openai_server: OpenAIServer, client: BatchClient, plan: Plan
) -> None:
    openai_server.script(batch="completed", hide_output_file=True)
    _, batch_id = send(client, next(iter_keys(plan, OUTPUT, {0: 1})))
    assert client.fetch(batch_id).output_file_id is None
    sweep_files(client, plan, OUTPUT, {0: 1})
    assert list_files(client) == {}


def test_what_is_gone_is_not_asked_for_again(
    openai_server: OpenAIServer, client: BatchClient, plan: Plan
) -> None:
    send(client, next(iter_keys(plan, OUTPUT, {0: 1})))
    sweep_files(client, plan, OUTPUT, {0: 1})
    asked = openai_server.books.calls_of("DELETE /v1/files/*")
    assert sweep_files(client, plan, OUTPUT, {0: 1}) == 0
    assert openai_server.books.calls_of("DELETE /v1/files/*") == asked == 2


def test_a_batch_that_runs_for_a_shard_that_is_done_is_cancelled(
    openai_server: OpenAIServer, client: BatchClient, plan: Plan
) -> None:
    openai_server.configure(in_progress_s=3_600)
    _, forgotten = send(client, next(iter_keys(plan, OUTPUT, {0: 1})))
    _, stranger = send(client, "of somebody else")
    sweep_files(client, plan, OUTPUT, {0: 1})
    assert client.fetch(forgotten).status in ("cancelling", "cancelled")
    assert client.fetch(stranger).status in ("validating", "in_progress")
