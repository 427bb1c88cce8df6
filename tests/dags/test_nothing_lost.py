"""What a run does about queues, accounts, deadlines, duplicates and files: nothing lost, nothing paid twice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
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
    """Three shards of four requests."""
    return Job(tmp_path, {"max_requests_per_shard": 4}).write(
        chat_line(f"r/{n}", "Good? " * 20) for n in range(12)
    )


def sent_as(job: Job) -> Counter[tuple[str, str]]:
    return Counter((row["status"], row["sent_as"]) for row in job.rows())


@pytest.mark.parametrize("dag_id", DAGS)
def test_no_file_stays_at_openai_and_an_orphan_is_swept(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    openai_server.script(http="POST /files", drop="after", times=1)  # uploaded, and nobody heard of it
    openai_server.script(line=500, custom_id="r/5", times=1)
    run = run_dag(dag_id, job.conf(), retries=2)
    assert run.state == "success", run.failures
    assert openai_server.files() == []
    assert len(job.rows()) == 12


@pytest.mark.long
def test_files_can_be_kept(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    assert run_dag(ONE_TASK, job.conf(keep_remote_files=True)).state == "success"
    assert len(openai_server.files()) == 6


@pytest.mark.long
def test_trouble_with_deleting_fails_nothing(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    openai_server.script(http="DELETE /files/*", status=403, times=None)
    run = run_dag(ONE_TASK, job.conf())
    assert run.state == "success", run.failures


def test_the_first_refusal_of_the_account_stops_the_run_and_a_later_one_goes_on(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    rule = openai_server.script(http="POST /batches", status=429, code="insufficient_quota", times=None)
    run = run_dag(ONE_TASK, job.conf(), retries=2)
    assert run.state == "failed"
    assert openai_server.books.calls_of("POST /v1/batches") == 1
    assert openai_server.books.calls_of("POST /v1/files") == 1
    texts = [run.errors("shard", map_index=index) for index in range(3)]
    assert sum("Nothing was sent, since" in text for text in texts) == 2
    assert all("insufficient_quota" in text and "clear the task" in text for text in texts)
    openai_server.unscript(rule)
    assert run_dag(ONE_TASK, job.conf()).state == "success"
    assert openai_server.books.billed["batch"] == 12


@pytest.mark.long
def test_lines_refused_for_the_account_use_up_no_attempt(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    rule = openai_server.script(line=429, code="insufficient_quota", contains="Good", times=None)
    run = run_dag(ONE_TASK, job.conf(max_attempts=1))
    assert run.state == "failed"
    assert "were refused for the account (insufficient_quota)" in run.errors("shard", map_index=0)
    assert len(openai_server.batches()) == 1
    openai_server.unscript(rule)
    assert run_dag(ONE_TASK, job.conf(max_attempts=1)).state == "success"
    assert {row["attempts"] for row in job.rows()} == {1}


def limit_queue(define_connection: Callable[..., str], server: OpenAIServer, **limits: Any) -> None:
    extra = json.dumps(limits)
    define_connection(
        "openai_default", conn_type="openai", password="sk-test", host=server.base_url, extra=extra
    )


@pytest.mark.openai_server(in_progress_s=2)
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_shard_waits_for_room_and_none_is_refused(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    define_connection: Callable[..., str],
    deferrable: bool,
) -> None:
    openai_server.configure(queue_limits={"gpt-4o-mini": 250})
    limit_queue(define_connection, openai_server, enqueued_token_limit=250)
    run = run_dag(ONE_TASK, job.conf(max_tokens_per_shard=200), task_args={"deferrable": deferrable})
    assert run.state == "success", run.failures
    assert not openai_server.books.refusals
    assert sent_as(job) == {("ok", "batch"): 12}


def test_a_shard_that_never_fits_fails_at_once_with_the_number_to_use(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.configure(queue_limits={"gpt-4o-mini": 100})
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    text = run.errors("shard.wait", map_index=0)
    assert "the batch queue of gpt-4o-mini holds 100" in text
    assert "max_tokens_per_shard=95" in text
    assert openai_server.books.billed["batch"] == 0


@pytest.mark.parametrize("dag_id", DAGS)
def test_few_requests_go_out_in_real_time(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    run = run_dag(dag_id, job.conf(mode="auto"))
    assert run.state == "success", run.failures
    assert sent_as(job) == {("ok", "realtime"): 12}
    assert openai_server.batches() == []
    assert openai_server.files() == []
    assert job.report()["cost"]["saving_usd"] == 0


def test_a_handful_of_leftovers_is_finished_in_real_time(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    for custom_id in ("r/2", "r/7"):
        openai_server.script(line=500, custom_id=custom_id, times=1)
    run = run_dag("openai_batch", job.conf(mode="auto", realtime_threshold=3))
    assert run.state == "success", run.failures
    assert sent_as(job) == {("ok", "batch"): 10, ("ok", "realtime"): 2}
    assert not list(openai_server.books.paid_twice(job.input))


DEADLINE = {"finish_within_h": 1.5 / 3600}


@pytest.mark.openai_server(in_progress_s=3600)
@pytest.mark.parametrize("dag_id", DAGS)
def test_after_the_deadline_the_rest_is_sent_in_real_time(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, dag_id: str
) -> None:
    run = run_dag(dag_id, job.conf(on_deadline="realtime", **DEADLINE))
    assert run.state == "success", run.failures
    assert sent_as(job) == {("ok", "realtime"): 12}
    assert not list(openai_server.books.paid_twice(job.input))


@pytest.mark.long
@pytest.mark.openai_server(in_progress_s=3600)
def test_after_the_deadline_what_there_is_can_be_published(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    run = run_dag(ONE_TASK, job.conf(on_deadline="publish", max_failed_fraction=1, **DEADLINE))
    assert run.state == "success", run.failures
    assert {row["status"] for row in job.rows()} <= {"missing", "failed"}
    assert {row["error_code"] for row in job.rows()} <= {"missing", "not_sent", "batch_cancelled"}
    assert len(job.rows()) == 12


@pytest.mark.long
@pytest.mark.openai_server(in_progress_s=3600)
def test_after_the_deadline_the_task_fails_and_its_batch_goes_on(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    run = run_dag("openai_batch", job.conf(on_deadline="fail", **DEADLINE))
    assert run.state == "failed"
    assert "not finished within finish_within_h" in "\n".join(text for _, _, text in run.failures)
    statuses = {batch["status"] for batch in openai_server.batches()}
    assert statuses <= {"validating", "in_progress"}


@pytest.mark.openai_server(in_progress_s=3)
def test_a_retry_waits_for_what_the_lost_call_may_have_done(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "create_timeout_s", 4.0)
    openai_server.configure(list_lag_s=1.5)
    openai_server.script(http="POST /batches", drop="after", times=1)
    run = run_dag(ONE_TASK, job.conf(max_requests_per_shard=12), retries=3)
    assert run.state == "success", run.failures
    assert len(openai_server.batches()) == 1


@pytest.mark.long
@pytest.mark.openai_server(in_progress_s=3600)
def test_two_batches_that_a_lagging_list_made_are_settled_to_one(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        Policy.__init__.__kwdefaults__, "create_timeout_s", 0.1
    )  # longer than any lag otherwise
    openai_server.configure(list_lag_s=4.0)
    openai_server.script(http="POST /batches", drop="after", times=1)

    def end_what_is_left() -> None:
        """No batch ends by itself before one of them is cancelled."""
        while not any(batch["status"].startswith("cancel") for batch in openai_server.batches()):
            time.sleep(0.1)
        openai_server.clock.advance(3600)

    threading.Thread(target=end_what_is_left, daemon=True).start()
    run = run_dag(ONE_TASK, job.conf(max_requests_per_shard=12), retries=3)
    assert run.state == "success", run.failures
    dropped, kept = sorted(openai_server.batches(), key=lambda batch: batch["status"])
    assert (dropped["status"], kept["status"]) == ("cancelled", "completed")
    assert dropped["request_counts"]["completed"] < 6, "it lives for one look, not for the whole batch"
    assert sent_as(job) == {("ok", "batch"): 12}


def test_a_wrong_key_is_one_error_and_no_upload(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag(ONE_TASK, job.conf(dry_run=True)).state in ("success", "skipped")
    openai_server.configure(api_keys=frozenset({"sk-right"}))
    run = run_dag(ONE_TASK, job.conf(), retries=3)
    assert run.state == "failed"
    assert len(run.failures) == 1, "the split's preflight says it before any shard starts"
    assert "401" in run.errors("split")
    with openai.OpenAI(base_url=openai_server.base_url, api_key="sk-right") as client:
        assert not list(client.files.list())


def test_a_sample_is_sent_first_and_a_full_run_uses_its_answers(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    run = run_dag("openai_batch", job.conf(sample_requests=6, mode="auto", realtime_threshold=3))
    assert run.state == "success", run.failures
    assert openai_server.books.billed["batch"] + openai_server.books.billed["realtime"] == 6
    assert "all 12 requests would cost about" in run.xcom("publish")["extrapolation"]
    assert run.asset_events() == []
    assert job.report()["cost"]["unfinished_usd"] > 0
    told = (job.output / "report.md").read_text()
    assert "A sample of 6 requests has landed: the job has 6 answers so far" in told
    assert "Clear their tasks" not in told, "nothing is wrong"
    run = run_dag("openai_batch", job.conf())
    assert run.state == "success", run.failures
    assert [row["custom_id"] for row in job.rows()] == [f"r/{n}" for n in range(12)]
    assert sum(sent_as(job).values()) == 12
    assert {row["attempts"] for row in job.rows()} == {1}
    assert not list(openai_server.books.paid_twice(job.input))


def test_a_budget_that_a_further_send_would_break_stops_it_with_both_numbers(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    job.write(chat_line(f"r/{n}", f"{n} Good? ", max_tokens=100) for n in range(12))
    whole_usd = 12 * (100 * 0.3 + 15 * 0.075) / 1e6
    run = run_dag("openai_batch", job.conf(max_cost_usd=whole_usd / 100))
    assert run.state == "failed"
    assert "max_cost_usd=" in run.errors("split")
    assert openai_server.files() == []
    assert run_dag("openai_batch", job.conf(max_cost_usd=whole_usd * 2)).state == "success"
