"""Whatever happens to a job, it ends with one row per request and nothing paid twice; and guards are missed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.sending.actions import ShardActions
from simulation.many import simulate_many
from simulation.scenario import Run, Scenario, Spell, draw_scenario
from simulation.simulate import SimulationError, simulate

if TYPE_CHECKING:
    import random

    from airflow_openai_batch.job.ledger import Kind
    from airflow_openai_batch.job.shard_state import ShardState

SEEDS = 1_000
"""In CI; ``make simulate SEEDS=10000`` for more."""
QUICK = {"validating_s": 60.0, "in_progress_s": 600.0}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", [range(150), pytest.param(range(150, SEEDS), marks=pytest.mark.long)])
def test_every_seed_ends_with_one_row_per_request_and_nothing_paid_twice(seeds: range) -> None:
    sums = simulate_many(seeds, processes=2)
    assert not sums.failed, next(iter(sums.failed.values()))
    assert sums.total.kills > len(seeds)
    assert sums.total.faults.total() > len(seeds)


def test_what_is_not_known_of_a_file_at_first_is_asked_again_before_its_content_is_believed() -> None:
    """Seed 2218: its object shows later than its content, an empty one in its place, and no counts of its batch."""
    simulate(draw_scenario(2218))


@pytest.mark.long
@pytest.mark.timeout(300)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_scenarios_that_hypothesis_draws_end_well_and_would_shrink(chance: random.Random) -> None:
    simulate(draw_scenario(0, chance))


def test_the_same_seed_takes_the_same_steps() -> None:
    told: list[str] = []
    for _ in range(2):
        simulate(replace(draw_scenario(8), kills=(3, 5, 8), kill_after_events=False), told.append)
    assert told[0] == told[1]
    assert told[0].count("KILLED") == 3


@pytest.mark.parametrize("on_deadline", ["realtime", "publish"])
def test_a_batch_that_the_list_does_not_show_yet_is_not_left_behind(on_deadline: Any) -> None:
    """Its reply was lost, and by the deadline it must be found: it would run on, and be paid for nothing."""
    lost = {"http": "POST /v1/batches", "drop": "after"}
    simulate(
        Scenario(
            seed=1,
            settings={**QUICK, "list_lag_s": 100.0},
            faults=(lost,),
            finish_within_s=30.0,
            on_deadline=on_deadline,
        )
    )


def test_a_sample_that_misses_its_deadline_leaves_the_shard_to_the_next_run() -> None:
    down = Spell(start_s=0.0, end_s=40.0, status=503, code=None)
    sample, whole = Run(sample=1), Run(start_s=9_000.0)
    scenario = Scenario(seed=1, settings=QUICK, runs=(sample, whole), spells=(down,), finish_within_s=30.0)
    assert simulate(replace(scenario, on_deadline="publish")).sends == 1


def test_two_runs_that_find_a_result_file_gone_send_its_requests_once() -> None:
    """The one that comes second must not take the send that is under way by then for the one it has landed."""
    gone = {"batch": "completed", "deleted": ["output"], "shard": 0}
    settings = {"seed": 4021, "in_progress_s": 600.0, "list_lag_s": 0.0, "clock_skew_s": 0.0}
    runs = (Run(one_task=True), Run(one_task=True))
    scenario = Scenario(seed=4021, requests=11, max_requests_per_shard=8, settings=settings, runs=runs)
    simulate(replace(scenario, mode="auto", realtime_threshold=5, faults=(gone,)))


def test_a_simulation_sees_a_batch_created_without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"http": "POST /v1/batches", "drop": "after"}
    scenario = Scenario(seed=1, settings=QUICK, faults=(lost,))
    simulate(scenario)
    monkeypatch.setattr(BatchClient, "find", lambda self, job_key, since, **known: ())
    with pytest.raises(SimulationError, match=r"batch_\w+ goes on beside batch_\w+"):
        simulate(scenario)


@pytest.mark.parametrize("mode", ["batch", "realtime"])
def test_a_simulation_sees_two_runs_that_do_not_mind_each_other(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    runs = (Run(one_task=True), Run(one_task=True))
    scenarios = [Scenario(seed=seed, settings=QUICK, runs=runs, mode=mode) for seed in range(8)]  # type: ignore[arg-type]
    for scenario in scenarios:
        simulate(scenario)

    def claim_blindly(
        self: ShardActions, kind: Kind, state: ShardState, *, message: str | None = None
    ) -> bool:
        self._journal.record(kind, state, message=message)
        return True

    monkeypatch.setattr(ShardActions, "_claim", claim_blindly)
    with pytest.raises(SimulationError, match=r"another run was about to create|paid 2 times"):  # noqa: PT012
        for scenario in scenarios:
            simulate(scenario)


def test_a_failing_seed_says_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchClient, "find", lambda self, job_key, since, **known: ())
    with pytest.raises(SimulationError) as found:
        simulate(Scenario(seed=41, settings=QUICK, faults=({"http": "POST /v1/batches", "drop": "after"},)))
    assert "make simulate ARGS='--seed 41'" in str(found.value)
    assert "the reply is lost" in str(found.value)
