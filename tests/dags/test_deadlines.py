"""`finish_within_h` and `on_deadline` from the DAG's form to the rows and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

A_MINUTE_H = 0.02


def write_job(folder: Path, requests: int) -> Job:
    lines = (chat_line(f"r-{n}", f"Review {n}", model="gpt-6-luna", max_tokens=20) for n in range(requests))
    return Job(folder).write(lines)


@pytest.mark.parametrize("mode", ["flex", "auto"])
def test_where_flex_could_not_answer_in_time_the_rest_goes_out_in_real_time(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, mode: str
) -> None:
    """Flex takes a minute for an answer, with a tenth to spare."""
    job = write_job(tmp_path, 5)
    conf = job.conf(mode=mode, finish_within_h=A_MINUTE_H, on_deadline="flex")
    assert run_dag("openai_batch", conf).state == "success"
    assert openai_server.books.billed == {"realtime": 5}
    cost = sum(row["cost_usd"] for row in job.rows())
    assert job.report()["lanes"]["realtime"]["hurried_usd"] == pytest.approx(cost / 2)
    text = (job.output / "report.md").read_text()
    assert (
        "more than batches would have.** For its sake 5 answers came in real time, at the full price" in text
    )


@pytest.mark.long
def test_a_job_writes_down_how_fast_it_was_answered(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = write_job(tmp_path, 42)
    assert run_dag("openai_batch", job.conf(mode="flex", max_requests_per_shard=21)).state == "success"
    assert openai_server.books.billed == {"flex": 42}
    names = sorted(path.name for path in (job.output / "paces").iterdir())
    assert [name.rsplit(".", 2)[0] for name in names] == ["00000.1.flex.21", "00001.1.flex.21"]


def test_the_report_says_which_way_the_answers_came_and_what_the_deadline_cost(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """Two of four requests are answered when the batch is cancelled for the deadline."""
    openai_server.script(batch="in_progress", done=2, times=None)
    job = write_job(tmp_path, 4)
    conf = job.conf(mode="batch", finish_within_h=0.0005, on_deadline="realtime")
    assert run_dag("openai_batch", conf).state == "success"
    assert openai_server.books.billed == {"batch": 2, "realtime": 2}
    lanes = job.report()["lanes"]
    assert {lane: (found["answers"], found["hurried"]) for lane, found in lanes.items()} == {
        "batch": (2, 0),
        "realtime": (2, 2),
    }
    in_realtime = sum(row["cost_usd"] for row in job.rows() if row["sent_as"] == "realtime")
    assert lanes["realtime"]["hurried_usd"] == pytest.approx(in_realtime / 2)
    assert lanes["batch"]["hurried_usd"] == 0
    (send,) = job.report()["hurried"]
    assert (send["shard"], send["send"], send["sent_as"], send["requests"]) == (0, 2, "realtime", 2)
    text = (job.output / "report.md").read_text()
    assert "| in batches | 2 |" in text
    assert "| in real time | 2 |" in text
    assert "For its sake 2 answers came in real time, at the full price" in text


def test_who_asks_for_real_time_pays_it_without_a_deadline(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = write_job(tmp_path, 3)
    conf = job.conf(mode="realtime", finish_within_h=0.00001, on_deadline="realtime")
    assert run_dag("openai_batch", conf).state == "success"
    assert job.report()["lanes"]["realtime"]["hurried"] == 0
    assert "finish_within_h" not in (job.output / "report.md").read_text()


@pytest.mark.long
@pytest.mark.openai_server(in_progress_s=0.2)
def test_the_report_says_how_long_batches_take_in_the_account(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = write_job(tmp_path, 6)
    assert run_dag("openai_batch", job.conf(mode="batch", max_requests_per_shard=1)).state == "success"
    (usual,) = job.report()["usual"]
    assert (usual["model"], usual["up_to"], usual["batches"]) == ("gpt-6-luna", 100, 6)
    assert 0 <= usual["median_s"] <= usual["p95_s"] < 60
    text = (job.output / "report.md").read_text()
    assert "## How long batches take in this account" in text
    assert "| gpt-6-luna | up to 100 | 6 |" in text


@pytest.mark.long
def test_a_report_is_written_though_the_account_cannot_be_asked(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = write_job(tmp_path, 2)
    assert run_dag("openai_batch", job.conf(mode="realtime")).state == "success"
    (job.output / "report.md").unlink()
    openai_server.script(http="GET /v1/batches", status=403, skip=1, times=None)  # the split asks, too
    assert run_dag("openai_batch", job.conf(mode="realtime")).state == "success"
    assert openai_server.books.calls["GET /v1/batches 403"]
    assert "How long batches take" not in (job.output / "report.md").read_text()
