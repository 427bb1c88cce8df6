"""The whole flow in a DAG of one's own, by one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from airflow_openai_batch.dag_params import make_form, make_params
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.task_group import openai_batch_task_group
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

QUICK: dict[str, Any] = {"send_mode": "batch", "poll_interval": 0.1, "max_requests_per_shard": 2}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(f"r/{n}", f"Review {n}: lovely.") for n in range(5))


def test_the_group_hands_on_where_the_rows_are(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with DAG("composed", schedule=None) as dag:
        batch = openai_batch_task_group(
            "label", input_uri=str(job.input), output_uri=f"file://{job.output}", **QUICK
        )

        @task
        def load(job_uri: str, counts: dict[str, Any]) -> str:
            return f"{job_uri} {counts['rows']['ok']}"

        load(batch.job, batch.counts)
    run = run_dag(dag)
    assert run.state == "success", run.states
    assert run.xcom("load") == f"file://{job.output} 5"
    assert [row["status"] for row in job.rows()] == ["ok"] * 5
    assert len(openai_server.batches()) == 3


def test_two_groups_stand_in_one_dag_and_what_follows_a_bad_one_does_not_run(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, tmp_path: Path
) -> None:
    openai_server.script(line=400, custom_id="r/4", times=None)
    with DAG("two", schedule=None) as dag:
        first = openai_batch_task_group(
            "first", input_uri=str(job.input), output_uri=str(tmp_path / "1"), **QUICK
        )
        second = openai_batch_task_group(
            "second", input_uri=str(job.input), output_uri=str(tmp_path / "2"), max_failed_fraction=1, **QUICK
        )
        second >> first >> task(lambda: None, task_id="after")()
    states = {task_id: state for (task_id, _), state in run_dag(dag).states.items()}
    assert states["second.publish"] == "success"
    assert states["first.publish"] == "failed"
    assert states["after"] == "upstream_failed"


def test_the_form_fills_in_what_the_call_does_not(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with DAG("formed", schedule=None, params=make_params()) as dag:
        openai_batch_task_group(from_params=True, conn_id="openai_default", prefix_group_id=False)
    run = run_dag(dag, job.conf(max_requests_per_shard=3))
    assert run.state == "success", run.states
    assert len(openai_server.batches()) == 2
    assert ("publish", -1) in run.states


def test_what_another_task_says_of_the_report_does_not_start_it_where_the_split_never_ran(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with DAG("broken", schedule=None) as dag:

        @task(multiple_outputs=True)
        def find() -> dict[str, str]:
            return {"asset": "file:///somewhere"}

        @task
        def prepare(found: str) -> str:
            raise ValueError("no input")

        found: Any = find()
        openai_batch_task_group(
            "ask", input_uri=prepare(found["asset"]), output_uri=str(job.output), asset_uri=found["asset"]
        )
    states = {task_id: state for (task_id, _), state in run_dag(dag).states.items()}
    assert states["find"] == "success"
    assert states["ask.split"] == states["ask.publish"] == "upstream_failed"


def test_a_keyword_that_no_operator_knows_is_named_with_the_one_that_was_meant() -> None:
    with DAG("wrong", schedule=None), pytest.raises(TypeError, match=r"'max_cost'.*'max_cost_usd'"):
        openai_batch_task_group(input_uri="a", output_uri="b", max_cost=3)


def test_a_place_that_is_missing_is_named() -> None:
    with DAG("wrong", schedule=None), pytest.raises(TypeError, match="output_uri must be given"):
        openai_batch_task_group("label", input_uri="a")


def test_rows_are_joined_whatever_becomes_of_the_shards(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    rows = "".join(f"{n},Review {n}: lovely.\n" for n in range(5))
    (tmp_path / "reviews.csv").write_text(f"id,text\n{rows}")
    openai_server.script(batch="failed", code="model_not_found", shard=2, times=None)
    with DAG("joined", schedule=None) as dag:
        prepare = OpenAIBatchPrepareOperator(
            task_id="make_requests",
            source=str(tmp_path / "reviews.csv"),
            prompt={"name": "mood", "model": "gpt-6-luna", "user": "Good or bad? {{ text }}"},
            output_uri=str(tmp_path / "prepared"),
        )
        ask = openai_batch_task_group(
            "ask", input_uri=prepare.output, output_uri=str(tmp_path / "job"), **QUICK
        )
        ask.join_rows(prepare, str(tmp_path / "answers.jsonl"), task_id="write_table")
    run = run_dag(dag)
    assert run.states[("ask.publish", -1)] == "failed"
    assert "Clear their tasks, and write_table, written without these rows: nothing" in run.errors(
        "ask.publish"
    )
    assert run.states[("write_table", -1)] == "success"
    table = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(row["id"], row["answer_status"]) for row in table] == [
        *(("0", "ok"), ("1", "ok"), ("2", "ok"), ("3", "ok")),
        ("4", "unfinished"),
    ]


@pytest.mark.parametrize(
    ("own", "from_params", "said"),
    [({}, True, "{{ params.overwrite }}"), ({}, False, False), (None, True, False)],
    ids=["form", "code", "form without it"],
)
def test_a_join_takes_from_the_form_what_the_form_has(own: Any, from_params: bool, said: Any) -> None:
    params = make_params() if own is None else make_form(own)
    with DAG("formed", schedule=None, params=params):
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare", source="a", prompt="tags.yaml", output_uri="b"
        )
        ask = openai_batch_task_group("ask", input_uri="a", output_uri="b", from_params=from_params)
        assert ask.join_rows(prepare, "c.csv").overwrite == said
