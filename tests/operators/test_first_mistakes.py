"""What somebody gets wrong in a first DAG of their own is said before it costs, with a way out that is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.task_group import openai_batch_task_group
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

QUICK: dict[str, Any] = {"send_mode": "batch", "poll_interval": 0.1}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Three requests."""
    return Job(tmp_path).write(chat_line(str(n)) for n in range(3))


def test_a_percentage_for_a_fraction_does_not_turn_every_run_green(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=400, times=None)
    with DAG("percent", schedule=None) as dag:
        openai_batch_task_group(
            "ask", input_uri=str(job.input), output_uri=job.uri, max_failed_fraction=5, **QUICK
        )
    run = run_dag(dag)
    assert run.state == "failed"
    said = run.errors("ask.publish")
    assert said.startswith("max_failed_fraction=5: must be at most 1. It is a part of the rows: 0.05 is five")
