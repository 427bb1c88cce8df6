"""Prices that a connection says hold in the split, in budgets, in the rows and in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag

SOL = "gpt-6.2-sol"
PRICE = {"input": 400, "output": 2_000}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(str(n), model=SOL, max_tokens=100) for n in range(3))


def test_a_budget_for_a_model_without_a_price_names_where_to_say_it_and_is_kept_with_it(
    run_dag: RunDag, job: Job, say: Callable[..., str]
) -> None:
    say()
    run = run_dag("openai_batch", job.conf(max_cost_usd=1, send_mode="batch"))
    assert run.state == "failed"
    assert f"no price is known for {SOL}" in run.errors("split")
    assert (
        "Say it in the connection's extra, in US dollars per million tokens: "
        '{"prices": {"gpt-6.2-sol": {"input": ..., "output": ...}}}' in run.errors("split")
    )
    say(prices={SOL: PRICE})
    run = run_dag("openai_batch", job.conf(max_cost_usd=0.2, send_mode="batch"))
    assert run.state == "failed"
    assert "may cost up to $0.3" in run.errors(
        "split"
    )  # 3 x 100 x 1,000 / 1,000,000, and a little for the input
    run = run_dag("openai_batch", job.conf(max_cost_usd=1, send_mode="batch"))
    assert run.state == "success", run.failures
    rows = pq.read_table(job.output / "results").to_pylist()
    for row in rows:
        expected = (row["input_tokens"] * 200 + row["output_tokens"] * 1_000) / 1e6
        assert row["cost_usd"] == pytest.approx(expected)
    report = json.loads((job.output / "report.json").read_bytes())
    assert report["cost"]["actual_usd"] == pytest.approx(sum(row["cost_usd"] for row in rows))
    assert report["cost"]["unpriced_answers"] == 0
    assert report["cost"]["estimated_usd"] > 0


@pytest.mark.long
def test_the_budget_of_the_month_counts_with_the_same_prices(
    run_dag: RunDag, job: Job, say: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__BOOKS_ROOT", f"file://{tmp_path}/books")
    say(monthly_budget_usd=0.2, prices={SOL: PRICE})
    run = run_dag("openai_batch", job.conf(send_mode="batch"))
    assert run.state == "failed"
    assert "sending 3 requests may cost up to $0.3" in run.errors("shard.upload", map_index=0)
    say(monthly_budget_usd=1, prices={SOL: PRICE})
    assert run_dag("openai_batch", job.conf(send_mode="batch")).state == "success"


def test_what_is_no_price_is_said_before_the_scan(run_dag: RunDag, job: Job, say: Callable[..., str]) -> None:
    say(prices={SOL: {"input": "four", "output": 20}})
    run = run_dag("openai_batch", job.conf())
    assert (
        "connection 'openai_default': prices['gpt-6.2-sol']['input']='four' in its extra must be US dollars per "
        "million tokens, at least 0." in run.errors("split")
    )
    assert not (job.output / "plan.json").exists()
