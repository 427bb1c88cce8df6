"""Two tasks that send the first event of one asset at once: Airflow fails one of them, so one waits for the other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import DAG

from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn", "openai_server")
WAITS = "another task that may be creating the asset"
TURN_S = 0.3


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_openai_batch.operators.task.asset_event.TURN_S", TURN_S)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, {"poll_interval": 0.1, "mode": "batch"}).write([chat_line("a", "Lovely.")])


def run(run_dag: RunDag, job: Job, **params: object) -> FinishedRun:
    finished = run_dag("openai_batch_one_task", job.conf(**params))
    assert finished.state == "success", finished.failures
    return finished


def test_a_run_whose_job_is_its_own_waits_for_nobody(
    run_dag: RunDag, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    assert [event["uri"] for event in run(run_dag, job).asset_events()] == [job.uri]
    assert WAITS not in caplog.text


def test_a_run_that_goes_on_with_anothers_job_waits_once(
    run_dag: RunDag, job: Job, openai_server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    openai_server.script(batch="failed", code="model_not_found")
    assert run_dag("openai_batch_one_task", job.conf()).state == "failed"
    assert WAITS not in caplog.text
    for waits in (True, False):
        assert [event["uri"] for event in run(run_dag, job).asset_events()] == [job.uri]
        assert (WAITS in caplog.text) is waits
        caplog.clear()


def test_mapped_jobs_that_share_an_asset_wait_in_the_order_of_their_indexes(
    run_dag: RunDag, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = [str(Job(tmp_path / name).write([chat_line(name, "Lovely.")]).input) for name in "abc"]
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        OpenAIBatchJobOperator.partial(
            task_id="ask",
            asset_uri=f"file://{tmp_path}/all",
            output_uri=f"file://{tmp_path}/out/{{{{ ti.map_index }}}}",
            poll_interval=0.1,
        ).expand(input_uri=inputs)
    finished = run_dag(dag)
    assert finished.state == "success", finished.failures
    assert [event["uri"] for event in finished.asset_events()] == [f"file://{tmp_path}/all"] * 3
    # One by one here: the first is the only one that finds no event.
    assert caplog.text.count(WAITS) == 1
