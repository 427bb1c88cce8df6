"""A repair: what has no good result in a finished job is asked again, alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

DAGS = ["openai_batch", pytest.param("openai_batch_one_task", marks=pytest.mark.long)]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Ten requests: two shards of five; a red run would hide what a repair is for."""
    params = {"max_failed_fraction": 1.0}
    return Job(tmp_path, params).write(chat_line(f"review/{n}", f"Review {n}: lovely.") for n in range(10))


@pytest.mark.parametrize("dag_id", DAGS)
def test_only_what_has_no_good_result_is_asked_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    openai_server.script(line=400, custom_id="review/1")
    openai_server.script(line="refusal", custom_id="review/3")
    assert run_dag(dag_id, job.conf()).state == "success"
    assert {row["custom_id"] for row in job.rows() if row["status"] != "ok"} == {"review/1", "review/3"}
    other_part = job.output / "results" / "part-00001.parquet"
    written_at = other_part.stat().st_mtime_ns
    run = run_dag(dag_id, job.conf(repair=True, input_uri=""))
    assert run.state == "success", run.states
    rows = job.rows()
    assert [row["custom_id"] for row in rows] == [f"review/{n}" for n in range(10)]
    assert {row["status"] for row in rows} == {"ok"}
    assert [row["attempts"] for row in rows[:5]] == [1, 2, 1, 2, 1]
    assert max(openai_server.books.good_by_custom_id.values()) == 1
    assert openai_server.batches()[-1]["request_counts"]["total"] == 2
    assert other_part.stat().st_mtime_ns == written_at
    assert max(index for _, index in run.states) == 0  # the other shard got no task
    assert job.report()["counts"]["good"] == 10
    assert job.lines("failed.jsonl") == []
    assert openai_server.files() == []


@pytest.mark.long
def test_a_repair_that_brings_nothing_keeps_the_rows_and_another_run_tries_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    rule = openai_server.script(line=400, custom_id="review/4", times=None)
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert run_dag("openai_batch", job.conf(repair=True)).state == "success"
    assert [row["attempts"] for row in job.rows() if row["status"] == "failed"] == [2]
    openai_server.unscript(rule)
    assert run_dag("openai_batch", job.conf(repair=True)).state == "success"
    assert {row["status"] for row in job.rows()} == {"ok"}
    assert openai_server.books.billed["batch"] == 10


@pytest.mark.long
def test_a_job_without_bad_rows_is_left_alone(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    assert run_dag("openai_batch", job.conf()).state == "success"
    rows, batches = job.rows(), len(openai_server.batches())
    assert run_dag("openai_batch", job.conf(repair=True)).state == "success"
    assert (job.rows(), len(openai_server.batches())) == (rows, batches)


def test_a_directory_without_a_job_cannot_be_repaired(run_dag: RunDag, job: Job) -> None:
    run = run_dag("openai_batch", job.conf(repair=True))
    assert run.state == "failed"
    assert "there is no job to repair" in run.errors("split")


@pytest.mark.long
def test_a_larger_sample_sends_what_the_smaller_one_did_not_and_the_whole_run_the_rest(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    for sample, answered in ((2, 2), (4, 4), (3, 4), (7, 7), (None, 10)):
        run = run_dag("openai_batch", job.conf(sample_requests=sample))
        assert run.state == "success", run.states
        assert openai_server.books.billed["batch"] == answered
        unsent = [row["error_code"] for row in job.rows() if row["status"] != "ok"]
        assert unsent == ["not_sent"] * (len(job.rows()) - answered)
    assert [row["custom_id"] for row in job.rows()] == [f"review/{n}" for n in range(10)]
    assert {row["status"] for row in job.rows()} == {"ok"}
    assert max(openai_server.books.good_by_custom_id.values()) == 1
