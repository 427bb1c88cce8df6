"""What the page is told of jobs, by a real API server."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from airflow_openai_batch.job.shard_state import Goal
from airflow_openai_batch.sending.caller import Caller
from airflow_openai_batch.sending.driver import ShardDriver
from airflow_openai_batch.sending.shard_files import LandingRules, open_shard
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    import httpx

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def openai(page_openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    """The runs of this process and the API server have the same account."""
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", page_openai.airflow_connection())
    return page_openai


@pytest.fixture
def page(login: Any) -> httpx.Client:
    client: httpx.Client = login("user")
    return client


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Three shards of two requests."""
    lines = (chat_line(f"r/{n}", f"Review {n}") for n in range(6))
    return Job(tmp_path, {"max_requests_per_shard": 2, "max_failed_fraction": 1.0}).write(lines)


def ask(page: httpx.Client, place: str, **query: Any) -> dict[str, Any]:
    answer = page.get(place, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def query_of(run: FinishedRun, task_id: str = "split") -> dict[str, Any]:
    return {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id, "map_index": -1}


def wait_for_job(page: httpx.Client, query: dict[str, Any], **expected: Any) -> dict[str, Any]:
    """The one job of a query, once it is as expected: the page asks again, too."""
    deadline = time.monotonic() + 60
    while True:
        (found,) = ask(page, "/api/jobs", **query)["jobs"]
        if found["loaded"] and all(found[name] == value for name, value in expected.items()):
            return dict(found)
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


def test_a_finished_job(page: httpx.Client, run_dag: RunDag, openai: OpenAIServer, job: Job) -> None:
    openai.script(line=400, custom_id="r/1")
    run = run_dag("openai_batch", job.conf())
    found = wait_for_job(page, query_of(run), state="done")
    report = job.report()
    assert found["uri"] == job.uri
    assert (found["run_state"], found["reported"], found["error"]) == ("success", True, None)
    assert found["shards"]["total"] == found["shards"]["by_state"]["done"] == 3
    assert found["requests"] == {"total": 6, "completed": 5, "failed": 1, "landed": 6, "rejected": 0}
    assert found["cost_usd"] == pytest.approx(report["cost"]["actual_usd"], abs=1e-5)
    assert found["saving_usd"] == pytest.approx(report["cost"]["saving_usd"], abs=1e-6)
    assert found["has_failed_rows"]
    assert found["notices"] == []
    assert found["tokens_in_flight"] == 0
    assert found["eta_s"] is None


def test_a_model_that_ends_soon(
    page: httpx.Client, run_dag: RunDag, openai: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_on = str(datetime.now(UTC).date() + timedelta(days=30))
    connection = json.loads(openai.airflow_connection()) | {"extra": {"model_ends": {"gpt-4o-mini": ends_on}}}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    run = run_dag("openai_batch", job.conf(dry_run=True))
    found = wait_for_job(page, query_of(run), state="planned")
    (notice,) = found["notices"]
    assert notice.startswith("gpt-4o-mini ends in ")
    assert notice.endswith(f"on {ends_on}. Ask another model.")


def test_its_shards(page: httpx.Client, run_dag: RunDag, openai: OpenAIServer, job: Job) -> None:
    openai.script(line=400, custom_id="r/1")
    run = run_dag("openai_batch", job.conf())
    wait_for_job(page, query_of(run), state="done")
    answer = ask(page, "/api/shards", **query_of(run))
    assert (answer["total"], answer["loaded"]) == (3, True)
    first, second, _ = answer["shards"]
    assert [shard["bad_rows"] for shard in answer["shards"]] == [1, 0, 0]
    assert (first["requests"], first["completed"], first["failed"], first["send"]) == (2, 1, 1, 1)
    batches = {batch["metadata"]["shard"]: batch["id"] for batch in openai.batches() if _is_of(batch, run)}
    assert second["batch_id"] == batches["1"]
    assert second["links"] == {
        "openai": f"https://platform.openai.com/batches/{batches['1']}",
        "result": f"{job.uri}/results/part-00001.parquet",
    }
    assert second["task"]["task_id"] == "shard.download"
    assert second["task"]["link"].endswith("/tasks/shard.download/mapped/1")
    page_two = ask(page, "/api/shards", **query_of(run), limit=2, offset=2)
    assert [shard["shard"] for shard in page_two["shards"]] == [2]
    assert ask(page, "/api/shards", **query_of(run), state="failed")["total"] == 0


def _is_of(batch: dict[str, Any], run: FinishedRun) -> bool:
    return bool(batch["metadata"].get("run_id") == run.run_id)


def test_a_directory_is_shown_once_by_the_task_that_made_it(
    page: httpx.Client, run_dag: RunDag, job: Job
) -> None:
    run = run_dag("openai_batch", job.conf())
    assert run.xcom("publish", key="job") == run.xcom("split", key="job") == job.uri
    answer = ask(page, "/api/jobs", dag_id=run.dag_id, run_id=run.run_id)
    assert [found["task_id"] for found in answer["jobs"]] == ["split"]
    assert answer["total"] == 1


@pytest.mark.long
def test_a_report_shows_the_job_of_another_run_and_no_requests_to_those_without_rights_on_that(
    page: httpx.Client, run_dag: RunDag, job: Job, login: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import DAG

    from airflow_openai_batch.operators.report import OpenAIBatchReportOperator

    run_dag("openai_batch", job.conf())
    with DAG("report_again", schedule=None) as dag:
        OpenAIBatchReportOperator(task_id="again", job=job.uri)
    with monkeypatch.context() as while_it_runs:
        while_it_runs.setenv("AIRFLOW__OPENAI_BATCH__RENAMED_DAGS", "report_again=openai_batch")
        run = run_dag(dag)
    found = wait_for_job(page, query_of(run, "again"), state="done")
    assert found["uri"] == job.uri
    query = query_of(run, "again")
    refused = login("reporter").get("/api/failed.jsonl", params=query)
    assert refused.status_code == 403
    assert refused.json()["detail"] == "You may not read DAG 'openai_batch'."
    answer = login("reporter").post("/api/cancel", json={**query, "batch_id": "batch_x"})
    assert answer.status_code == 403
    assert page.get("/api/failed.jsonl", params=query).status_code == 200
    shown = login("reporter").get("/api/jobs").json()
    assert shown["total"] == 1
    assert shown["jobs"][0]["error"] == "You may not read DAG 'openai_batch', which has planned this job."
    assert shown["jobs"][0]["cost_usd"] is None
    assert login("reporter").get("/api/shards", params=query).status_code == 403


@pytest.mark.long
def test_a_job_in_one_task(page: httpx.Client, run_dag: RunDag, job: Job) -> None:
    from airflow.sdk import DAG

    from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator

    with DAG("whole_job_on_the_page", schedule=None) as dag:
        OpenAIBatchJobOperator(
            task_id="all",
            input_uri=str(job.input),
            output_uri=job.uri,
            max_requests_per_shard=2,
            poll_interval=0.1,
            send_mode="batch",
        )
    run = run_dag(dag)
    wait_for_job(page, query_of(run, "all"), state="done")
    tasks = [shard["task"] for shard in ask(page, "/api/shards", **query_of(run, "all"))["shards"]]
    assert [(task["task_id"], task["map_index"], task["state"]) for task in tasks] == [
        ("all", -1, "success")
    ] * 3


@pytest.mark.long
def test_two_jobs_of_a_run_keep_their_shards_apart(
    page: httpx.Client, run_dag: RunDag, tmp_path: Path
) -> None:
    from airflow.sdk import DAG

    from airflow_openai_batch.task_group import openai_batch_task_group

    jobs = {}
    with DAG("two_jobs", schedule=None) as dag:
        for name in ("a", "b"):
            jobs[name] = Job(tmp_path / name).write(chat_line(f"{name}/{n}") for n in range(2))
            options: dict[str, Any] = {
                "max_requests_per_shard": 1,
                "poll_interval": 0.1,
                "send_mode": "batch",
            }
            openai_batch_task_group(
                name, input_uri=str(jobs[name].input), output_uri=jobs[name].uri, **options
            )
    run = run_dag(dag)
    assert run.state == "success", run.failures
    for name in ("a", "b"):
        wait_for_job(page, query_of(run, f"{name}.split"), state="done", uri=jobs[name].uri)
        shards = ask(page, "/api/shards", **query_of(run, f"{name}.split"))["shards"]
        assert [shard["task"]["task_id"] for shard in shards] == [f"{name}.shard"] * 2


@pytest.mark.long
def test_a_plan_that_another_program_goes_on_with_and_a_batch_that_is_cancelled(
    page: httpx.Client, run_dag: RunDag, openai: OpenAIServer, job: Job
) -> None:
    """Batches are a job's by their key, whoever created them."""
    run = run_dag("openai_batch", job.conf(dry_run=True))
    found = wait_for_job(page, query_of(run), state="planned")
    assert found["shards"]["by_state"]["waiting"] == 3
    assert found["cost_usd"] == 0.0
    forget_rendered_fields(run)
    openai.script(batch="completed", takes_s=3_600, times=2)
    created = [create_batch(job, shard) for shard in (0, 1)]
    # Its own run is over. OpenAI's list and the directory are looked at one after the other.
    found = wait_for_job(page, query_of(run), tokens_in_flight=2 * found_tokens(job), state="incomplete")
    assert found["shards"]["by_state"] == {
        "waiting": 1, "sending": 0, "running": 2, "landing": 0, "done": 0, "failed": 0,
    }  # fmt: skip
    answer = ask(page, "/api/jobs", **query_of(run))
    (queue,) = [each for each in answer["queues"] if each["model"] == "gpt-4o-mini"]
    assert (queue["conn_id"], queue["batches"], queue["error"]) == ("openai_default", 2, None)
    assert queue["tokens_in_flight"] == found["tokens_in_flight"]
    assert queue["others_tokens"] == 0

    shards = ask(page, "/api/shards", **query_of(run))["shards"]
    assert [shard["batch_id"] for shard in shards] == [*created, None]
    assert [shard["cancellable"] for shard in shards] == [True, True, False]
    answer = page.post("/api/cancel", json={**query_of(run), "batch_id": created[0]})  # type: ignore[assignment]
    assert answer.json() == {"batch_id": created[0], "status": "cancelling"}  # type: ignore[attr-defined]
    states = {batch["id"]: batch["status"] for batch in openai.batches()}
    assert states[created[0]] in ("cancelling", "cancelled")
    assert states[created[1]] in ("validating", "in_progress")
    wait_for_job(page, query_of(run), tokens_in_flight=found_tokens(job))
    assert "openai_batch.cancel" in audit_log(page, run)


def test_how_long_batches_take_here_is_told_before_the_first_answer(
    page: httpx.Client, run_dag: RunDag, openai: OpenAIServer, job: Job
) -> None:
    """Five of the account have taken ten minutes; the job's own has said nothing yet."""
    run = run_dag("openai_batch", job.conf(dry_run=True))
    let_run_again(run)
    complete_batches(openai, 5, takes_s=600.0)
    openai.script(batch="completed", takes_s=3_600.0, times=1)
    create_batch(job, 0)
    found = wait_for_job(page, query_of(run), tokens_in_flight=found_tokens(job))
    usual = found["usual"]
    assert (usual["model"], usual["up_to"]) == ("gpt-4o-mini", 100)
    assert usual["batches"] >= 5
    assert usual["p95_s"] == pytest.approx(600.0, abs=60.0)
    (queue,) = [
        each for each in ask(page, "/api/jobs", **query_of(run))["queues"] if each["model"] == "gpt-4o-mini"
    ]
    assert usual in queue["usual"]
    first, second, _ = ask(page, "/api/shards", **query_of(run))["shards"]
    assert 0 < first["eta_s"] <= usual["p95_s"]
    assert first["eta_s"] == pytest.approx(found["eta_s"], abs=30.0)
    assert second["eta_s"] is None, "nobody knows when it is sent"


def complete_batches(openai: OpenAIServer, count: int, *, takes_s: float) -> None:
    """Of strangers, with one request each."""
    openai.script(batch="completed", takes_s=takes_s, times=count)
    with OpenAIBatchHook().get_conn() as client:
        line = chat_line("a", "Hello").encode()
        for _ in range(count):
            file = client.files.create(file=("a.jsonl", line), purpose="batch")
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
    openai.clock.advance(takes_s)


def let_run_again(run: FinishedRun) -> None:
    """As if it had not ended."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagRun).filter_by(dag_id=run.dag_id, run_id=run.run_id).update({"state": "running"})


def forget_rendered_fields(run: FinishedRun) -> None:
    """As Airflow does after 30 more runs."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(RenderedTaskInstanceFields).filter_by(dag_id=run.dag_id, run_id=run.run_id).delete()


def create_batch(job: Job, shard: int) -> str:
    """As a task of another run would."""
    files = open_shard(resolve_location(job.uri), shard, resolve_location, LandingRules())
    caller = Caller(dag_id="other", run_id="later", task_id="t", map_index=shard, run_started_at=time.time())
    hook = OpenAIBatchHook()
    with ShardDriver(files=files, connect=hook.get_batch_client, caller=caller) as driver:
        driver.drive(Goal.CREATED, admitted=True)
        assert driver.batch_id is not None
        return driver.batch_id


def found_tokens(job: Job) -> int:
    """Of one shard."""
    plan = json.loads((job.output / "plan.json").read_text())
    return int(plan["shards"][0]["input_tokens"])


def audit_log(page: httpx.Client, run: FinishedRun) -> str:
    base = str(page.base_url).removesuffix("/openai-batch/")
    return page.get(f"{base}/api/v2/eventLogs", params={"run_id": run.run_id}).text


def test_the_last_runs_of_a_dag(page: httpx.Client, run_dag: RunDag, openai: OpenAIServer, job: Job) -> None:
    openai.script(line=400, custom_id="r/1")
    first = run_dag("openai_batch_one_task", job.conf())
    shutil.rmtree(job.output)
    second = run_dag("openai_batch_one_task", job.conf(output_uri=f"{job.uri}-2"))
    for run in (first, second):
        wait_for_job(page, query_of(run))
    runs = ask(page, "/api/history", dag_id="openai_batch_one_task", limit=2)["runs"]
    assert [run["run_id"] for run in runs] == [first.run_id, second.run_id]
    assert (runs[0]["cost_usd"], runs[0]["rows_ok"]) == (None, None)  # its directory is gone
    assert (runs[1]["rows_ok"], runs[1]["rows_bad"], runs[1]["state"]) == (6, 0, "success")
    assert runs[1]["cost_usd"] > 0


def test_a_directory_that_is_gone_is_told_and_breaks_nothing(
    page: httpx.Client, run_dag: RunDag, job: Job
) -> None:
    run = run_dag("openai_batch", job.conf(dry_run=True))
    shutil.rmtree(job.output)
    found = wait_for_job(page, query_of(run))
    assert found["error"].endswith("plan.json is not there (any more).")
    answer = page.get("/api/shards", params=query_of(run))
    assert (answer.status_code, answer.json()["detail"]) == (502, found["error"])
    assert page.get("/api/failed.jsonl", params=query_of(run)).status_code == 404


def test_directories_outside_the_allowed_roots_are_not_opened(
    page: httpx.Client,
    run_dag: RunDag,
    job: Job,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the API server allows counts, whatever a worker did."""
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS", "/")
    outside = tmp_path_factory.getbasetemp().parent / f"outside-{time.time_ns()}"
    try:
        run = run_dag("openai_batch", job.conf(output_uri=f"file://{outside}"))
        assert run.state == "success"
        found = wait_for_job(page, query_of(run))
        assert "not below an allowed output root" in found["error"]
        answer = page.get("/api/failed.jsonl", params=query_of(run))
        assert answer.status_code == 502
        assert "not below an allowed output root" in answer.json()["detail"]
    finally:
        shutil.rmtree(outside, ignore_errors=True)


def test_pages_and_filters(page: httpx.Client, run_dag: RunDag, job: Job) -> None:
    runs = [run_dag("openai_batch", job.conf(dry_run=True)) for _ in range(3)]
    newest = ask(page, "/api/jobs", dag_id="openai_batch", limit=2)
    assert [each["run_id"] for each in newest["jobs"]] == [runs[2].run_id, runs[1].run_id]
    next_page = ask(page, "/api/jobs", dag_id="openai_batch", limit=2, offset=2)
    assert next_page["jobs"][0]["run_id"] == runs[0].run_id
    assert next_page["total"] == newest["total"] >= 3
    assert (
        ask(page, "/api/jobs", dag_id="openai_batch", run_id=runs[0].run_id, state="incomplete")["total"] == 0
    )
    assert page.get("/api/shards", params={**query_of(runs[0]), "task_id": "publish"}).status_code == 404
