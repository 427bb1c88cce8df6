"""Where there is nothing to do, what comes after is skipped, of mapped tasks as well; what gathers others is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_openai_batch.answers import iter_answers
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from fixtures.job import chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn", "form_roots")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """One of them is empty."""
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(f"{chat_line(name)}\n")
    (tmp_path / "c.jsonl").write_text("")
    return [f"{tmp_path}/{name}.jsonl" for name in "abc"]


def make_group(files: list[str], **how: Any) -> tuple[DAG, list[str]]:
    """A job for each file, and what loads its answers."""
    loaded: list[str] = []
    with DAG("in_a_group", schedule=None) as dag:

        @task_group
        def per_file(uri: str) -> None:
            ask = OpenAIBatchJobOperator(
                task_id="ask", input_uri=uri, on_empty="skip", send_mode="realtime", **how
            )

            @task
            def load(job: Any) -> None:
                loaded.extend(answer.custom_id for answer in iter_answers(job))

            load(ask.output)

        @task(trigger_rule="none_failed_min_one_success")
        def gather() -> None:
            loaded.append("all")

        per_file.expand(uri=files) >> gather()
    return dag, loaded


def test_an_empty_file_of_a_group_skips_its_own_load(
    run_dag: RunDag, openai_server: OpenAIServer, files: list[str]
) -> None:
    dag, loaded = make_group(files)
    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert sorted(loaded) == ["a", "all", "b"]
    assert [run.states["per_file.load", index] for index in range(3)] == ["success", "success", "skipped"]


def test_a_dry_run_in_a_group_loads_nothing(
    run_dag: RunDag, openai_server: OpenAIServer, files: list[str]
) -> None:
    dag, loaded = make_group(files, plan_only=True)
    run = run_dag(dag)
    assert (run.state, loaded) == ("success", []), run.failures


def test_a_dry_run_of_mapped_jobs_loads_nothing_and_an_empty_one_keeps_nobody_from_it(
    run_dag: RunDag, openai_server: OpenAIServer, files: list[str]
) -> None:
    for is_dry, expected in ((True, []), (False, ["a", "b"])):
        loaded: list[str] = []
        with DAG("mapped_jobs", schedule=None) as dag:
            jobs = OpenAIBatchJobOperator.partial(
                task_id="ask", on_empty="skip", send_mode="realtime", plan_only=is_dry
            ).expand(input_uri=files)

            @task
            def load(jobs: Any, into: list[str] = loaded) -> None:
                into.extend(answer.custom_id for job in jobs for answer in iter_answers(job))

            load(jobs.output)
        run = run_dag(dag)
        assert (run.state, sorted(loaded)) == ("success", expected), run.failures
