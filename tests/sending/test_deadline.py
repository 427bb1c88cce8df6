"""A deadline that is to be kept: the batch gets the time that the rest does not need one by one, and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.shard_state import Content, Goal, Waited
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits, foresee_pace
from airflow_openai_batch.sending import machine, steps
from airflow_openai_batch.sending.judging import choose_rest_s, find_late_at, judge_batch
from airflow_openai_batch.sending.machine import Observations, StepContext
from airflow_openai_batch.sending.paces import MeasuredPace, read_paces, record_pace, share_pace
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.sending.realtime.time_left import TimeLeft
from airflow_openai_batch.storage.location import resolve_plain

if TYPE_CHECKING:
    from airflow_openai_batch.sending.policy import Lane

HOUR = 3_600.0
DEADLINE = 10 * HOUR
WHOLE = Content(sha256="whole", bytes=1_000, requests=3_000, input_tokens=500)
FLEX = Policy(deadline_at=DEADLINE, within_s=DEADLINE, on_deadline="flex")
REST_S = 3_000.0
"""Of all its requests, one a second."""


def choose(
    policy: Policy = FLEX, *, has_flex: bool = True, flex: float = 1.0, realtime: float = 0.0
) -> float:
    """Of 3,000 requests, at paces by lane."""
    paces: dict[Lane, float] = {"flex": flex, "realtime": realtime}
    return choose_rest_s(policy, 3_000, paces.__getitem__, has_flex=has_flex)


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
        (3_000, 700.0, False),
        (3_000, 660.0, True),  # all is answered, and it does not end
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
        assert step.hurries


@pytest.mark.parametrize("on_deadline", ["fail", "publish"])
def test_who_does_not_ask_for_the_rest_waits_for_the_batch_until_the_end(on_deadline: Any) -> None:
    policy = replace(FLEX, on_deadline=on_deadline)
    assert isinstance(judge(running(), 3_900.0, policy), steps.Wait)
    assert choose(policy) == 0.0


def test_where_nothing_is_known_of_the_pace_the_deadline_alone_decides() -> None:
    assert isinstance(judge(running(), 60.0, rest_s=0.0), steps.Wait)
    assert choose(flex=0.0) == 0.0
    assert find_late_at(FLEX, 0.0) == DEADLINE


@pytest.mark.parametrize(
    ("within_h", "flex", "realtime", "rest_s"),
    [
        (10.0, 1.0, 0.0, REST_S),
        (2.0, 1.0, 0.0, REST_S),
        (1.0, 1.0, 0.0, 0.0),  # 3,600 s in all, of which 2,316 can be kept free
        (1.0, 1.0, 2.0, 2_316.0),  # what flex cannot make then, real time does
        (1.0, 0.0, 3.0, 1_000.0),
        (1.0, 0.0, 2.0, 0.0),  # 1,020 s are half of the time
        (
            10.0,
            0.04,
            1.0,
            7_500.0,
        ),  # flex would take twenty hours: as much as leaves three quarters to the batch
        (4.0, 0.1, 1.0, 3_000.0),  # as slow, and real time wants more than a quarter
        (4.0, 0.11, 1.0, 11_064.0),
    ],
)
def test_how_much_time_a_batch_leaves_to_the_rest(
    within_h: float, flex: float, realtime: float, rest_s: float
) -> None:
    policy = replace(FLEX, within_s=within_h * HOUR)
    assert choose(policy, flex=flex, realtime=realtime) == pytest.approx(rest_s)


def test_without_flex_what_counts_is_the_pace_in_real_time() -> None:
    assert choose(flex=10.0, realtime=1.0, has_flex=False) == REST_S
    assert choose(replace(FLEX, on_deadline="realtime"), flex=10.0, realtime=1.0) == REST_S


def test_the_rest_begins_in_time_for_the_cancelling() -> None:
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


def test_after_a_cancel_that_hung_a_new_deadline_sends_no_batch_again() -> None:
    """It would be cancelled for that deadline, too, and hang, and so on."""
    events = [
        Event(kind="created", send=1, at=2.0, by="me", batch_id="batch_1"),
        Event(kind="cancelling", send=1, at=3.0, by="me", batch_id="batch_1", until=DEADLINE),
        Event(kind="stopped", send=1, at=HOUR, by="me"),
        Event(kind="ended", send=1, at=2 * HOUR, by="me", batch_id="batch_1", status="cancelled"),
        Event(kind="landed", send=1, at=2 * HOUR, by="me", leftover=1_000, leftover_sha256="rest"),
    ]
    policy = replace(FLEX, deadline_at=DEADLINE + HOUR)
    where = StepContext(now=3 * HOUR, me="me", key="k", rest_s=100.0)
    state = fold_events(WHOLE, events)
    step = machine.next_step(state, Observations(candidates=()), goal=Goal.DONE, where=where, policy=policy)
    assert isinstance(step, steps.SendRealtime)


def test_what_the_account_allows_is_the_pace_before_any_is_measured() -> None:
    assert foresee_pace(RealtimeLimits(concurrency=6), flex=True) == 0.1
    assert foresee_pace(RealtimeLimits(concurrency=50), flex=False) == 10.0
    assert foresee_pace(RealtimeLimits(concurrency=50, requests_per_minute=60), flex=False) == 1.0


def test_a_pace_is_measured_over_all_shards_and_shared_by_them(tmp_path: Path) -> None:
    output = resolve_plain(str(tmp_path))
    assert read_paces(output) == []
    for shard, (lane, answers, seconds) in enumerate(
        [("flex", 100, 50.0), ("flex", 300, 150.0), ("realtime", 90, 9.0), ("flex", 5, 900.0)]
    ):
        record_pace(output, shard, 2, MeasuredPace(lane=lane, answers=answers, seconds=seconds))
    paces = read_paces(output)
    assert share_pace(paces, "flex", 1) == 2.0, "five answers say nothing"
    assert share_pace(paces, "flex", 8) == 2.0, "eight sends through flex go side by side"
    assert share_pace(paces, "flex", 16) == 1.0
    assert share_pace(paces, "realtime", 4) == 5.0
    assert share_pace([], "flex", 4) == 0.0


@pytest.mark.parametrize(
    ("elapsed_s", "done", "slowest_s", "over"),
    [
        (0.0, 0, 0.0, False),
        (2_399.0, 0, 0.0, False),  # 1,000 s for the rest, 60 for what is on its way, a tenth to spare
        (2_423.0, 0, 0.0, True),
        (2_423.0, 100, 0.0, False),
        (2_423.0, 100, 500.0, True),
        (3_599.0, 1_000, 500.0, False),  # all of it is answered
    ],
)
def test_flex_ends_when_there_is_just_time_for_the_rest_in_real_time(
    elapsed_s: float, done: int, slowest_s: float, over: bool
) -> None:
    left = TimeLeft(HOUR, requests=1_000, rest_per_s=1.0)
    assert left.is_over(elapsed_s, done, slowest_s) is over


def test_what_flex_is_too_slow_for_goes_out_in_real_time_and_another_deadline_asks_flex_again() -> None:
    begun = Event(kind="flex", send=1, at=2.0, by="me")
    slow = Event(kind="crowded", send=1, at=3.0, by="me", times={"deadline_at": DEADLINE})
    for mode in ("flex", "batch"):
        policy = replace(FLEX, mode=mode)
        where = StepContext(now=DEADLINE - 3_900, me="me", key="k", rest_s=REST_S, realtime_per_s=1.0)

        def ask(*events: Event, policy: Policy = policy, where: StepContext = where) -> Any:
            state = fold_events(WHOLE, events)
            return machine.next_step(
                state, Observations(candidates=()), goal=Goal.DONE, where=where, policy=policy
            )

        through_flex = ask(begun)
        assert (through_flex.lane, through_flex.until, through_flex.rest_per_s) == ("flex", DEADLINE, 1.0)
        assert ask(begun, slow).lane == "realtime"
        assert ask(begun, slow, policy=replace(policy, deadline_at=DEADLINE + 1)).lane == "flex"
        after = ask(begun, where=replace(where, now=DEADLINE))
        assert (after.lane, after.until) == ("flex", None), "it is too late: no reason to pay more"
