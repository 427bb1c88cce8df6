"""Nothing is lost and nothing is paid twice, whatever is killed and whatever OpenAI does.

``make chaos RUNS=100 SEED=7`` plays more and others; ``ONLY=3`` plays one run of a seed alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from chaos.conftest import AFTERMATH
from chaos.scenario import draw_scenario

if TYPE_CHECKING:
    from chaos.storm import Aftermath

RUNS = int(os.environ.get("CHAOS_RUNS") or 15)
SEED = int(os.environ.get("CHAOS_SEED") or 1)
ONLY = os.environ.get("CHAOS_ONLY")
NUMBERS = [int(ONLY)] if ONLY else list(range(RUNS))

pytestmark = [
    pytest.mark.system,
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
    assert aftermath.kills["task process"] + aftermath.kills["task process, aimed"] >= 10
    assert aftermath.kills["task supervisor"] >= 1
    assert aftermath.kills["triggerer"] >= 2
    assert sum(count for name, count in aftermath.kills.items() if name.startswith("scheduler")) >= 2
    assert aftermath.struck["HTTP outage"] >= 5
    assert sum(count for name, count in aftermath.struck.items() if name.startswith("HTTP")) >= 40


def test_a_seed_draws_the_same_scenario_again() -> None:
    assert draw_scenario(7, 3) == draw_scenario(7, 3) != draw_scenario(7, 4)
