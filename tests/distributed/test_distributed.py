"""docker-compose.yaml on this machine: 60 shards, while workers, triggerers and Redis are killed with work in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from distributed.conftest import AFTERMATH

if TYPE_CHECKING:
    from distributed.drill import Aftermath, Loss

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(2_400),
    pytest.mark.needs_program("initdb", "redis-server"),
]


@pytest.fixture(scope="module")
def aftermath(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, s3_server: str
) -> Aftermath:
    from distributed.drill import Drill
    from distributed.stage import set_stage

    with set_stage(tmp_path_factory.mktemp("distributed"), s3_server) as stage:
        pytestconfig.stash[AFTERMATH] = found = Drill(stage).play()
    return found


def find_losses(aftermath: Aftermath, service: str) -> list[Loss]:
    return [loss for loss in aftermath.losses if loss.container.startswith(service)]


def test_every_request_has_one_row_with_its_answer_and_was_paid_once(aftermath: Aftermath) -> None:
    assert aftermath.problems == []


def test_logs_quote_no_secret_and_no_request(aftermath: Aftermath) -> None:
    assert aftermath.leaks == []


def test_tasks_of_dead_workers_are_done_by_others(aftermath: Aftermath) -> None:
    losses = find_losses(aftermath, "worker")
    assert [loss.container for loss in losses] == ["worker-1", "worker-2"]
    for loss in losses:
        assert loss.held >= 2
        assert loss.taken_over.total() >= 1


def test_what_dead_triggerers_held_waits_in_the_other(aftermath: Aftermath) -> None:
    losses = find_losses(aftermath, "triggerer")
    assert {loss.container for loss in losses} == {"triggerer-1", "triggerer-2"}
    for loss in losses:
        assert loss.held >= 5
        assert loss.taken_over.total() == loss.held
        assert loss.container not in loss.taken_over


def test_both_triggerers_see_batches_end_and_both_workers_land(aftermath: Aftermath) -> None:
    assert aftermath.ended_with.keys() == {"triggerer-1", "triggerer-2"}
    assert aftermath.landed_on.keys() == {"worker-1", "worker-2"}
    assert aftermath.landed_on.total() == 60


def test_health_checks_speak_of_their_own_container(aftermath: Aftermath) -> None:
    assert aftermath.health == {
        "triggerer-1": False,
        "triggerer-2, alive": True,
        "triggerer-2": False,
        "triggerer-1, alive": True,
        "worker-1": True,
        "worker-2": True,
    }
