"""A task that uploads creates the batch as well, where the next one would do nothing else and nobody would see a
difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, TriggerRule, task, task_group

from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.shard import OpenAIBatchUploadOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from fixtures.airflow_versions import DagSerialization, needs_airflow_3_3
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = [pytest.mark.usefixtures("openai_conn"), needs_airflow_3_3]


class OwnUpload(OpenAIBatchUploadOperator):
    """Somebody's own, which may do more than ours."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Four requests: two shards of two."""
    return Job(tmp_path, {"max_requests_per_shard": 2}).write(chat_line(str(n)) for n in range(4))


def make_dag(
    job: Job,
    *,
    upload: dict[str, Any] | None = None,
    create: dict[str, Any] | None = None,
    kind: type[OpenAIBatchUploadOperator] = OpenAIBatchUploadOperator,
    between: bool = False,
    beside: bool = False,
    **both: Any,
) -> DAG:
    with DAG("two_steps", schedule=None) as dag:
        split = OpenAIBatchSplitOperator(
            task_id="split", input_uri=str(job.input), output_uri=job.uri, max_requests_per_shard=2
        )

        @task_group(group_id="shard")
        def process(shard: Any) -> None:
            sending: dict[str, Any] = {
                "shard": shard, "poll_interval": 0.1, "send_mode": "batch", "retry_delay": 0, **both,
            }  # fmt: skip
            first = kind(task_id="upload", **{**sending, **(upload or {})})
            second = OpenAIBatchCreateOperator(task_id="create", **{**sending, **(create or {})})
            first >> second
            if between:
                first >> task(task_id="approve")(lambda: None)() >> second
            if beside:
                task(task_id="approve")(lambda: None)() >> second

        process.expand(shard=split.output)
    return dag


def creators(server: OpenAIServer) -> set[str]:
    return {batch["metadata"]["task_id"] for batch in server.batches()}


def test_one_task_uploads_and_creates_and_the_next_begins_in_the_triggerer(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    dag = make_dag(job)
    assert dag.get_task("shard.create").start_from_trigger
    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert creators(openai_server) == {"shard.upload"}
    assert len(openai_server.batches()) == 2
    note = run.xcom("shard.upload", map_index=1, key="handover")
    assert note["reached"] == ["CREATED"]
    assert note["wait"]["batch_id"] in {batch["id"] for batch in openai_server.batches()}


@pytest.mark.parametrize(
    "how",
    [
        {"between": True},
        {"beside": True},
        {"kind": OwnUpload},
        {"upload": {"on_success_callback": print}},
        {"upload": {"post_execute": lambda *_: None}},
        {"create": {"on_execute_callback": print}},
        {"create": {"max_cost_usd": 5}},
        {"create": {"trigger_rule": TriggerRule.ALL_DONE}},
        {"create": {"pool": "creations"}},
        {"create": {"queue": "creations"}},
        {"create": {"max_active_tis_per_dag": 1}},
        {"create": {"deferrable": False}},
    ],
    ids=[
        "a task between",
        "a task beside",
        "a class of one's own",
        "a callback of upload",
        "a hook of upload",
        "a callback of create",
        "a budget of one",
        "a trigger rule",
        "a pool",
        "a queue",
        "a bound",
        "not deferrable",
    ],
)
def test_where_somebody_would_see_a_difference_each_does_its_own(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, how: dict[str, Any]
) -> None:
    dag = make_dag(job, **how)
    assert not dag.get_task("shard.create").start_from_trigger
    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert creators(openai_server) == {"shard.create"}


@pytest.mark.parametrize(
    "how",
    [
        {"create": {"on_failure_callback": print}},
        {"create": {"retries": 0}},
        {"create": {"pool_slots": 2}},
        {"create": {"params": {"cap": 1}}},
        {"upload": {"trigger_rule": TriggerRule.ALL_DONE}},
        {"max_cost_usd": "{{ params.cap if task.task_id == 'x' else 1 }}"},
        {"max_cost_usd": "{{ ti.task_id | length }}"},
    ],
    ids=["alert", "retries", "slots", "params", "rule of upload", "the task", "its name"],
)
def test_what_an_author_has_said_of_one_of_them_is_not_lost(job: Job, how: dict[str, Any]) -> None:
    assert make_dag(job, max_cost_usd="{{ ti.map_index + 5 }}").get_task("shard.create").start_from_trigger
    assert not make_dag(job, **how).get_task("shard.create").start_from_trigger


def test_one_that_is_mapped_begins_in_a_worker(job: Job) -> None:
    """Airflow asks its class, and what it is told becomes part of the stored DAG."""
    with DAG("mapped", schedule=None) as dag:
        shards = [{"job": job.uri, "shard": 0}]
        OpenAIBatchCreateOperator.partial(task_id="create").expand(shard=shards)
    stored = DagSerialization.to_dict(dag)
    assert "property" not in str(stored)
    assert "_BeginsInTriggerer" not in str(stored)
    assert not dag.get_task("create").start_from_trigger


def test_a_create_without_an_upload_before_it_begins_in_a_worker(job: Job) -> None:
    with DAG("alone", schedule=None):
        create = OpenAIBatchCreateOperator(task_id="create", shard={"job": job.uri, "shard": 0})
    assert not create.start_from_trigger


def test_a_lost_reply_is_found_by_whoever_goes_on(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(http="POST /batches", drop="after", times=1)
    assert run_dag(make_dag(job)).state == "failed"  # there are no further tries in this kind of run
    run = run_dag(make_dag(job))
    assert run.state == "success", run.failures
    assert len(openai_server.batches()) == 2
    assert openai_server.books.calls_of("POST /v1/files") == 2


def test_what_has_to_be_waited_for_is_left_to_the_next_task(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.1,))
    openai_server.script(http="POST /batches", status=404, message="No such File object: file-x", times=1)
    run = run_dag(make_dag(job))
    assert run.state == "success", run.failures
    assert creators(openai_server) == {"shard.upload", "shard.create"}
    assert len(openai_server.batches()) == 2
    assert openai_server.books.calls_of("POST /v1/files") == 2


def test_a_few_requests_that_go_out_one_by_one_are_the_next_tasks(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    run = run_dag(make_dag(job, send_mode="realtime"))
    assert run.state == "success", run.failures
    assert openai_server.batches() == []
    assert openai_server.books.billed == {"realtime": 4}
