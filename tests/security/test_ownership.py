"""A job belongs to the DAG that planned it: another one may read it, and nothing else."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import DAG, task

from airflow_openai_batch.answers import iter_answers
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator, make_path_safe
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

OWNER = "openai_batch"
REFUSED = f"belongs to DAG '{OWNER}'"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that the DAG ``openai_batch`` has planned."""
    made = Job(tmp_path).write(chat_line(f"review/{n}", f"Review {n}: lovely.") for n in range(3))
    split_job(
        [f"file://{made.input}"],
        resolve_plain(made.uri),
        resolve=resolve_plain,
        limits=ShardLimits(),
        run_key=f"{OWNER}/manual__1",
        now=1_800_000_000.0,
    )
    return made


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("folder", ["results", "state/00000"])
def test_the_form_of_another_dag_puts_nothing_into_the_folders_of_a_job(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, folder: str
) -> None:
    before = read_files(job.output)
    run = run_dag("openai_batch_one_task", job.conf(output_uri=f"{job.output}/{folder}"))
    assert run.state == "failed"
    assert f"{job.output}: {REFUSED}" in run.errors("split")
    assert read_files(job.output) == before
    assert not openai_server.batches()


def test_the_form_of_another_dag_reaches_no_job_of_it(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    before, batches = read_files(job.output), len(openai_server.batches())
    for how in ({"repair": True}, {"on_existing": "restart"}):
        run = run_dag("openai_batch_one_task", job.conf(**how))
        assert run.state == "failed"
        assert REFUSED in run.errors("split")
        assert "renamed_dags = openai_batch_one_task=openai_batch" in run.errors("split")
    assert read_files(job.output) == before
    assert len(openai_server.batches()) == batches


def test_no_operator_of_another_dag_acts_on_it(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    before, batches = read_files(job.output), len(openai_server.batches())
    with DAG("thief", schedule=None) as thief:
        OpenAIBatchSplitOperator(
            task_id="split", input_uri=str(job.input), output_uri=job.uri, on_existing="restart"
        )
        OpenAIBatchShardOperator(task_id="shard", shard={"job": job.uri, "shard": 0})
        OpenAIBatchReportOperator(task_id="report", job=job.uri, max_failed_fraction=1.0)
        OpenAIBatchJobOperator(task_id="repair", output_uri=job.uri, repair=True)
    run = run_dag(thief)
    assert [task.task_id for task in thief.tasks if REFUSED not in run.errors(task.task_id)] == []
    assert read_files(job.output) == before
    assert len(openai_server.batches()) == batches


def test_a_restart_that_was_cut_off_leaves_the_job_to_its_dag(run_dag: RunDag, job: Job) -> None:
    aside = job.output / "generations" / "0001"
    aside.mkdir(parents=True)
    shutil.move(job.output / "plan.json", aside / "plan.json")
    run = run_dag("openai_batch_one_task", job.conf())
    assert REFUSED in run.errors("split")
    assert (aside / "plan.json").exists()


def test_another_dag_reads_the_answers(run_dag: RunDag, job: Job, tmp_path: Path) -> None:
    read = tmp_path / "read.json"

    @task
    def load() -> None:
        answers = iter_answers(job.uri, only_good=False, unfinished=True)
        read.write_text(json.dumps([answer.status for answer in answers]))

    with DAG("reader", schedule=None) as reader:
        load()
    assert run_dag(reader).state == "success"
    assert json.loads(read.read_text()) == []  # there are none yet, but it may look


def test_a_renamed_dag_goes_on_where_the_setting_says_so(
    run_dag: RunDag, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__RENAMED_DAGS", f"new_name = {OWNER}, other=another")
    with DAG("new_name", schedule=None) as renamed:
        OpenAIBatchJobOperator(task_id="ask", input_uri=str(job.input), output_uri=job.uri, poll_interval=0.1)
    run = run_dag(renamed)
    assert run.state == "success", run.failures
    assert [row["status"] for row in job.rows()] == ["ok"] * 3


def test_a_job_of_a_release_that_did_not_note_its_dag_goes_on(run_dag: RunDag, job: Job) -> None:
    plan = json.loads((job.output / "plan.json").read_text())
    (job.output / "plan.json").write_text(json.dumps(plan | {"created_by": ""}))
    run = run_dag("openai_batch_one_task", job.conf())
    assert run.state == "success", run.failures


def test_what_another_dag_prepared_is_not_prepared_anew(run_dag: RunDag, tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_text('{"review": "lovely"}\n')

    def make_dag(dag_id: str, on_existing: str) -> DAG:
        with DAG(dag_id, schedule=None) as dag:
            OpenAIBatchPrepareOperator(
                task_id="prepare",
                source=str(table),
                prompt={"name": "mood", "model": "gpt-4o-mini", "user": "{{ review }}"},
                output_uri=f"{tmp_path}/prepared",
                on_existing=on_existing,
            )
        return dag

    assert run_dag(make_dag("first", "resume")).state == "success"
    before = read_files(tmp_path / "prepared")
    run = run_dag(make_dag("second", "restart"))
    assert "belongs to DAG 'first'" in run.errors("prepare")
    assert read_files(tmp_path / "prepared") == before


NAMES = [
    "manual__2026-01-31T08:00:00+00:00",
    "manual__2026-01-31T08-00-00-00-00",
    "manual__2026-01-31T08:00:00-00:00",
    "a:b",
    "a b",
    "a-b",
    "a/../b",
    "..",
    ".",
    "",
    "x" * 250,
    "x" * 249 + "y",
]


def test_two_run_ids_never_become_one_directory() -> None:
    names = {run_id: make_path_safe(run_id) for run_id in NAMES}
    names |= {
        name: make_path_safe(name) for name in list(names.values())
    }  # a run that is called as a directory is
    assert len(set(names.values())) == len(names)
    for name in names.values():
        assert name.strip(".")
        assert "/" not in name
        assert len(name) < 200


def test_a_run_under_way_keeps_the_directory_that_an_older_release_gave_it(run_dag: RunDag, job: Job) -> None:
    """Older releases put a hyphen for whatever is not fit for a path, and nothing else."""
    folder = job.folder / "runs"
    with DAG("planner", schedule=None, params={"output": None}) as planner:
        OpenAIBatchSplitOperator(
            task_id="split",
            input_uri=str(job.input),
            output_uri="{{ params.output }}",
            conn_id="openai_default",
        )

    def find_job(output: str, month: int) -> str:
        day = datetime(2026, month, 28, 8, tzinfo=UTC)
        return str(
            run_dag(planner, {"output": output}, logical_date=day, run_after=day).xcom("split", key="job")
        )

    pattern = f"file://{folder}/{{run_id}}"
    former = f"file://{folder}/manual__2026-01-28T08-00-00-00-00"
    assert find_job(former, 1) == former
    assert find_job(pattern, 1) == former
    assert find_job(pattern, 2) == f"file://{folder}/{make_path_safe('manual__2026-02-28T08:00:00+00:00')}"
