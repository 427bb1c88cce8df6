"""Where a server leaves out vectors, only these are asked again, and what came is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.job import Job

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

COLOURS = ["red", "green", "blue", "grey as stone"]


def line(custom_id: str, given: list[str]) -> str:
    body = {"model": "text-embedding-3-small", "dimensions": 4, "input": given}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body})


def write_job(folder: Path) -> Job:
    return Job(folder).write([line("r0", COLOURS), line("r1", ["one", "two", "three"])])


def read_leftovers(job: Job) -> list[Any]:
    places = sorted((job.output / "leftover").iterdir())
    return [json.loads(line)["body"]["input"] for place in places for line in place.read_text().splitlines()]


@pytest.fixture
def right(run_dag: RunDag, tmp_path: Path) -> list[dict[str, Any]]:
    """The rows of a run that nothing happens to."""
    job = write_job(tmp_path / "right")
    assert run_dag("openai_batch", job.conf()).state == "success"
    return job.rows()


@pytest.mark.parametrize("mode", ["batch", "realtime"])
def test_only_the_missing_input_is_asked_again_and_both_answers_are_in_the_row(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, right: list[dict[str, Any]], mode: str
) -> None:
    openai_server.script(line="missing_vector", contains="red")
    job = write_job(tmp_path / "job")
    assert run_dag("openai_batch", job.conf(mode=mode)).state == "success"
    rows = job.rows()
    assert [row["embeddings"] for row in rows] == [row["embeddings"] for row in right]
    assert [(row["status"], row["attempts"]) for row in rows] == [("ok", 2), ("ok", 1)]
    assert read_leftovers(job) == [["green"]]
    whole, both = right[0]["input_tokens"], rows[0]["input_tokens"]
    assert whole < both < 2 * whole
    assert job.report()["cost"]["actual_usd"] == pytest.approx(sum(row["cost_usd"] for row in rows))


@pytest.mark.long
@pytest.mark.parametrize("since", ["landed", "ended"])
def test_who_died_between_the_sends_lands_the_same_again_and_pays_nothing(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, right: list[dict[str, Any]], since: str
) -> None:
    """What the ledger says since the first landing, or since the second send has ended, was never written."""
    openai_server.script(line="missing_vector", contains="red")
    job = write_job(tmp_path / "job")
    assert run_dag("openai_batch", job.conf()).state == "success"
    rows, billed = job.rows(), dict(openai_server.books.billed)
    events = sorted((job.output / "state" / "00000").iterdir())
    named = [number for number, event in enumerate(events) if event.name.endswith(f"-{since}.json")]
    for event in events[named[0 if since == "landed" else -1] :]:
        event.unlink()
    (job.output / "results" / "part-00000.parquet").unlink()
    (job.output / "report.json").unlink()
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert job.rows() == rows
    assert openai_server.books.billed == billed
    assert rows[0]["embeddings"] == right[0]["embeddings"]


@pytest.mark.long
def test_after_the_last_attempt_the_vectors_that_came_stay_and_a_repair_brings_the_other(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, right: list[dict[str, Any]]
) -> None:
    rule = openai_server.script(line="missing_vector", contains="green", times=None)
    job = write_job(tmp_path / "job")
    assert run_dag("openai_batch", job.conf(max_attempts=2, max_failed_fraction=1.0)).state == "success"
    row = job.rows()[0]
    expected = right[0]["embeddings"]
    assert (row["status"], row["error_code"], row["attempts"]) == ("invalid_output", "missing_parts", 2)
    assert "(index 1, counted from 0)" in row["error_message"]
    assert row["embeddings"] == [expected[0], None, *expected[2:]]
    openai_server.unscript(rule)
    assert run_dag("openai_batch", job.conf(repair=True, max_attempts=2)).state == "success"
    row = job.rows()[0]
    assert (row["status"], row["attempts"], row["embeddings"]) == ("ok", 3, expected)
    assert read_leftovers(job) == [["green"], ["green"]]
