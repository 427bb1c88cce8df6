"""A server that answers what it should not: nothing is sent again and again for it, and nothing is paid twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.airflow_versions import CREATES
from fixtures.gate import Gate, open_gate
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

UPLOAD, CREATE = "POST /v1/files", "POST /v1/batches"


@pytest.fixture
def gate(openai_server: OpenAIServer, define_connection: Callable[..., str]) -> Iterator[Gate]:
    """Before the emulator, and what the connection ``openai_default`` leads to."""
    with open_gate(openai_server.base_url) as gate:
        define_connection("openai_default", conn_type="openai", password="sk-test", host=gate.base_url)
        yield gate


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(str(n)) for n in range(2))


@pytest.mark.long
def test_an_upload_without_an_id_is_not_done_again(run_dag: RunDag, gate: Gate, job: Job) -> None:
    gate.change(UPLOAD, lambda _: b'{"object": "file"}')
    run = run_dag("openai_batch", job.conf(), retries=3)
    assert "the file of the answer has no id" in run.errors("shard.upload", map_index=0)
    assert gate.calls[UPLOAD] == 1


@pytest.mark.long
def test_a_redirected_upload_is_told_with_both_addresses(run_dag: RunDag, gate: Gate, job: Job) -> None:
    with open_gate() as other:
        other.answer("GET /v1/files", 200, {"object": "list", "data": []})
        gate.answer(UPLOAD, 301, location=f"{other.base_url}/files")
        run = run_dag("openai_batch", job.conf(), retries=3)
        assert f"{gate.base_url} should be {other.base_url}" in run.errors("shard.upload", map_index=0)
        assert gate.calls[UPLOAD] == 1
        assert not other.calls


def test_a_host_that_redirects_is_told_before_anything_is_uploaded(
    run_dag: RunDag, gate: Gate, job: Job
) -> None:
    with open_gate() as other:
        other.answer("GET /v1/batches", 200, {"object": "list", "data": []})
        gate.answer("GET /v1/batches", 301, location=f"{other.base_url}/batches")
        run = run_dag("openai_batch", job.conf(), retries=3)
        assert f"{gate.base_url} should be {other.base_url}" in run.errors("split")
        assert gate.calls[UPLOAD] == 0


def test_a_creation_that_cannot_be_read_is_found_again_and_not_paid_twice(
    run_dag: RunDag, openai_server: OpenAIServer, gate: Gate, job: Job
) -> None:
    gate.change(CREATE, lambda _: b'{"object": "batch"}')
    run = run_dag("openai_batch", job.conf(), retries=2)
    assert "the batch of the answer has no id" in run.errors(CREATES, map_index=0)
    assert gate.calls[CREATE] == 1
    gate.let_pass(CREATE)
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert len(openai_server.batches()) == 1
    assert openai_server.books.billed["batch"] == 2
