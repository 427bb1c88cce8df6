"""Deployments that a connection says hold in the split, in budgets, in the rows and in the report."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.openai_api.prices import price_answer
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag

NAME, MODEL = "my-mini", "gpt-5.4-mini"
pytestmark = pytest.mark.openai_server(server="azure", models=("my-*",))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(str(n), model=NAME) for n in range(3))


@pytest.fixture
def say(say: Callable[..., str]) -> Callable[..., str]:
    """What the extra of a connection to Azure says."""
    return functools.partial(say, server="azure")


def test_a_budget_for_a_deployment_names_where_to_say_its_model_and_is_kept_with_it(
    run_dag: RunDag, job: Job, say: Callable[..., str]
) -> None:
    say()
    run = run_dag("openai_batch", job.conf(max_cost_usd=1))
    assert run.state == "failed"
    assert "no price is known for my-mini" in run.errors("split")
    assert 'which model is behind it: {"deployments": {"my-mini": "' in run.errors("split")
    say(deployments={NAME: MODEL})
    run = run_dag(
        "openai_batch", job.conf(max_cost_usd=1e-6)
    )  # the requests have no bound: the model's counts
    assert "may cost up to $" in run.errors("split")
    assert "the most that the model can write" in run.errors("split")
    run = run_dag("openai_batch", job.conf(max_cost_usd=5))
    assert run.state == "success", run.failures
    for row in job.rows():
        cost = price_answer(MODEL, "batch", row["input_tokens"], row["output_tokens"])
        assert cost is not None
        assert row["cost_usd"] == pytest.approx(cost.actual_usd)
    report = json.loads((job.output / "report.json").read_bytes())
    assert report["cost"]["actual_usd"] == pytest.approx(sum(row["cost_usd"] for row in job.rows()))
    assert report["cost"]["unpriced_answers"] == 0
    assert report["cost"]["estimated_usd"] > 0


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"deployments": ["my-mini"]}, "deployments in its extra must be an object of models"),
        (
            {"deployments": {NAME: None}},
            "deployments['my-mini']=None in its extra must be the name of the model",
        ),
        (
            {"server": "azur"},
            "server='azur' in its extra is not known. Known are openai, azure, groq, together",
        ),
        (
            {"completion_window": "7d"},
            "completion_window='7d' in its extra must be \"24h\" for server=azure.",
        ),
    ],
)
def test_what_is_wrong_with_the_connection_is_said_before_the_scan(
    run_dag: RunDag, job: Job, say: Callable[..., str], extra: dict[str, Any], words: str
) -> None:
    say(**extra)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert f"connection 'openai_default': {words}" in run.errors("split")
    assert not (job.output / "plan.json").exists()
