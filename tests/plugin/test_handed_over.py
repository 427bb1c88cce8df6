"""Which waits that began in the triggerer a webhook ends: those for its batch, once they have begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.shard import OpenAIBatchUploadOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.plugin.webhooks.deferred_tasks import find_waiting
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from fixtures.airflow_versions import needs_airflow_3_3
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = [pytest.mark.usefixtures("openai_conn"), needs_airflow_3_3]


def make_dag(job: Job, **wait: Any) -> DAG:
    """Two shards, each in tasks of its own."""
    with DAG("two_shards", schedule=None) as dag:
        split = OpenAIBatchSplitOperator(
            task_id="split", input_uri=str(job.input), output_uri=job.uri, max_requests_per_shard=1
        )
        for number in range(2):
            each: dict[str, Any] = {"shard": {"job": job.uri, "shard": number}, "poll_interval": 0.1}
            upload = OpenAIBatchUploadOperator(task_id=f"upload_{number}", send_mode="batch", **each)
            create = OpenAIBatchCreateOperator(task_id=f"create_{number}", send_mode="batch", **each)
            sensor = OpenAIBatchSensor(task_id=f"wait_{number}", send_mode="batch", **each, **wait)
            split >> upload >> create >> sensor
    return dag


def defer(dag: DAG, run_id: str, *task_ids: str) -> None:
    """As Airflow does what begins in the triggerer."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    with create_session() as session:
        for task_id in task_ids:
            start = dag.get_task(task_id).start_trigger_args
            assert start is not None
            assert start.trigger_kwargs is not None
            row = Trigger(classpath=start.trigger_cls, kwargs=start.trigger_kwargs)
            session.add(row)
            session.flush()
            instance = session.query(TaskInstance).filter_by(run_id=run_id, task_id=task_id).one()
            instance.state, instance.trigger_id = "deferred", row.id


def forget(run_id: str, task_id: str, key: str) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        assert session.query(XComModel).filter_by(run_id=run_id, task_id=task_id, key=key).delete()


def put_text(run_id: str, task_id: str, key: str) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        XComModel.set(
            key=key, value="no note", dag_id="two_shards", run_id=run_id, task_id=task_id, session=session
        )


def name_waiting(batch: dict[str, Any]) -> list[str]:
    return [waiting.name.split()[-2] for waiting in find_waiting(batch["id"], batch["metadata"])]


def test_a_wait_ends_with_its_own_batch_alone_and_not_before_it_has_begun(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = Job(tmp_path).write(chat_line(str(number)) for number in range(2))
    dag = make_dag(job)
    run = run_dag(dag)
    assert run.state == "success", run.failures
    defer(dag, run.run_id, "wait_0", "wait_1")
    batches = {batch["metadata"]["shard"]: batch for batch in openai_server.batches()}
    assert {shard: name_waiting(batch) for shard, batch in batches.items()} == {
        "0": ["wait_0"],
        "1": ["wait_1"],
    }
    put_text(run.run_id, "split", "handover")
    assert name_waiting(batches["1"]) == ["wait_1"], "a text of somebody's is no note"
    forget(run.run_id, "wait_0", "return_value")
    assert name_waiting(batches["0"]) == [], "the triggerer, which has not begun, stores what it returns"
    assert name_waiting(batches["1"]) == ["wait_1"]
