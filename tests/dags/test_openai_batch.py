"""The main DAG through its front door: every request ends in one row, and nothing is paid for twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.sending.policy import Policy
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

ONE_TASK = "openai_batch_one_task"
DAGS = ["openai_batch", pytest.param(ONE_TASK, marks=pytest.mark.long)]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Ten requests: two shards of five."""
    return Job(tmp_path).write(chat_line(f"review/{n}", f"Review {n}: lovely.") for n in range(10))


@pytest.mark.parametrize("dag_id", ["openai_batch", ONE_TASK])
def test_every_request_ends_in_one_row_in_the_order_of_the_input(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    run = run_dag(dag_id, job.conf())
    assert run.state == "success", run.states
    rows = job.rows()
    assert [row["custom_id"] for row in rows] == [f"review/{n}" for n in range(10)]
    assert [row["position"] for row in rows] == list(range(10))
    assert [row["line_number"] for row in rows] == list(range(1, 11))
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["content"] and row["cost_usd"] > 0 and row["batch_id"] for row in rows)
    assert openai_server.books.billed["batch"] == 10
    assert job.report()["counts"]["good"] == 10
    assert job.lines("failed.jsonl") == []


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_second_run_on_the_same_output_sends_nothing_and_lands_the_same(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    assert run_dag(dag_id, job.conf()).state == "success"
    rows, batches = job.rows(), len(openai_server.batches())
    assert run_dag(dag_id, job.conf()).state == "success"
    assert (job.rows(), len(openai_server.batches())) == (rows, batches)


def test_one_bad_row_makes_the_run_red_after_all_has_landed(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    openai_server.script(line=400, code="invalid_request_error", custom_id="review/4", times=None)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert {task for (task, _), state in run.states.items() if state == "failed"} == {"publish"}
    assert len(job.rows()) == 10
    assert [line["custom_id"] for line in job.lines("failed.jsonl")] == ["review/4"]
    assert job.report()["counts"]["bad"] == 1
    assert run_dag("openai_batch", job.conf(max_failed_fraction=0.1)).state == "success"


@pytest.mark.parametrize("dag_id", DAGS)
def test_what_an_expired_batch_left_over_is_sent_again_alone(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    openai_server.script(batch="expired", done=2, total=5, shard=1)
    assert run_dag(dag_id, job.conf()).state == "success"
    rows = job.rows()
    assert {row["status"] for row in rows} == {"ok"}
    assert openai_server.books.billed["batch"] == 10
    assert max(openai_server.books.good_by_custom_id.values()) == 1
    assert len(openai_server.batches()) == 3


@pytest.mark.parametrize(
    "status",
    [
        429,
        "missing",
        *(pytest.param(each, marks=pytest.mark.long) for each in (500, 503, 0, "request_timeout")),
    ],
)
def test_lines_that_may_succeed_later_are_sent_again_and_good_ones_never(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, status: int | str
) -> None:
    openai_server.script(line=status, custom_id=["review/0", "review/5"], times=1)
    assert run_dag("openai_batch", job.conf()).state == "success"
    by_id = {row["custom_id"]: row for row in job.rows()}
    assert {row["status"] for row in by_id.values()} == {"ok"}
    assert by_id["review/0"]["attempts"] == 2
    assert by_id["review/1"]["attempts"] == 1
    assert set(openai_server.books.good_by_custom_id.values()) == {1}


@pytest.mark.long
@pytest.mark.parametrize(
    ("accepted", "state", "status"), [([], "failed", "failed"), (["truncated"], "success", "ok")]
)
def test_a_truncated_answer_is_good_only_where_that_was_said(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, accepted: list[str], state: str, status: str
) -> None:
    openai_server.script(line="length", custom_id="review/3", times=None)
    assert run_dag("openai_batch", job.conf(accept_codes=accepted)).state == state
    row = next(row for row in job.rows() if row["custom_id"] == "review/3")
    assert (row["status"], row["error_code"], row["attempts"]) == (status, "truncated", 1)


@pytest.mark.long
def test_a_request_that_keeps_failing_stops_after_max_attempts(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=500, custom_id="review/7", times=None)
    assert run_dag("openai_batch", job.conf(max_attempts=2)).state == "failed"
    row = next(row for row in job.rows() if row["custom_id"] == "review/7")
    assert (row["status"], row["status_code"], row["attempts"]) == ("failed", 500, 2)


@pytest.mark.long
@pytest.mark.parametrize("dag_id", DAGS)
def test_a_shard_that_openai_refused_is_named_with_its_reason(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    openai_server.script(batch="failed", code="model_not_found", shard=1)
    run = run_dag(dag_id, job.conf())
    assert run.state == "failed"
    text = run.errors("publish")
    assert "1 of 2 shards are not done (1), 5 requests without a row" in text
    assert "shard 1: not done, last step: refused (model_not_found" in text
    assert "model_not_found" in (job.output / "report.md").read_text()


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_lost_reply_to_create_is_found_again_by_the_retry(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    openai_server.script(http="POST /batches", drop="after", times=2)
    assert run_dag(dag_id, job.conf(), retries=3).state == "success"
    assert openai_server.books.billed["batch"] == 10
    assert len(openai_server.batches()) == 2


def test_a_failed_shard_holds_up_no_other_and_is_named(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(batch="failed", code="model_not_found", shard=1, times=None)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert len(job.rows()) == 5
    report = job.report()
    assert report["complete"] is False
    assert report["counts"]["unfinished"] == 5
    openai_server.unscript()
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert len(job.rows()) == 10
    assert openai_server.books.billed["batch"] == 10


def test_a_dry_run_plans_and_stops_and_the_real_run_goes_on_with_its_plan(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    run = run_dag("openai_batch", job.conf(dry_run=True))
    assert run.state == "success"
    assert run.states[("publish", -1)] == "skipped"
    assert openai_server.files() == []
    estimate = run.xcom("split", key="estimate")
    assert (estimate["requests"], estimate["shards"]) == (10, 2)
    assert estimate["input_tokens"] > 0
    assert estimate["cost_usd"] > 0
    fingerprint = json.loads((job.output / "plan.json").read_text())["fingerprint"]
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert job.report()["fingerprint"] == fingerprint


@pytest.mark.long
def test_an_empty_input_fails_or_skips_what_comes_after(run_dag: RunDag, job: Job) -> None:
    job.write([])
    assert run_dag("openai_batch", job.conf()).state == "failed"
    run = run_dag("openai_batch", job.conf(on_empty="skip"))
    assert run.state == "success"
    assert run.states[("publish", -1)] == "skipped"


def test_a_changed_input_is_refused_until_a_restart_which_pays_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag("openai_batch", job.conf()).state == "success"
    job.write(chat_line(f"review/{n}", f"Review {n}: awful.") for n in range(10))
    assert run_dag("openai_batch", job.conf()).state == "failed"
    assert openai_server.books.billed["batch"] == 10
    assert run_dag("openai_batch", job.conf(on_existing="restart")).state == "success"
    assert openai_server.books.billed["batch"] == 20
    assert job.report()["generation"] == 2
    assert (job.output / "generations" / "0001" / "report.json").exists()


def test_rejected_lines_are_kept_apart_and_the_rest_is_sent(run_dag: RunDag, job: Job) -> None:
    job.write([chat_line("a"), "not json", chat_line("b"), chat_line("a", "again")])
    assert run_dag("openai_batch", job.conf()).state == "failed"
    run = run_dag("openai_batch", job.conf(on_bad_line="reject"))
    assert run.state == "success"
    assert [row["custom_id"] for row in job.rows()] == ["a", "b"]
    assert [line["line_number"] for line in job.lines("rejected.jsonl")] == [2, 4]
    assert job.report()["counts"]["positions"] == 4


def test_a_full_queue_is_waited_out(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai_server.script(batch="failed", code="token_limit_exceeded", limit=2_000_000, times=2)
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "queue_wait_s", 0.1)  # waits of a minute otherwise
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert openai_server.books.billed["batch"] == 10
