"""A deadline that is to be kept: the batch gets the time that the rest does not need one by one, and no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.shard_state import Content, Goal, Waited, measure_pace
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits, foresee_pace
from airflow_openai_batch.sending import machine, steps
from airflow_openai_batch.sending.judging import CANCELLING_S, choose_rest_s, find_late_at, judge_batch
from airflow_openai_batch.sending.machine import Observations, StepContext
from airflow_openai_batch.sending.policy import Policy

HOUR = 3_600.0
DEADLINE = 10 * HOUR
WHOLE = Content(sha256="whole", bytes=1_000, requests=3_000, input_tokens=500)
FLEX = Policy(deadline_at=DEADLINE, within_s=DEADLINE, on_deadline="flex")
REST_S = 3_000.0
"""Of all its requests, one a second."""


def running(completed: int = 0, total: int = 3_000) -> BatchView:
    times = {"created_at": 1.0, "expires_at": 24 * HOUR}
    return BatchView(
        id="batch_1",
        status=BatchStatus.IN_PROGRESS,
        input_file_id="file-1",
        times=times,
        completed=completed,
        total=total,
    )


def judge(batch: BatchView, left_s: float, policy: Policy = FLEX, rest_s: float = REST_S) -> Any:
    return judge_batch(batch, now=DEADLINE - left_s, policy=policy, waited=Waited(rest_s=rest_s))


@pytest.mark.parametrize(
    ("completed", "left_s", "cancelled"),
    [
        (0, 4_100.0, False),
        (0, 3_900.0, True),  # 3,000 s for the rest, 600 to cancel, a tenth to spare
        (2_000, 3_900.0, False),
        (2_000, 1_700.0, True),  # a third is left: 1,000 s and 600
        (0, 1_400.0, False),  # less than half the time that it takes: the batch is the better hope
        (0, 0.0, True),
    ],
)
def test_a_batch_is_cancelled_when_the_rest_would_just_be_finished_otherwise(
    completed: int, left_s: float, cancelled: bool
) -> None:
    step = judge(running(completed), left_s)
    assert isinstance(step, steps.Cancel if cancelled else steps.Wait)
    if cancelled:
        assert step.hurries == (left_s > 0)


@pytest.mark.parametrize("on_deadline", ["fail", "publish"])
def test_who_does_not_ask_for_the_rest_waits_for_the_batch_until_the_end(on_deadline: Any) -> None:
    policy = replace(FLEX, on_deadline=on_deadline)
    assert isinstance(judge(running(), 3_900.0, policy), steps.Wait)
    assert choose_rest_s(policy, 3_000, 1.0) == 0.0


def test_where_nothing_is_known_of_the_pace_the_deadline_alone_decides() -> None:
    assert isinstance(judge(running(), 60.0, rest_s=0.0), steps.Wait)
    assert choose_rest_s(FLEX, 3_000, 0.0) == 0.0
    assert find_late_at(FLEX, 0.0) == DEADLINE


def test_a_batch_gets_three_quarters_of_the_time_at_least() -> None:
    assert choose_rest_s(FLEX, 3_000, 1.0) == REST_S
    assert choose_rest_s(replace(FLEX, within_s=4 * (REST_S + CANCELLING_S) - 1), 3_000, 1.0) == 0.0
    late_at = find_late_at(FLEX, REST_S)
    assert late_at is not None
    assert DEADLINE - late_at == pytest.approx(4_000.0)


def test_what_was_hurried_is_not_sent_as_a_batch_again() -> None:
    events = [
        Event(kind="created", send=1, at=2.0, by="me", batch_id="batch_1"),
        Event(kind="cancelling", send=1, at=3.0, by="me", batch_id="batch_1", until=DEADLINE),
        Event(kind="ended", send=1, at=4.0, by="me", batch_id="batch_1", status="cancelled"),
        Event(kind="landed", send=1, at=5.0, by="me", leftover=1_000, leftover_sha256="rest"),
    ]
    state = fold_events(WHOLE, events)
    where = StepContext(now=DEADLINE - 2_000, me="me", key="k", rest_s=100.0)
    step = machine.next_step(state, Observations(candidates=()), goal=Goal.DONE, where=where, policy=FLEX)
    assert step == steps.SendRealtime("finish_within_h is nearly over", "flex", True)
    moved = replace(FLEX, deadline_at=DEADLINE + HOUR)  # somebody cleared the task, which sets a new one
    again = machine.next_step(state, Observations(candidates=()), goal=Goal.DONE, where=where, policy=moved)
    assert again == steps.Upload()


def test_the_pace_is_what_was_measured_else_what_the_account_allows() -> None:
    times = {"created_at": 100.0, "completed_at": 400.0}
    slow = Event(kind="ended", send=1, at=5.0, status="completed", sent_as="flex", times=times)
    begun = Event(kind="flex", send=1, at=1.0)
    assert measure_pace(fold_events(WHOLE, [begun, slow])) == 10.0
    few = replace(WHOLE, requests=5)
    assert measure_pace(fold_events(few, [begun, slow])) == 0.0
    assert foresee_pace(RealtimeLimits(concurrency=6), flex=True) == 0.1
    assert foresee_pace(RealtimeLimits(concurrency=50), flex=False) == 10.0
    assert foresee_pace(RealtimeLimits(concurrency=50, requests_per_minute=60), flex=False) == 1.0
