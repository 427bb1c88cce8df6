"""Deadlines while batches hang: kept at the least cost that allows it, the full price only for what flex cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from simulation.lanes import FLEX_IS_FULL, HANGS, HOUR_S, Capacity, play_lane

if TYPE_CHECKING:
    from airflow_openai_batch.sending.policy import Mode, OnDeadline

REQUESTS = 400
WITHIN_S = 2 * HOUR_S
HANGING = Capacity(name="batches hang", faults=(HANGS,))
FULL = Capacity(name="flex is full", faults=(HANGS, FLEX_IS_FULL))
SLOW = Capacity(name="flex is slow", flex_per_s=0.02, faults=(HANGS,))


@pytest.mark.parametrize("mode", ["auto", "batch"])
@pytest.mark.parametrize(
    ("capacity", "on_deadline", "flex", "realtime"),
    [
        (HANGING, "flex", (300, 300), (0, 0)),
        (HANGING, "realtime", (0, 0), (300, 300)),
        (FULL, "flex", (0, 0), (300, 300)),
        (SLOW, "flex", (60, 90), (210, 240)),
    ],
)
def test_a_job_whose_batches_hang_ends_in_time_and_pays_the_full_price_only_for_what_flex_cannot_do(
    mode: Mode,
    capacity: Capacity,
    on_deadline: OnDeadline,
    flex: tuple[int, int],
    realtime: tuple[int, int],
) -> None:
    played = play_lane(capacity, requests=REQUESTS, mode=mode, within_s=WITHIN_S, on_deadline=on_deadline)
    assert played.took_s <= WITHIN_S, "in time"
    assert played.answers.total() == REQUESTS, "each was paid once"
    assert played.answers["batch"] == 100, "what the batch has finished is kept"
    assert flex[0] <= played.answers["flex"] <= flex[1]
    assert realtime[0] <= played.answers["realtime"] <= realtime[1]


def test_of_several_shards_the_deadline_is_kept_too() -> None:
    played = play_lane(
        HANGING, requests=REQUESTS, mode="batch", within_s=WITHIN_S, on_deadline="flex", shards=4
    )
    assert played.took_s <= WITHIN_S
    assert played.answers == {"batch": 100, "flex": 300}


def test_a_batch_that_hangs_with_all_of_it_answered_is_cancelled_in_time() -> None:
    done = Capacity(name="done, and hangs", faults=({"batch": "finalizing", "times": None},))
    played = play_lane(done, requests=40, mode="batch", within_s=WITHIN_S, on_deadline="flex")
    assert played.took_s <= WITHIN_S
    assert played.answers == {"batch": 40}


@pytest.mark.parametrize("sample", [None, 40])
def test_what_one_shard_has_measured_another_one_finds_at_its_first_send(sample: int | None) -> None:
    """Nothing is known of the account; the sample is all from the first shard."""
    played = play_lane(
        HANGING,
        requests=REQUESTS,
        mode="auto",
        within_s=WITHIN_S,
        on_deadline="flex",
        shards=4,
        sample=sample,
        limits=None,
    )
    assert (played.took_s <= WITHIN_S) == (sample is not None)
