"""The connection of a job, as the page takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.utils.session import create_session

from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.plugin.job_rows import find_conn_ids, find_jobs
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


def test_a_connection_that_was_refused_is_not_the_jobs(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, define_connection: Any
) -> None:
    """The page would look at its account for whoever may read the DAG."""
    define_connection("other", conn_type="openai", password="sk-other", host=openai_server.base_url)
    job = Job(tmp_path).write([chat_line("a")])
    split_job(
        [f"file://{job.input}"],
        resolve_plain(job.uri),
        resolve=resolve_plain,
        limits=ShardLimits(),
        run_key="reporter/x",
        now=1_800_000_000.0,
    )
    with DAG("reporter", schedule=None, params={"conn_id": "openai_default"}) as dag:
        OpenAIBatchReportOperator(task_id="report", job=job.uri, conn_id="{{ params.conn_id }}")
    found = []
    for conf in ({}, {"conn_id": "other"}):
        run = run_dag(dag, conf)
        with create_session() as session:
            (row,) = (row for row in find_jobs(session, {"reporter"})[0] if row.id.run_id == run.run_id)
            found.append(find_conn_ids(session, [row.id]).get(row.id))
    assert found == ["openai_default", None]
