"""Jobs on a worker's own disk: a warning where tasks may run elsewhere, and an error that says so where one did."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, TriggerRule, task

from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.task.local_disk import describe_local_paths
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag
    from fixtures.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("openai_conn")

CELERY = "airflow.providers.celery.executors.celery_executor.CeleryExecutor"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(str(n)) for n in range(12))


@pytest.fixture(autouse=True)
def first_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__HOSTNAME_CALLABLE", "distributed.host.get_name")
    monkeypatch.setenv("HOSTNAME", "worker-1")


def read_warnings(capfd: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capfd.readouterr()
    return [line for line in (out + err).splitlines() if "lies on the disk of" in line]


@pytest.mark.parametrize("executor", ["CeleryExecutor", f"LocalExecutor,big:{CELERY}"])
def test_a_local_path_is_warned_of_once_where_tasks_may_run_elsewhere(
    run_dag: RunDag,
    job: Job,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert run_dag("openai_batch", job.conf()).state == "success"
    (warning,) = read_warnings(capfd)
    assert f"{job.input} and 1 more lies on the disk of worker-1, and CeleryExecutor may run" in warning
    assert "Use object storage" in warning
    assert "[openai_batch] shared_disk = true" in warning


@pytest.mark.parametrize("output_uri", ["job", 5])
def test_a_relative_output_is_said_to_be_one(
    run_dag: RunDag,
    job: Job,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output_uri: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    with DAG("relative", schedule=None) as dag:
        OpenAIBatchJobOperator(
            task_id="ask", input_uri=str(job.input), output_uri=output_uri, send_mode="realtime"
        )
    run = run_dag(dag)
    assert run.state == "success", run.failures
    said = (
        f"The output '{output_uri}' is a relative path: the job lies in file://{tmp_path}/{output_uri}, below"
    )
    assert said in "".join(capfd.readouterr())


def test_a_pod_is_on_a_machine_of_its_own_though_its_executor_is_local(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    assert describe_local_paths(["/data/in.jsonl"]) is None
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    assert "KubernetesExecutor may run" in str(describe_local_paths(["s3://bucket/in", "file:///data/job"]))


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"},
        {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW__OPENAI_BATCH__SHARED_DISK": "true"},
    ],
)
def test_there_is_no_warning_where_the_disk_is_everybodys(
    run_dag: RunDag,
    job: Job,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert read_warnings(capfd) == []


@pytest.mark.long
def test_there_is_no_warning_where_all_is_in_a_store(
    run_dag: RunDag,
    job: Job,
    s3: ObjectStore,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT", s3.uri(""))
    places = {"input_uri": s3.put("in.jsonl", job.input.read_bytes()), "output_uri": s3.uri("job")}
    run = run_dag("openai_batch", job.conf(**places))
    assert run.state == "success"
    assert run.xcom("split", key="split_host") is None
    assert read_warnings(capfd) == []


def make_dag(job: Job) -> DAG:
    """After the split the other tasks find themselves on another machine: with another name and another disk."""
    with DAG("two_machines", schedule=None) as dag:
        split = OpenAIBatchSplitOperator(
            task_id="split", input_uri=str(job.input), output_uri=str(job.output), max_requests_per_shard=6
        )

        @task
        def go_elsewhere() -> None:
            os.environ["HOSTNAME"] = "worker-2"
            job.output.rename(job.folder / "left behind")

        sending: dict[str, Any] = {"send_mode": "batch", "poll_interval": 0.1}
        shards = OpenAIBatchDownloadOperator.partial(task_id="download", **sending).expand(shard=split.output)
        publish = OpenAIBatchReportOperator(
            task_id="publish",
            job="{{ ti.xcom_pull(task_ids='split', key='job') }}",
            trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        )
        split >> go_elsewhere() >> shards >> publish
        split >> publish
    return dag


def test_a_task_on_another_machine_names_both_and_the_way_out(run_dag: RunDag, job: Job) -> None:
    run = run_dag(make_dag(job), retries=2)
    assert run.state == "failed"
    message = (
        f"file://{job.output}: there is no plan.json on the disk of worker-2, where this task runs; the split wrote it "
        "on the disk of worker-1. Use object storage (s3://, gs://, abfs://), or a disk that all workers mount at this "
        "path; for that set [openai_batch] shared_disk = true."
    )
    assert run.errors("download", map_index=0) == message  # once: another try would not help
    assert run.errors("download", map_index=1) == message
    assert run.errors("publish") == message
