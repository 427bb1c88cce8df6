"""Requests through flex, from the DAG's form to the rows: the price of a batch, one by one, where there is room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

MODEL = "gpt-6-luna"
POST = "POST /v1/chat/completions"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for hundredths of seconds."""
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.pacing.BACKOFF_S", 0.02)
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.pacing.BACKOFF_MAX_S", 0.05)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose patience with flex after a quarter of a second, and ask again soon."""
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.capacity.FLEX_PATIENCE_S", 0.25)
    monkeypatch.setattr("airflow_openai_batch.sending.declined_calls.draw_jitter", lambda key: 0.01)


def write_job(folder: Path, requests: int = 7, **body: Any) -> Job:
    """Two shards of five and two requests."""
    body = {"model": MODEL, "max_tokens": 20, **body}
    return Job(folder).write(chat_line(f"r-{n}", f"Review {n}", **body) for n in range(requests))


def count_lanes(job: Job) -> dict[str, int]:
    lanes = [row["sent_as"] for row in job.rows() if row["status"] == "ok"]
    return {lane: lanes.count(lane) for lane in sorted(set(lanes))}


def read_events(job: Job, shard: int = 0) -> list[str]:
    return [path.stem.partition("-")[2] for path in sorted((job.output / "state" / f"{shard:05d}").iterdir())]


def test_flex_answers_one_by_one_at_the_price_of_a_batch(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    jobs = {mode: write_job(tmp_path / mode) for mode in ("flex", "batch", "realtime")}
    for mode, job in jobs.items():
        assert run_dag("openai_batch", job.conf(mode=mode)).state == "success"
        assert count_lanes(job) == {mode: 7}
    assert openai_server.books.billed == {"flex": 7, "batch": 7, "realtime": 7}
    cost = {mode: sum(row["cost_usd"] for row in job.rows()) for mode, job in jobs.items()}
    assert cost["flex"] == pytest.approx(cost["batch"]) == pytest.approx(cost["realtime"] / 2)
    assert jobs["flex"].report()["cost"]["saving_usd"] == pytest.approx(cost["batch"], abs=1e-6)
    assert "flex" in read_events(jobs["flex"])


def test_a_request_keeps_the_tier_that_it_names(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    tiers = [None, "auto", "flex", "default", "priority"]
    job = Job(tmp_path).write(
        chat_line(
            f"r-{n}", f"Review {n}", model="gpt-5-mini", **({} if tier is None else {"service_tier": tier})
        )
        for n, tier in enumerate(tiers)
    )
    assert run_dag("openai_batch", job.conf(mode="flex")).state == "success"
    assert [row["sent_as"] for row in job.rows()] == ["flex", "flex", "flex", "realtime", "realtime"]
    assert openai_server.books.billed == {"flex": 3, "realtime": 2}


@pytest.mark.usefixtures("quick")
def test_no_capacity_is_waited_out_and_is_no_try(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """Six times each, where a request has four tries."""
    openai_server.script(line="no_capacity", times=6)
    job = write_job(tmp_path)
    assert run_dag("openai_batch", job.conf(mode="flex")).state == "success"
    assert count_lanes(job) == {"flex": 7}
    assert {row["attempts"] for row in job.rows()} == {1}
    assert openai_server.books.refused["flex"] == 6 * 7


@pytest.mark.long
@pytest.mark.usefixtures("quick", "impatient")
def test_auto_sends_what_is_small_through_flex_and_pays_the_full_price_where_there_is_no_room(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "room")
    assert run_dag("openai_batch", job.conf(mode="auto", max_requests_per_shard=50)).state == "success"
    assert count_lanes(job) == {"flex": 7}
    openai_server.script(line="no_capacity", times=None)
    job = write_job(tmp_path / "none")
    assert run_dag("openai_batch", job.conf(mode="auto")).state == "success"
    assert count_lanes(job) == {"realtime": 7}
    assert read_events(job)[:3] == ["flex", "crowded", "realtime"]
    assert openai_server.books.calls_of("POST /v1/batches") == 0


@pytest.mark.long
@pytest.mark.usefixtures("quick", "impatient")
def test_who_asks_for_flex_waits_for_room_without_a_worker(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests are answered, then flex is full for longer than a worker waits; nothing is asked twice."""
    openai_server.script(http=POST, status=429, code="resource_unavailable", skip=2, times=40)
    job = write_job(tmp_path, requests=5)
    run = run_dag("openai_batch", job.conf(mode="flex", realtime_concurrency=1))
    assert run.state == "success"
    assert "crowded" in read_events(job)
    assert count_lanes(job) == {"flex": 5}
    assert openai_server.books.billed == {"flex": 5}


@pytest.mark.long
def test_a_model_without_flex_is_found_once_and_remembered(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """The model has flex by the list of prices; the server knows better."""
    openai_server.configure(flex_models=())
    job = write_job(tmp_path, requests=12)
    assert run_dag("openai_batch", job.conf(mode="auto", realtime_concurrency=1)).state == "success"
    assert count_lanes(job) == {"realtime": 12}
    assert openai_server.books.calls[f"{POST} 400"] == 1
    assert sorted(read_events(job, shard).count("flex") for shard in range(3)) == [0, 0, 1]


@pytest.mark.long
def test_flex_for_a_model_without_it_says_what_to_set_and_a_batch_goes_on(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = write_job(tmp_path, requests=5, model="gpt-4o-mini")
    run = run_dag("openai_batch", job.conf(mode="flex"))
    assert run.state == "failed"
    message = failure_of(run)
    assert "mode=flex: there is no flex for gpt-4o-mini" in message
    assert "Invalid service_tier argument" in message
    assert "Set mode=batch, which costs the same" in message
    assert not openai_server.books.billed
    assert run_dag("openai_batch", job.conf(mode="batch")).state == "success"
    assert count_lanes(job) == {"batch": 5}
    assert {row["attempts"] for row in job.rows()} == {1}


def failure_of(run: FinishedRun) -> str:
    return "\n".join(text for _, _, text in run.failures)


def test_flex_for_an_endpoint_without_it_is_refused_before_anything_is_sent(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    body = {"model": "text-embedding-3-small", "input": "A text"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}
    job = Job(tmp_path).write([json.dumps(line)])
    run = run_dag("openai_batch", job.conf(mode="flex"))
    assert run.state == "failed"
    assert (
        "mode=flex: flex is for /v1/chat/completions and /v1/responses, and there are requests for /v1/embeddings"
        in (run.errors("split"))
    )
    assert "Set mode=batch" in run.errors("split")
    assert not openai_server.books.billed


def test_after_the_deadline_the_rest_goes_through_flex(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(batch="in_progress", times=None)
    job = write_job(tmp_path, requests=5)
    run = run_dag("openai_batch", job.conf(mode="batch", finish_within_h=0.0005, on_deadline="flex"))
    assert run.state == "success"
    lanes = count_lanes(job)
    assert sum(lanes.values()) == sum(openai_server.books.billed.values()) == 5, "what was finished is kept"
    assert lanes["flex"]


def test_a_budget_counts_flex_at_the_price_of_a_batch(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """5 x 1,000 output tokens are $0.00125 in a batch and through flex, and $0.0025 in real time."""
    for mode, state in (("realtime", "failed"), ("flex", "success")):
        job = write_job(tmp_path / mode, requests=5, max_tokens=1_000)
        assert run_dag("openai_batch", job.conf(mode=mode, max_cost_usd=0.0015)).state == state
    assert openai_server.books.billed == {"flex": 5}


def test_a_budget_counts_requests_for_priority_at_its_price(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """5 x 1,000 output tokens of gpt-5.6-luna are $0.006 in real time, and $0.012 with priority."""
    model = {"model": "gpt-5.6-luna", "max_tokens": 1_000}
    dear = write_job(tmp_path / "dear", requests=5, **model, service_tier="priority")
    run = run_dag("openai_batch", dear.conf(mode="realtime", max_cost_usd=0.008))
    assert run.state == "failed"
    assert not openai_server.books.billed
    plain = write_job(tmp_path / "plain", requests=5, **model, service_tier="default")
    assert run_dag("openai_batch", plain.conf(mode="realtime", max_cost_usd=0.008)).state == "success"
