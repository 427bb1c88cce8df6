"""A resend with nothing to send is skipped by the download before it, and the report that then runs, whatever became of
the tasks before it, looks at the split itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, TriggerRule, task, task_group

from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchResendOperator, OpenAIBatchUploadOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from fixtures.airflow_versions import needs_airflow_3_3
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

ALL_DONE = TriggerRule.ALL_DONE
OWN_RULE = OpenAIBatchReportOperator.AFTER_STEPS


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Four requests: two shards of two."""
    return Job(tmp_path, {"max_requests_per_shard": 2}).write(chat_line(str(n)) for n in range(4))


def make_dag(
    job: Job,
    *,
    rule: TriggerRule = OWN_RULE,
    resend: dict[str, Any] | None = None,
    before: Callable[[], Any] | None = None,
    after: Callable[[], Any] | None = None,
) -> DAG:
    """As `openai_batch`: per shard five steps, then the report.

    :param before: makes a task before the split; ``after``, one after each resend.
    """
    with DAG("steps", schedule=None) as dag:
        split = OpenAIBatchSplitOperator(
            task_id="split", input_uri=str(job.input), output_uri=job.uri, max_requests_per_shard=2
        )
        if before:
            before() >> split

        @task_group(group_id="shard")
        def process(shard: Any) -> None:
            sending: dict[str, Any] = {"shard": shard, "poll_interval": 0.1, "send_mode": "batch"}
            download = OpenAIBatchDownloadOperator(task_id="download", **sending)
            (
                OpenAIBatchUploadOperator(task_id="upload", **sending)
                >> OpenAIBatchCreateOperator(task_id="create", **sending)
                >> OpenAIBatchSensor(task_id="wait", shard=shard, poll_interval=0.1)
                >> download
            )
            last = OpenAIBatchResendOperator(task_id="resend", **sending, **(resend or {}))
            download >> last
            if after:
                last >> after()

        publish = OpenAIBatchReportOperator(task_id="publish", job=job.uri, trigger_rule=rule)
        process.expand(shard=split.output) >> publish
        split >> publish
    return dag


@needs_airflow_3_3
def test_only_the_shard_that_has_leftovers_sends_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=500, custom_id="3", times=1)
    run = run_dag(make_dag(job))
    assert run.state == "success", run.failures
    assert run.states["shard.resend", 0] == "skipped"
    assert run.states["shard.resend", 1] == "success"
    assert [row["status"] for row in job.rows()] == ["ok"] * 4
    assert openai_server.books.billed["batch"] == 4


@needs_airflow_3_3
def test_what_is_after_the_download_finds_what_it_returned(run_dag: RunDag, job: Job) -> None:
    run = run_dag(make_dag(job))
    assert run.states["shard.resend", 0] == "skipped"
    for index in (0, 1):
        assert run.xcom("shard.download", map_index=index) == {"job": job.uri, "shard": index}
        assert run.xcom("shard.download", map_index=index, key="_link_OpenAIBatchLink")


@pytest.mark.parametrize(
    "what",
    [
        {"rule": TriggerRule.ALL_DONE_MIN_ONE_SUCCESS},  # as `openai_batch` was, and copies of it are
        {"rule": TriggerRule.ALL_SUCCESS},
        {"resend": {"on_success_callback": lambda _: None}},
        pytest.param(
            {"after": task(task_id="after", trigger_rule=ALL_DONE)(lambda: None)}, marks=needs_airflow_3_3
        ),
    ],
    ids=["rule of before", "all must succeed", "a callback", "a task of somebody's own"],
)
def test_it_is_not_skipped_where_somebody_would_miss_it(
    run_dag: RunDag, job: Job, what: dict[str, Any]
) -> None:
    run = run_dag(make_dag(job, **what))
    assert run.state == "success", run.failures
    assert set(run.states.values()) == {"success"}
    assert job.report()["complete"]


@needs_airflow_3_3
def test_where_the_split_fails_the_report_says_so_and_writes_nothing(run_dag: RunDag, job: Job) -> None:
    assert run_dag(make_dag(job)).state == "success"
    job.output.joinpath("report.md").unlink()
    job.write([chat_line("another")])  # not what the directory holds
    run = run_dag(make_dag(job))
    assert run.state == "failed"
    assert run.states["publish", -1] == "failed"
    assert "split has failed, so there is nothing to report. Clear split" in run.errors("publish")
    assert not job.output.joinpath("report.md").exists()


@needs_airflow_3_3
def test_where_the_split_is_skipped_so_is_the_report(run_dag: RunDag, job: Job) -> None:
    @task
    def not_today() -> None:
        raise AirflowSkipException

    run = run_dag(make_dag(job, before=not_today))
    assert run.state == "success", run.failures
    assert run.states["split", -1] == run.states["publish", -1] == "skipped"
    assert not job.output.exists()


@needs_airflow_3_3
def test_a_failed_shard_turns_the_report_red(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    openai_server.script(batch="failed", code="model_not_found", shard=1, times=None)
    run = run_dag(make_dag(job))
    assert run.state == "failed"
    assert (run.states["shard.resend", 0], run.states["shard.resend", 1]) == ("skipped", "upstream_failed")
    assert "1 of 2 shards are not done (1)" in run.errors("publish")
    assert [row["custom_id"] for row in job.rows()] == ["0", "1"]
