"""Nothing is lost and nothing is paid twice, whatever is killed, whatever OpenAI does and whatever people do.

Fifteen jobs, which take four to seven minutes on two cores, are part of ``make test``.
``make chaos RUNS=100 SEED=7`` plays more and others; ``ONLY=3`` plays one job of a seed alone.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from chaos.conftest import AFTERMATH
from chaos.evils import BATCH_EVILS, LINE_EVILS
from chaos.scenario import TURNS, draw_scenario

if TYPE_CHECKING:
    from chaos.storm import Aftermath

RUNS = int(os.environ.get("CHAOS_RUNS") or 15)
SEED = int(os.environ.get("CHAOS_SEED") or 1)
ONLY = os.environ.get("CHAOS_ONLY")
NUMBERS = [int(ONLY)] if ONLY else list(range(RUNS))

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(600 + 120 * len(NUMBERS)),
    pytest.mark.needs_program("initdb"),
]


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Aftermath:
    from chaos.storm import run_storm

    pytestconfig.stash[AFTERMATH] = found = run_storm(tmp_path_factory.mktemp("chaos"), SEED, NUMBERS)
    return found


@pytest.mark.parametrize("number", NUMBERS)
def test_every_request_has_one_row_and_was_paid_once(aftermath: Aftermath, number: int) -> None:
    outcome = aftermath.outcomes[number]
    if outcome.problems:
        again = f"make chaos SEED={SEED} ONLY={number}   (with its neighbours: RUNS={len(NUMBERS)})"
        clears = "\n".join(f"cleared because: {why}" for why in outcome.clears)
        parts = [*outcome.problems[:12], f"Again: {again}", str(outcome.scenario), clears, outcome.story]
        pytest.fail("\n".join(parts), pytrace=False)


def test_logs_quote_no_key_and_no_request(aftermath: Aftermath) -> None:
    assert aftermath.leaks == ()


@pytest.mark.skipif(len(NUMBERS) < 15, reason="few runs need not meet every kind of fault")
def test_there_was_a_storm(aftermath: Aftermath) -> None:
    kills, struck = aftermath.kills, aftermath.struck
    # A seventh of some eighty processes, since most shards need two; a fast machine ends some before they are met.
    assert kills["task process"] + kills["task process, aimed"] >= 8
    assert kills["task supervisor"] >= 1
    assert kills["triggerer"] >= 3
    assert kills["api-server"] >= 1
    assert sum(count for name, count in kills.items() if name.startswith("scheduler")) >= 1
    assert struck["HTTP outage"] >= 5
    assert sum(count for name, count in struck.items() if name.startswith("HTTP")) >= 60
    assert sum(name in struck for name in BATCH_EVILS) >= len(BATCH_EVILS) - 2
    assert sum(name in struck for name in LINE_EVILS) >= len(LINE_EVILS) - 3
    done = sum((outcome.turns for outcome in aftermath.outcomes.values()), Counter[str]())
    assert done.keys() >= {"twin run", "key rotated", "clear", "mark failed"}


def test_a_seed_draws_the_same_scenario_again() -> None:
    assert draw_scenario(7, 3) == draw_scenario(7, 3) != draw_scenario(7, 4)


def test_fifteen_jobs_meet_every_fault_and_every_turn() -> None:
    drawn = [draw_scenario(7, number) for number in range(15)]
    assert {evil for scenario in drawn for evil, _ in scenario.batch_evils} == BATCH_EVILS.keys()
    assert {evil for scenario in drawn for evil in scenario.line_evils.values()} == LINE_EVILS.keys()
    assert {scenario.turn.what if scenario.turn else None for scenario in drawn} == set(TURNS)
