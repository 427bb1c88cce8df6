"""Whether a webhook may still find a task that waits: while the one that created the batch runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.plugin.webhooks.deferred_tasks import is_busy
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag


@pytest.mark.usefixtures("openai_conn")
def test_the_task_that_created_a_batch_is_known_by_its_metadata(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    job = Job(tmp_path, {"max_requests_per_shard": 1}).write(chat_line(str(n)) for n in range(2))
    run = run_dag("openai_batch_one_task", job.conf())
    metadata = {batch["metadata"]["shard"]: batch["metadata"] for batch in openai_server.batches()}
    assert not is_busy(metadata["0"])
    with create_session() as session:
        (instance,) = session.query(TaskInstance).filter_by(
            dag_id=run.dag_id, run_id=run.run_id, task_id=metadata["0"]["task_id"], map_index=0
        )
        instance.state = "running"
    assert is_busy(metadata["0"])
    assert not is_busy(metadata["1"])
    assert not is_busy({})
