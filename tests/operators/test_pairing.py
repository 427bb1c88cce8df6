"""Answers stand beside the rows that they were asked for, whatever job a join is told."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from airflow_openai_batch.answers import iter_answers
from airflow_openai_batch.errors import JobError
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.task_group import openai_batch_task_group

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn", "openai_server")
MONDAY, TUESDAY = ["good", "fair", "poor"], ["splendid", "so-so", "sad"]
WEDNESDAY = ["best", "okay", "grim"]
"""As many rows and as many bytes as Monday."""


@pytest.fixture
def ask(run_dag: RunDag, tmp_path: Path) -> Any:
    """Prepare a day's rows and ask about them; the answer to each is its own text."""

    def run(day: str, texts: list[str]) -> None:
        (tmp_path / f"{day}.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))
        with DAG(f"ask_{day}", schedule=None) as dag:
            prepare = OpenAIBatchPrepareOperator(
                task_id="prepare",
                source=f"{tmp_path}/{day}.csv",
                prompt={"name": "echo", "model": "gpt-4o-mini", "user": "{{ text }}"},
                output_uri=f"file://{tmp_path}/{day}/prepared",
            )
            openai_batch_task_group(
                "ask",
                input_uri=prepare.output,
                output_uri=f"file://{tmp_path}/{day}/job",
                max_requests_per_shard=2,
                poll_interval=0.1,
            )
        finished = run_dag(dag)
        assert finished.state == "success", finished.failures

    return run


@pytest.fixture
def join(run_dag: RunDag, tmp_path: Path) -> Any:
    def run(prepared: str, job: str) -> FinishedRun:
        with DAG("join", schedule=None) as dag:
            OpenAIBatchJoinOperator(
                task_id="join", prepared=prepared, job=job, output_uri=f"{tmp_path}/table.csv", overwrite=True
            )
        return run_dag(dag)

    return run


def read_texts(tmp_path: Path) -> list[str]:
    with (tmp_path / "table.csv").open() as file:
        return [row["text"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(("other", "why"), [(TUESDAY, "bytes"), (WEDNESDAY, "requests of shard 0")])
def test_a_job_of_other_rows_in_the_same_number_is_refused(
    ask: Any, join: Any, tmp_path: Path, other: list[str], why: str
) -> None:
    ask("monday", MONDAY)
    ask("other", other)
    run = join(f"{tmp_path}/other/prepared", f"{tmp_path}/monday/job")
    assert run.state == "failed"
    assert "answers would stand beside the wrong rows" in run.errors("join")
    assert why in run.errors("join")
    assert not (tmp_path / "table.csv").exists()
    with pytest.raises(JobError, match="beside the wrong rows"):
        list(iter_answers(f"{tmp_path}/monday/job", prepared=f"{tmp_path}/other/prepared"))


def test_directories_that_have_moved_or_are_thinned_out_stay_a_pair(
    ask: Any, join: Any, tmp_path: Path
) -> None:
    ask("monday", MONDAY)
    shutil.copytree(tmp_path / "monday", tmp_path / "archive" / "monday")  # with other times of change
    for path in (tmp_path / "monday" / "prepared").glob("requests-*"):
        path.unlink()
    for root in (tmp_path / "monday", tmp_path / "archive" / "monday"):
        run = join(f"{root}/prepared", f"{root}/job")
        assert run.state == "success", run.failures
        assert read_texts(tmp_path) == MONDAY
        answers = list(iter_answers(f"{root}/job", prepared=f"{root}/prepared"))
        assert [answer.row["text"] for answer in answers if answer.row] == MONDAY
