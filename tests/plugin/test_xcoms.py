"""Jobs whose XComs lie in object storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_openai_batch.plugin.job_rows import find_conn_ids, find_jobs
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag

BACKEND = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.timeout(300)
def test_a_job_is_found_where_airflow_keeps_only_a_path(
    run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path).write([chat_line("1")])
    run = run_dag("openai_batch", job.conf(mode="realtime"))
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", BACKEND)
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{tmp_path}/xcoms")
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD", "0")
    from airflow.providers.common.io.xcom import backend

    for cached in (backend._get_base_path, backend._get_threshold):
        cached.cache_clear()
    with create_session() as session:
        for row in session.scalars(select(XComModel).where(XComModel.run_id == run.run_id)):
            value = XComModel.deserialize_value(row)
            row.value = backend.XComObjectStorageBackend.serialize_value(value, run_id=run.run_id)
            assert str(row.value).startswith("file://")
    with create_session() as session:
        (found,), _ = find_jobs(session, {run.dag_id}, run_id=run.run_id)
        assert (found.uri, found.id.task_id) == (job.uri, "split")
        assert find_conn_ids(session, [found.id]) == {found.id: "openai_default"}
