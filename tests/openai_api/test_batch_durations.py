"""How long batches take here: by model and size, of those that are completed, by the server's clock."""

from __future__ import annotations

import pytest

from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.openai_api.batch_durations import (
    LEAST_SAMPLES,
    MOST_MODELS,
    MOST_SAMPLES,
    BatchDurations,
    UsualDuration,
)

MODEL = "gpt-6-luna"
DAY_S = 86_400.0


def batch(
    number: int,
    seconds: float,
    total: int = 500,
    *,
    model: str | None = MODEL,
    status: BatchStatus = BatchStatus.COMPLETED,
) -> BatchView:
    """Number ``number`` of a server whose clock is years behind."""
    created_at = 1_000_000.0 + number
    return BatchView(
        id=f"batch_{model}_{number}",
        status=status,
        input_file_id="file-1",
        times={"created_at": created_at, "completed_at": created_at + seconds},
        total=total,
        model=model,
    )


def test_median_and_95th_percentile_by_model_and_size() -> None:
    durations = BatchDurations()
    durations.add(batch(number, 100.0 * (number + 1)) for number in range(21))
    durations.add(batch(number, 7.0, total=40) for number in range(30, 35))
    durations.add(batch(number, 9.0, model="gpt-5.4") for number in range(5))
    found = durations.sum_up().find(MODEL, 101)
    assert found == UsualDuration(model=MODEL, up_to=1_000, batches=21, median_s=1_100.0, p95_s=2_000.0)
    assert durations.sum_up().find(MODEL, 1_000) == found
    small = durations.sum_up().find(MODEL, 100)
    assert small is not None
    assert (small.up_to, small.median_s, small.batches) == (100, 7.0, 5)
    assert [usual.up_to for usual in durations.sum_up().list_model(MODEL)] == [100, 1_000]


def test_a_dated_model_counts_with_the_others_of_its_name() -> None:
    durations = BatchDurations()
    durations.add(batch(number, 60.0, model="gpt-5.4-mini-2026-03-17") for number in range(LEAST_SAMPLES))
    assert durations.sum_up().find("gpt-5.4-mini", 500) is not None


def test_where_one_size_has_too_few_the_model_speaks_and_too_few_of_all_say_nothing() -> None:
    durations = BatchDurations()
    durations.add(batch(number, 60.0) for number in range(LEAST_SAMPLES - 1))
    assert durations.sum_up().find(MODEL, 500) is None
    durations.add([batch(10, 300.0, total=40_000)])
    found = durations.sum_up().find(MODEL, 500)
    assert found is not None
    assert (found.up_to, found.batches, found.median_s) == (0, LEAST_SAMPLES, 60.0)
    assert not durations.sum_up().list_model(MODEL)
    assert durations.sum_up().find("gpt-5.4", 500) is None


@pytest.mark.parametrize(
    "odd",
    [
        batch(50, 9_000.0, status=BatchStatus.EXPIRED),
        batch(50, 9_000.0, status=BatchStatus.CANCELLED),
        batch(50, 9_000.0, model=None),
        batch(50, 9_000.0, total=0),
        batch(50, -5.0),
        batch(50, float("nan")),
    ],
)
def test_what_is_not_completed_or_says_nonsense_is_left_out(odd: BatchView) -> None:
    durations = BatchDurations()
    durations.add([*(batch(number, 60.0) for number in range(LEAST_SAMPLES)), odd])
    found = durations.sum_up().find(MODEL, 500)
    assert found is not None
    assert (found.batches, found.p95_s) == (LEAST_SAMPLES, 60.0)


def test_a_batch_that_is_listed_again_counts_once() -> None:
    durations = BatchDurations()
    news = [durations.add(batch(number, 60.0) for number in range(LEAST_SAMPLES)) for _ in range(3)]
    assert news == [True, False, False]
    found = durations.sum_up().find(MODEL, 500)
    assert found is not None
    assert found.batches == LEAST_SAMPLES


def test_memory_holds_the_newest_of_each_size_and_no_end_of_models() -> None:
    durations = BatchDurations()
    durations.add(batch(number, 60.0 if number < 50 else 90.0) for number in range(MOST_SAMPLES + 50))
    found = durations.sum_up().find(MODEL, 500)
    assert found is not None
    assert (found.batches, found.median_s, found.p95_s) == (MOST_SAMPLES, 90.0, 90.0)
    assert not durations.add([batch(3, 60.0)]), "older than all that are kept"
    for model in range(2 * MOST_MODELS):
        durations.add(batch(number, 60.0, model=f"ours-{model}") for number in range(LEAST_SAMPLES))
    assert durations.sum_up().find("ours-3", 500) is not None
    assert durations.sum_up().find(f"ours-{2 * MOST_MODELS - 1}", 500) is None


@pytest.mark.parametrize(
    ("age_s", "left_s"), [(0.0, 600.0), (599.0, 1.0), (600.0, 1_200.0), (1_799.0, 1.0), (1_800.0, None)]
)
def test_what_is_left_of_a_batch_that_says_nothing_yet(age_s: float, left_s: float | None) -> None:
    usual = UsualDuration(model=MODEL, up_to=100, batches=9, median_s=600.0, p95_s=1_800.0)
    assert usual.estimate_left(age_s) == left_s
