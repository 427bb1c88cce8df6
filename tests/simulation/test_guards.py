"""A simulation sees it where a guard is taken out, and says what it takes to see it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_openai_batch.costs.budget import Budget
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.sending import machine
from simulation.scenario import Run, Scenario
from simulation.shrink import describe_drawn, shrink
from simulation.simulate import SimulationError, simulate

QUICK = {"validating_s": 60.0, "in_progress_s": 600.0}
LOST_REPLY = {"http": "POST /v1/batches", "drop": "after"}


@pytest.mark.parametrize("mode", ["batch", "realtime"])
def test_a_send_above_the_budget(monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    scenario = Scenario(seed=1, settings=QUICK, mode=mode, requests=6, max_cost_usd=100e-6)
    verdict = simulate(scenario)
    assert verdict.failures["BudgetError"] > 0
    monkeypatch.setattr(Budget, "check_send", lambda *_, **__: None)
    with pytest.raises(SimulationError, match=r"over \$0\.000100"):
        simulate(scenario)


def test_a_duplicate_that_lives_on_after_the_list_has_shown_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(seed=1, settings={**QUICK, "list_lag_s": 100.0}, faults=(LOST_REPLY,))
    assert simulate(scenario).duplicates == 1
    monkeypatch.setattr(BatchClient, "cancel", lambda self, batch_id: None)
    with pytest.raises(SimulationError, match="though the list shows it"):
        simulate(scenario)


def test_more_than_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(seed=1, settings=QUICK, runs=(Run(sample=2), Run(after_former=True)))
    assert simulate(scenario).sends == 2
    monkeypatch.setattr("simulation.tasks.choose_sample", lambda plan, sample: {0: 3})
    with pytest.raises(SimulationError, match="r-2 was asked for a sample of 2"):
        simulate(scenario)


def test_less_than_a_larger_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (Run(sample=1), Run(sample=3, after_former=True), Run(after_former=True))
    scenario = Scenario(seed=1, settings=QUICK, requests=4, max_requests_per_shard=4, runs=samples)
    assert simulate(scenario).sends == 3
    monkeypatch.setattr(machine, "has_sample", lambda state, first: state.landed_send > 0)
    with pytest.raises(SimulationError, match="r-1 was not asked for a sample of 3"):
        simulate(scenario)


def test_what_fails_shrinks_to_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchClient, "find", lambda self, job_key, since, **_: ())
    drawn = Scenario(
        seed=1,
        requests=2,
        runs=(Run(one_task=True), Run(start_s=9_000.0)),
        settings=QUICK,
        faults=({"line": 500, "custom_id": ["r-1"]}, LOST_REPLY, {"http": "GET /v1/batches", "status": 500}),
        kills=(60,),
    )
    scenario, error = shrink(drawn)
    assert scenario.faults == (LOST_REPLY,)
    assert (scenario.requests, len(scenario.runs), scenario.kills) == (1, 1, ())
    assert "the reply is lost" in str(error)
    assert describe_drawn(scenario).count("http") == 1
