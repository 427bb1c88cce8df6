"""A task that is tried again, or cleared, finds what its own run has prepared, whatever it says of what is there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from airflow_openai_batch.answers import iter_answers
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.task_group import openai_batch_task_group
from fixtures.job import chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn", "form_roots")

DAY = datetime(2026, 1, 31, tzinfo=UTC)
CLEARED = {"logical_date": DAY, "run_after": DAY}
"""Of two runs that are one, whose tasks are cleared in between."""
QUICK: dict[str, Any] = {"model": "gpt-4o-mini", "poll_interval": 0.1, "send_mode": "batch"}


def make_dag(folder: Path, on_existing: str) -> DAG:
    with DAG("prepared", schedule=None) as dag:
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare",
            source=f"{folder}/rows.csv",
            prompt={"name": "x", "model": "gpt-4o-mini", "user": "{{ text }}"},
            output_uri=f"file://{folder}/out/prepared",
            on_existing=on_existing,  # type: ignore[arg-type]
        )
        openai_batch_task_group(
            "ask",
            input_uri=prepare.output,
            output_uri=f"file://{folder}/out/job",
            on_existing=on_existing,
            poll_interval=0.1,
        )
    return dag


def test_a_killed_task_goes_on_with_what_it_has_prepared(
    run_dag: RunDag, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills, wait = [MemoryError("killed")], OpenAIBatchJobOperator._defer

    def kill_once(*arguments: Any) -> None:
        if kills:
            raise kills.pop()
        wait(*arguments)

    monkeypatch.setattr(OpenAIBatchJobOperator, "_defer", kill_once)
    with DAG("killed", schedule=None) as dag:
        task.openai_batch(task_id="ask", on_existing="fail", **QUICK)(lambda: ["a", "b"])()
    run = run_dag(dag, retries=3)
    assert run.state == "success", run.failures
    assert len(openai_server.batches()) == 1


def test_a_cleared_preparation_that_must_not_be_there_is_its_own(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text\na\nb\n")
    for _ in range(2):
        run = run_dag(make_dag(tmp_path, "fail"), **CLEARED)
        assert run.state == "success", run.failures
    assert openai_server.books.billed.total() == 2
    other = run_dag(make_dag(tmp_path, "fail"))
    assert "was prepared already" in other.errors("prepare")


def test_new_rows_of_a_run_that_was_restarted_stand_beside_no_old_answers(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.answer = lambda body: f"about {body['messages'][-1]['content']}"
    (tmp_path / "rows.csv").write_text("text\na\nb\n")
    assert run_dag(make_dag(tmp_path, "restart"), **CLEARED).state == "success"
    (tmp_path / "rows.csv").write_text("text\nc\nd\n")
    said = run_dag(make_dag(tmp_path, "restart"), **CLEARED).errors("prepare")
    assert "since then changed: the source. This run has begun anew already. Trigger a new run with" in said
    with DAG("joins", schedule=None) as joins:
        OpenAIBatchJoinOperator(
            task_id="join",
            prepared=f"file://{tmp_path}/out/prepared",
            job=f"file://{tmp_path}/out/job",
            output_uri=f"file://{tmp_path}/joined.csv",
        )
    run = run_dag(joins)
    assert run.state == "success", run.failures
    assert "a,about a" in (tmp_path / "joined.csv").read_text()
    run = run_dag(make_dag(tmp_path, "restart"))
    assert run.state == "success", run.failures
    assert [answer.value for answer in iter_answers(f"file://{tmp_path}/out/job")] == ["about c", "about d"]


def test_a_row_is_what_it_was_when_it_was_yielded(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    def fill_anew() -> Any:
        row: dict[str, Any] = {"shop": "x", "tags": []}
        for number in range(3):
            row["text"] = f"text {number}"
            row["tags"].append(number)
            yield row

    asked: list[str] = []
    openai_server.answer = lambda body: asked.append(body["messages"][-1]["content"]) or "Yes."  # type: ignore[func-returns-value]
    with DAG("fills_anew", schedule=None) as dag:
        task.openai_batch(task_id="ask", user="Good? {{ text }} {{ tags }}", **QUICK)(fill_anew)()
    run = run_dag(dag)
    assert run.state == "success", run.failures
    rows = [answer.row for answer in iter_answers(run.xcom("ask"))]
    assert [row and row["text"] for row in rows] == ["text 0", "text 1", "text 2"]
    assert "Good? text 1 [0, 1]" in asked


def test_no_codes_to_ask_again_are_none(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    with DAG("no_codes", schedule=None) as dag:
        task.openai_batch(task_id="ask", retry_codes="", **QUICK)(lambda: ["a"])()
    run = run_dag(dag)
    assert run.state == "success", run.failures
    with DAG("wrong_codes", schedule=None) as dag:
        task.openai_batch(task_id="ask", retry_codes="refusals", **QUICK)(lambda: ["a"])()
    assert "retry_codes=['refusals']: must be of content_filter" in run_dag(dag).errors("ask")


def meet_another_run(monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, other: Any) -> list[Any]:
    """Another run begins, and ends, the first time that a task waits."""
    met: list[Any] = []
    wait = getattr(kind, name)

    def wait_behind(*arguments: Any) -> Any:
        if not met:
            met.append(None)
            met[0] = other()
        return wait(*arguments)

    monkeypatch.setattr(kind, name, wait_behind)
    return met


@pytest.mark.parametrize("whole", [True, False], ids=["one task", "a group"])
def test_no_run_takes_for_its_own_what_another_has_restarted_meanwhile(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(f"{chat_line(name)}\n")
    how: dict[str, Any] = {
        "input_uri": f"{tmp_path}/{{{{ params.input }}}}.jsonl",
        "output_uri": f"file://{tmp_path}/job",
        "on_existing": "restart",
        "poll_interval": 0.1,
        "send_mode": "batch",
    }

    def run_with(name: str) -> Any:
        dag_id = "competing_tasks" if whole else "competing_groups"
        with DAG(dag_id, schedule=None, params={"input": ""}) as dag:
            if whole:
                OpenAIBatchJobOperator(task_id="ask", **how)
            else:
                openai_batch_task_group("ask", **how)
        return run_dag(dag, {"input": name})

    kind, name = (OpenAIBatchJobOperator, "_defer") if whole else (OpenAIBatchShardOperator, "_wait")
    met = meet_another_run(monkeypatch, kind, name, lambda: run_with("b"))
    run = run_with("a")
    assert met[0].state == "success", met[0].failures
    assert run.states["ask" if whole else "ask.publish", -1] == run.state == "failed"
    assert "has restarted this job since this run planned it" in capfd.readouterr().out
    assert [answer.custom_id for answer in iter_answers(f"file://{tmp_path}/job")] == ["b"]
