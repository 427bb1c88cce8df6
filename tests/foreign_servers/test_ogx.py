"""The main DAG through ogx, which works batches off itself: splitting, a lost reply, an answer that fails."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.gate import open_gate
from fixtures.reviews import REVIEWS, check_rows, write_reviews

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag
    from fixtures.job import Job
    from foreign_servers.foreign_server import ForeignServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """ogx names a model with who provides it."""
    return write_reviews(tmp_path, model="openai/gpt-4o-mini")


def list_files(server: ForeignServer) -> list[str]:
    with urllib.request.urlopen(f"{server.address}/v1/files") as answer:
        return [file["id"] for file in json.load(answer)["data"]]


def test_every_request_ends_in_one_row(
    run_dag: RunDag, openai_server: OpenAIServer, ogx: ForeignServer, job: Job, connect: Callable[..., str]
) -> None:
    connect(f"{ogx.address}/v1")
    check_rows(run_dag("openai_batch", job.conf()), job)
    assert openai_server.books.billed["realtime"] == REVIEWS
    assert list_files(ogx) == []


def test_a_lost_reply_is_found_again(
    run_dag: RunDag, openai_server: OpenAIServer, ogx: ForeignServer, job: Job, connect: Callable[..., str]
) -> None:
    with open_gate(ogx.address) as gate:
        connect(gate.base_url)
        gate.lose("POST /v1/batches", times=2)
        check_rows(run_dag("openai_batch", job.conf(), retries=3), job)
    assert openai_server.books.billed["realtime"] == REVIEWS


def test_what_failed_behind_it_is_sent_again_alone(
    run_dag: RunDag, openai_server: OpenAIServer, ogx: ForeignServer, job: Job, connect: Callable[..., str]
) -> None:
    """It writes no status for what failed, only that it did."""
    connect(f"{ogx.address}/v1")
    openai_server.script(http="POST /chat/completions", status=400, code="invalid_request_error", times=1)
    check_rows(run_dag("openai_batch", job.conf()), job)
    assert sorted(row["attempts"] for row in job.rows()) == [1] * (REVIEWS - 1) + [2]
    assert openai_server.books.billed["realtime"] == REVIEWS
