"""A shard is taken from wherever a crash left it: what is there is found, what is gone is done again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One shard of three requests."""
    return Job(tmp_path).write(chat_line(str(n)) for n in range(3))


def events(job: Job) -> list[str]:
    """What the ledger of shard 0 says, oldest first."""
    return [
        path.name.split("-")[1].removesuffix(".json")
        for path in sorted((job.output / "state/00000").iterdir())
    ]


def cut_ledger(job: Job, after: str | None) -> None:
    """As if the process had died right after writing this event, or before any."""
    found = after is None
    for path in sorted((job.output / "state/00000").iterdir()):
        if found:
            path.unlink()
        found = found or (after is not None and path.name.endswith(f"-{after}.json"))


@pytest.mark.parametrize("after", [None, "uploaded", "intent", "created", "ended", "landed"])
def test_a_ledger_cut_anywhere_pays_nothing_twice(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, after: str | None
) -> None:
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    assert events(job) == ["uploaded", "intent", "created", "ended", "landed", "done", "cleaned"]
    rows = job.rows()
    cut_ledger(job, after)
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    assert job.rows() == rows
    assert openai_server.books.billed["batch"] == 3
    assert len(openai_server.batches()) == 1


def test_results_that_were_removed_are_landed_again_from_raw(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    rows = job.rows()
    (job.output / "results/part-00000.parquet").unlink()
    cut_ledger(job, "ended")
    downloads = openai_server.books.calls_of("GET /v1/files/*/content")
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    assert job.rows() == rows
    assert openai_server.books.calls_of("GET /v1/files/*/content") == downloads


def test_an_uploaded_file_that_openai_lost_is_uploaded_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.1, 0.1, 0.1, 0.1))
    openai_server.script(http="POST /batches", status=400, code="invalid_value", times=1)
    assert run_dag("openai_batch_one_task", job.conf()).state == "failed"
    client = openai.OpenAI(base_url=openai_server.base_url, api_key="any")
    for file in client.files.list():
        client.files.delete(file.id)
    client.close()
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    assert events(job).count("uploaded") == 2
    assert openai_server.books.billed["batch"] == 3


@pytest.mark.long
def test_a_batch_that_this_connection_does_not_know_is_not_paid_again_unless_somebody_says_so(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.NEW_BATCH_S", -1.0)  # ten minutes otherwise
    assert run_dag("openai_batch", job.conf()).state == "success"
    cut_ledger(job, "created")
    openai_server.reset()  # as the server of another project, which knows nothing of the job
    (job.output / "raw/00000.1.output.jsonl").unlink()
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert "leads to another project or server" in run.errors("shard.wait", map_index=0)
    assert openai_server.files() == []
    shutil.rmtree(job.output / "state/00000")  # what the message says
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert [row["status"] for row in job.rows()] == ["ok"] * 3


def test_a_ledger_that_cannot_be_read_stops_the_shard_and_sends_nothing(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    cut_ledger(job, "uploaded")
    (job.output / "state/00000/0002-intent.json").write_bytes(b"{half")
    run = run_dag("openai_batch_one_task", job.conf(), retries=2)
    assert run.state == "failed"
    assert "the ledger is there but cannot be read" in run.errors("shard", map_index=0)
    assert len(openai_server.batches()) == 1


def test_the_ledger_of_another_plan_is_not_taken_for_this_ones(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    (job.output / "plan.json").unlink()
    job.write(chat_line(f"other/{n}") for n in range(3))
    run = run_dag("openai_batch_one_task", job.conf())
    assert run.state == "failed"
    assert "belongs to another plan" in run.errors("shard", map_index=0)


def test_a_result_file_that_lags_behind_the_status_is_waited_for(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.result_looks.LOOK_WAITS_S", (0.1,))
    openai_server.script(batch="completed", file_lag=2)
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    assert [row["status"] for row in job.rows()] == ["ok"] * 3


@pytest.mark.long
def test_what_is_left_over_can_be_uploaded_again_by_a_later_send(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.1, 0.1, 0.1, 0.1))
    openai_server.script(batch="expired", done=1, total=3, send=1)
    for send in range(2, 7):
        openai_server.script(batch="failed", code="invalid_request", send=send)  # "Cannot find file"
    run = run_dag("openai_batch_one_task", job.conf())
    assert run.state == "success", run.failures
    assert events(job).count("uploaded") == 3  # the shard, its leftover, its leftover anew
    assert [row["status"] for row in job.rows()] == ["ok"] * 3
    assert openai_server.books.billed["batch"] == 3
