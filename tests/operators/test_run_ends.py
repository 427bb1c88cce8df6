"""What a run leaves besides rows: asset events, callbacks, and tasks that tidy up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, task

from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write([chat_line("1")])


def make_job(job: Job, **options: Any) -> OpenAIBatchJobOperator:
    options = {"input_uri": str(job.input), "output_uri": job.uri, "send_mode": "realtime", **options}
    return OpenAIBatchJobOperator(task_id="ask", **options)


def test_own_outlets_stand_beside_the_jobs_event(run_dag: RunDag, job: Job) -> None:
    with DAG("own_outlets", schedule=None) as dag:
        make_job(job, outlets=[Asset("s3://mine/table")])
    events = run_dag(dag).asset_events()
    assert sorted(event["uri"] for event in events) == [job.uri, "s3://mine/table"]


def test_a_mapped_job_leaves_its_event(run_dag: RunDag, job: Job) -> None:
    with DAG("mapped_job", schedule=None) as dag:
        OpenAIBatchJobOperator.partial(task_id="ask", output_uri=job.uri, send_mode="realtime").expand(
            input_uri=[str(job.input)]
        )
    (event,) = run_dag(dag).asset_events()
    assert event["uri"] == job.uri


@pytest.mark.parametrize("given", ["~/jobs/{run_id}", "jobs/{run_id}"])
def test_the_asset_of_a_path_is_where_it_lies(
    run_dag: RunDag, job: Job, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(job.folder))
    monkeypatch.chdir(job.folder)
    with DAG("paths", schedule=None) as dag:
        make_job(job, output_uri=given)
    (event,) = run_dag(dag).asset_events()
    assert event["uri"] == f"file://{job.folder}/jobs"


def test_a_place_whose_name_is_not_ascii_has_an_asset_too(run_dag: RunDag, job: Job) -> None:
    """Airflow's server takes no other URI, and fails the task whose event has one; see `make_asset_uri`."""
    with DAG("umlauts", schedule=None) as dag:
        make_job(job, output_uri=f"file://{job.folder}/Hörbücher/{{run_id}}")
    run = run_dag(dag)
    assert run.state == "success", run.failures
    (event,) = run.asset_events()
    assert event["uri"] == f"file://{job.folder}/H%C3%B6rb%C3%BCcher"
    assert event["extra"]["job"].startswith(f"file://{job.folder}/Hörbücher/")


@pytest.mark.parametrize("given", ["file://~/jobs", "file://jobs/a"])
def test_a_file_uri_without_the_whole_path_is_refused(
    run_dag: RunDag, job: Job, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.folder)
    with DAG("short_uri", schedule=None) as dag:
        make_job(job, output_uri=given)
    run = run_dag(dag)
    assert "needs the whole path, as in file:///data/jobs" in run.errors("ask")


def test_a_place_that_is_a_number_stays_a_text(
    run_dag: RunDag, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.folder)
    (job.folder / "7").write_text(job.input.read_text())
    with DAG(
        "numbers", schedule=None, render_template_as_native_obj=True, params={"a": 7, "b": 20261129}
    ) as dag:
        split = OpenAIBatchSplitOperator(
            task_id="split", input_uri="{{ params.a }}", output_uri="{{ params.b }}", plan_only=True
        )
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare", source="{{ params.a }}", output_uri="{{ [params.b] }}", prompt={"name": "p"}
        )
        split >> prepare
        prepare.trigger_rule = "always"
    run = run_dag(dag)
    assert run.states["split", -1] == "success", run.failures
    assert (job.folder / "20261129" / "plan.json").exists()
    assert "output_uri is a list: must be a text" in run.errors("prepare")


def test_a_run_whose_conf_airflow_ignores_says_so(
    run_dag: RunDag, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS", "False")
    with DAG("ignored", schedule=None, params={"input_uri": ""}) as dag:
        make_job(job, input_uri="{{ params.input_uri }}")
    run = run_dag(dag, {"input_uri": str(job.input)})
    assert "input_uri is empty" in run.errors("ask")
    assert "since [core] dag_run_conf_overrides_params is false" in run.errors("ask")


def test_shards_of_a_mapped_split_are_told_to_be_collected(run_dag: RunDag, job: Job) -> None:
    with DAG("mapped_split", schedule=None) as dag:
        split = OpenAIBatchSplitOperator.partial(task_id="split").expand_kwargs(
            [{"input_uri": str(job.input), "output_uri": f"{job.uri}/{n}"} for n in range(2)]
        )
        OpenAIBatchShardOperator.partial(task_id="shard").expand(shard=split.output)
    errors = run_dag(dag).errors("shard", map_index=0)
    assert "the split is mapped itself" in errors
    assert ".expand(shard=collect(split.output))" in errors


@pytest.mark.parametrize("what", ["empty", "dry run", "no rows"])
def test_what_tidies_up_runs_though_the_rest_is_skipped(run_dag: RunDag, job: Job, what: str) -> None:
    with DAG(f"teardown_{what[:2]}", schedule=None) as dag:

        @task
        def tidy() -> None:
            job.folder.joinpath("tidied").touch()

        if what == "no rows":
            job.input.write_text("")
            first: Any = OpenAIBatchPrepareOperator(
                task_id="split",
                source=str(job.input),
                output_uri=job.uri,
                prompt={"name": "p", "model": "gpt-4o-mini", "user": "{{ text }}"},
                on_empty="skip",
            )
        else:
            job.write([] if what == "empty" else [chat_line("1")])
            first = OpenAIBatchSplitOperator(
                task_id="split",
                input_uri=str(job.input),
                output_uri=job.uri,
                on_empty="skip",
                plan_only=what == "dry run",
            )
        report = OpenAIBatchReportOperator(task_id="publish", job=job.uri)
        first >> report >> tidy().as_teardown(setups=first.as_setup())
    run = run_dag(dag)
    assert run.states["publish", -1] == "skipped", run.failures
    assert (job.folder / "tidied").exists()
