"""The state machine says the same thing to whoever asks: what is there is found, what is paid for is kept."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, get_args

import pytest

from airflow_openai_batch.errors import BatchRejectedError, FatalAccountError, JobError
from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event, Kind
from airflow_openai_batch.job.shard_state import CUT_SHORT, Content, Goal, ShardState, has_sample
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import CLOCK_MARGIN_S, BatchError, BatchStatus, BatchView
from airflow_openai_batch.openai_api.results_check import RESULT_FILE_GONE, RESULTS_UNPROVEN
from airflow_openai_batch.report.shard_words import STATES, WORDS
from airflow_openai_batch.sending import machine, steps
from airflow_openai_batch.sending.machine import Observations, StepContext
from airflow_openai_batch.sending.policy import DEFAULT_POLICY, Policy
from airflow_openai_batch.sending.result_looks import MOST_LOOKS, wait_before

NO_LIMIT = QueueLimit()
WHOLE = Content(sha256="whole", bytes=1_000, requests=10, input_tokens=500)
ME = "dag/run/task[0]"
FULL = BatchError(
    code="token_limit_exceeded", message="Enqueued token limit reached for m. Limit: 2,000,000 enqueued"
)


def after(*events: tuple[str, dict[str, object]], by: str = ME) -> ShardState:
    """The state after these events; the send counts on by itself, a second passes between two."""
    state = fold_events(WHOLE, [])
    history: list[Event] = []
    for at, (kind, fields) in enumerate(events, start=1):
        history.append(Event(kind=kind, send=state.send, at=float(at), by=by, **fields))  # type: ignore[arg-type]
        state = fold_events(WHOLE, history)
    return state


UPLOADED = ("uploaded", {"file_id": "file-1", "file_sha256": "whole"})
INTENT: tuple[str, dict[str, object]] = ("intent", {})
CREATED = ("created", {"batch_id": "batch_1"})
ENDED = ("ended", {"batch_id": "batch_1", "status": "completed", "output_file_id": "file-2"})


def batch(
    status: str, *, id: str = "batch_1", at: float = 1.0, errors: tuple[BatchError, ...] = ()
) -> BatchView:
    return BatchView(
        id=id,
        status=BatchStatus(status),
        input_file_id="file-1",
        times={"created_at": at, "expires_at": at + 86_400},
        errors=errors,
    )


def ask(
    state: ShardState,
    seen: Observations,
    goal: Goal = Goal.DONE,
    now: float = 100.0,
    me: str = ME,
    *,
    limit: QueueLimit = NO_LIMIT,
    policy: Policy = DEFAULT_POLICY,
    has_flex: bool = False,
) -> steps.Step:
    where = StepContext(now=now, me=me, key="key", model="gpt-4o-mini", limit=limit, has_flex=has_flex)
    return machine.next_step(state, seen, goal=goal, where=where, policy=policy)


def test_a_new_shard_looks_before_it_uploads_and_pays() -> None:
    assert isinstance(ask(after(), Observations()), steps.Find)
    assert ask(after(), Observations(candidates=())) == steps.Upload()
    assert ask(after(UPLOADED), Observations(candidates=())) == steps.Create()


def test_the_upload_of_a_new_shard_leaves_the_look_to_who_creates() -> None:
    assert ask(after(), Observations(), Goal.UPLOADED) == steps.Upload()
    assert isinstance(ask(after(), Observations(), Goal.CREATED), steps.Find)
    assert isinstance(ask(after(UPLOADED), Observations(), Goal.CREATED), steps.Find)
    assert isinstance(ask(after(INTENT), Observations(), Goal.UPLOADED), steps.Find), "it may have been sent"
    late = Policy(deadline_at=50.0, on_deadline="publish")
    assert isinstance(ask(after(), Observations(), Goal.UPLOADED, policy=late), steps.Find), (
        "nobody looks later"
    )


def test_a_batch_nobody_wrote_down_is_adopted_and_the_oldest_of_several_is_kept() -> None:
    first, second = batch("in_progress", at=5.0), batch("validating", id="batch_2", at=6.0)
    for order in ((first, second), (second, first)):
        assert ask(after(), Observations(candidates=order)) == steps.Adopt(first, (second,))


def test_a_failed_candidate_never_wins_over_a_running_one() -> None:
    failed, running = batch("failed", id="batch_0", at=1.0), batch("in_progress", at=9.0)
    assert ask(after(UPLOADED, INTENT), Observations(candidates=(failed, running))) == steps.Adopt(running)


def test_a_look_that_is_older_than_somebody_elses_call_is_done_again() -> None:
    theirs = after(UPLOADED, INTENT, by="dag/other/task[0]")
    late = 2.0 + Policy().create_timeout_s + 1
    assert ask(theirs, Observations(candidates=(), looked_at=1.0), now=late) == steps.Find(
        2.0 - CLOCK_MARGIN_S
    )
    assert ask(theirs, Observations(candidates=(), looked_at=late), now=late) == steps.Create()


def test_a_foreign_intent_is_given_time_and_ones_own_is_not() -> None:
    theirs = after(UPLOADED, INTENT, by="dag/other/task[0]")
    step = ask(theirs, Observations(candidates=()), now=10.0)
    assert isinstance(step, steps.Pause)
    assert "dag/other/task[0]" in step.why
    assert ask(theirs, Observations(candidates=()), now=step.until) == steps.Create()
    assert ask(after(UPLOADED, INTENT), Observations(candidates=()), now=10.0) == steps.Create()
    declined = after(UPLOADED, INTENT, ("declined", {}), by="dag/other/task[0]")
    assert ask(declined, Observations(candidates=()), now=10.0) == steps.Create()


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_batch_that_is_not_final_is_waited_for(status: str) -> None:
    running = batch(status)
    assert ask(after(UPLOADED, INTENT, CREATED), Observations(batch=running)) == steps.Wait(running)


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_whatever_may_carry_paid_lines_is_collected(status: str) -> None:
    final = batch(status)
    assert ask(after(UPLOADED, INTENT, CREATED), Observations(batch=final)) == steps.RecordEnded(final)


def test_an_overdue_batch_is_cancelled_once_and_then_waited_for() -> None:
    state = after(UPLOADED, INTENT, CREATED)
    assert state.created_at is not None
    late = state.created_at + 86_400 + Policy().grace_s + 1
    assert ask(state, Observations(batch=batch("in_progress")), now=late) == steps.Cancel(
        batch("in_progress"), "is long overdue"
    )
    assert ask(state, Observations(batch=batch("cancelling")), now=late) == steps.Wait(batch("cancelling"))


def test_where_one_call_may_create_two_batches_the_other_is_looked_for_at_each_look() -> None:
    state = after(UPLOADED, INTENT, CREATED)
    running = replace(batch("in_progress"), may_have_twin=True)
    assert isinstance(ask(state, Observations(batch=running)), steps.Find)
    twin = replace(running, id="batch_0", times={"created_at": running.created_at - 1.0})
    both = Observations(batch=running, candidates=(twin, running))
    assert ask(state, both) == steps.Adopt(twin, (running,))
    assert ask(state, Observations(batch=running, candidates=(running,))) == steps.Wait(running)


def test_a_batch_that_its_server_does_not_end_is_never_overdue() -> None:
    state = after(UPLOADED, INTENT, CREATED)
    running = replace(batch("in_progress"), expires=False)
    a_week_later = (state.created_at or 0.0) + 7 * 86_400
    assert ask(state, Observations(batch=running), now=a_week_later) == steps.Wait(running)


@pytest.mark.parametrize("behind_s", [-5 * 3600.0, 0.0, 3 * 3600.0, 30 * 3600.0])
def test_how_long_a_batch_takes_is_told_by_our_clock(behind_s: float) -> None:
    """Of a server whose clock is hours off, what it says of times is true only beside what else it says."""
    state, grace_s = after(UPLOADED, INTENT, CREATED), Policy().grace_s
    began = state.created_at
    assert began is not None
    created_at = began - behind_s
    running = replace(
        batch("in_progress"), times={"created_at": created_at, "expires_at": created_at + 3600.0}
    )
    ask_at = partial(ask, state, Observations(batch=running))
    assert ask_at(now=began + 3600.0 + grace_s - 1) == steps.Wait(running)
    assert ask_at(now=began + 3600.0 + grace_s + 1) == steps.Cancel(running, "is long overdue")
    asked = after(UPLOADED, INTENT, CREATED, ("cancelling", {"batch_id": "batch_1"}))
    cancelling = replace(
        running, status=BatchStatus.CANCELLING, times={**running.times, "cancelling_at": created_at + 1.0}
    )
    assert asked.cancel_asked_at
    until = asked.cancel_asked_at + grace_s
    assert ask(asked, Observations(batch=cancelling), now=until - 1) == steps.Wait(cancelling)
    assert isinstance(ask(asked, Observations(batch=cancelling), now=until + 1), steps.Stop)


def test_a_full_queue_is_waited_out_longer_each_time_and_without_a_bound() -> None:
    policy, waits = Policy(), []
    for times in range(1, 50):
        state = after(UPLOADED, *([("refused", {"status": "queue_full"})] * times))
        refused_at = float(times + 1)
        step = ask(state, Observations(candidates=()), now=refused_at)
        assert isinstance(step, steps.Pause)
        waits.append(step.until - refused_at)
        assert (
            ask(state, Observations(candidates=()), now=step.until) == steps.Create()
        )  # the same file, no new upload
    assert 0.7 * policy.queue_wait_s < waits[0] < 1.3 * policy.queue_wait_s
    assert waits[10] > waits[0]
    assert max(waits) <= 1.25 * policy.queue_wait_max_s


def test_a_refused_batch_is_a_send_of_its_own_and_keeps_the_file() -> None:
    refused = batch("failed", errors=(FULL,))
    step = ask(after(UPLOADED, INTENT, CREATED), Observations(batch=refused))
    assert isinstance(step, steps.RecordRefused)
    assert step.error is None
    assert step.refusal.limit == 2_000_000
    state = after(UPLOADED, INTENT, CREATED, ("refused", {"batch_id": "batch_1", "status": "queue_full"}))
    assert (state.send, state.file_id, state.batch_id, state.claims) == (2, "file-1", None, ())


@pytest.mark.parametrize(
    ("code", "error"),
    [("duplicate_custom_id", BatchRejectedError), ("billing_hard_limit_reached", FatalAccountError)],
)
def test_what_waiting_cannot_cure_stops_the_shard(code: str, error: type[Exception]) -> None:
    refused = batch("failed", errors=(FULL, BatchError(code=code, message="no", line=7)))
    step = ask(after(UPLOADED, INTENT, CREATED), Observations(batch=refused))
    assert isinstance(step, steps.RecordRefused)
    assert isinstance(step.error, error)
    assert "nothing was billed" in str(step.error)


def test_a_file_openai_cannot_find_is_tried_again_four_times_and_then_uploaded_anew() -> None:
    refusal = ("refused", {"status": "file_missing"})
    for times in range(1, 5):
        state = after(UPLOADED, *([refusal] * times))
        assert isinstance(ask(state, Observations(candidates=()), now=state.refused_at or 0.0), steps.Pause)
        assert ask(state, Observations(candidates=()), now=1_000.0) == steps.Create()
    assert ask(after(UPLOADED, *([refusal] * 5)), Observations(candidates=()), now=1_000.0) == steps.Upload()


def test_what_a_server_asked_to_wait_is_waited_by_whoever_comes_next() -> None:
    busy = ("declined", {"status": "busy", "until": 5_402.0})
    step = ask(
        after(UPLOADED, INTENT, busy), Observations(candidates=()), now=121.0, me="dag/another/task[0]"
    )
    assert step == steps.Pause(5_402.0, "the server asked to wait")
    assert ask(after(UPLOADED, INTENT, busy), Observations(candidates=()), now=5_402.0) == steps.Create()
    unsure = ("declined", {"status": "unsure", "until": 12.0})
    claimed = ask(
        after(UPLOADED, INTENT, unsure), Observations(candidates=()), now=13.0, me="dag/another/task[0]"
    )
    assert isinstance(claimed, steps.Pause), "the call may have created a batch: its maker's time is not over"


def test_results_in_doubt_are_looked_at_for_minutes_and_never_sent_again() -> None:
    events: list[tuple[str, dict[str, object]]] = [UPLOADED, INTENT, CREATED, ENDED]
    now, waits = 5.0, []
    for _ in range(MOST_LOOKS[RESULTS_UNPROVEN] - 1):
        events.append(("doubted", {"code": RESULTS_UNPROVEN, "message": "2 of 20 lines arrived"}))
        state = after(*events)
        step = ask(state, Observations(), now=state.doubted_at)
        assert isinstance(step, steps.Pause)
        assert "2 of 20 lines" in step.why
        waits.append(step.until - state.doubted_at)
        assert ask(state, Observations(), now=step.until) == steps.Land()
    assert waits == [30, 60, 120, 240, 300]
    events.append(("doubted", {"code": RESULTS_UNPROVEN, "message": "2 of 20 lines arrived"}))
    stop = ask(after(*events), Observations(), now=now + 9_999)
    assert isinstance(stop, steps.Stop)
    assert "Nothing is sent again" in str(stop.error)
    assert ask(after(*events, ("stopped", {})), Observations()) == steps.Land(), (
        "whoever clears it has as many looks"
    )
    taken = ask(after(*events, ("stopped", {}), ("reopened", {})), Observations())
    assert taken == steps.Land(gives_up=frozenset(MOST_LOOKS)), "a repair takes what is there"


def test_a_file_that_is_gone_is_given_up_after_an_hour_of_looks() -> None:
    gone = ("doubted", {"code": RESULT_FILE_GONE, "message": "404"})
    looks = MOST_LOOKS[RESULT_FILE_GONE]
    waits = [wait_before(n) for n in range(1, looks)]
    assert sum(waits) >= 3_400
    state = after(UPLOADED, INTENT, CREATED, ENDED, *([gone] * looks))
    assert ask(state, Observations()) == steps.Land(gives_up=frozenset({RESULT_FILE_GONE}))


def test_a_leftover_is_a_new_send_with_a_new_file() -> None:
    left = {"leftover": 3, "leftover_sha256": "rest", "leftover_bytes": 300, "leftover_tokens": 150}
    state = after(UPLOADED, INTENT, CREATED, ENDED, ("landed", left))
    assert (state.send, state.content.requests) == (2, 3)
    assert machine.is_reached(state, Goal.LANDED)
    assert not machine.is_reached(state, Goal.DONE)
    assert ask(state, Observations(candidates=())) == steps.Upload()


def test_five_sends_without_progress_stop_with_what_happened_each_time() -> None:
    left = {"leftover": 10, "leftover_sha256": "whole", "leftover_bytes": 1_000, "leftover_tokens": 500}
    one_send = (UPLOADED, INTENT, CREATED, ENDED, ("landed", left))
    assert ask(after(*(one_send * 4)), Observations(candidates=())) == steps.Create()
    step = ask(after(*(one_send * 5)), Observations(candidates=()))
    assert isinstance(step, steps.Stop)
    assert isinstance(step.error, JobError)
    assert [f"send {n}:" in str(step.error) for n in range(1, 6)] == [True] * 5
    cleared = after(*(one_send * 5), ("stopped", {}))
    assert ask(cleared, Observations(candidates=())) == steps.Create(), (
        "whoever clears the task has another five"
    )


def test_a_landing_that_was_cut_short_is_done_again_and_a_done_shard_rests() -> None:
    ended = after(UPLOADED, INTENT, CREATED, ENDED)
    assert ask(ended, Observations()) == steps.Land()
    cut = after(UPLOADED, INTENT, CREATED, ENDED, ("landed", {}))
    assert ask(cut, Observations()) == steps.Land()
    done = after(UPLOADED, INTENT, CREATED, ENDED, ("landed", {}), ("done", {}), ("cleaned", {}))
    for goal in Goal:
        assert ask(done, Observations(), goal) == steps.Reached()


@pytest.mark.parametrize(
    ("events", "reached"),
    [
        ((), []),
        ((UPLOADED,), [Goal.UPLOADED]),
        ((UPLOADED, INTENT), [Goal.UPLOADED]),
        ((UPLOADED, INTENT, CREATED), [Goal.UPLOADED, Goal.CREATED]),
        ((UPLOADED, INTENT, CREATED, ENDED), [Goal.UPLOADED, Goal.CREATED, Goal.ENDED]),
    ],
)
def test_each_task_of_the_dag_ends_where_it_should(
    events: tuple[tuple[str, dict[str, object]], ...], reached: list[Goal]
) -> None:
    assert [goal for goal in Goal if machine.is_reached(after(*events), goal)] == reached


DONE = (UPLOADED, INTENT, CREATED, ENDED, ("landed", {}), ("done", {}))


def test_files_are_deleted_only_after_the_rows_are_written_and_by_whoever_comes_then() -> None:
    done = after(*DONE)
    assert done.remote_files == ("file-1", "file-2")
    assert ask(done, Observations(), Goal.LANDED) == steps.CleanUp()
    assert ask(done, Observations(), Goal.ENDED) == steps.Reached()
    assert ask(done, Observations(left_files=True)) == steps.Reached(), (
        "OpenAI's trouble with it holds nothing up"
    )
    assert ask(done, Observations(), policy=Policy(clean_up=False)) == steps.Reached()


ROOM = QueueLimit(tokens=1_000)


def test_room_comes_before_the_upload_and_again_only_after_a_refusal() -> None:
    step = ask(after(), Observations(candidates=()), limit=ROOM)
    assert isinstance(step, steps.AwaitRoom)
    assert (step.not_before, step.why) == (0.0, ""), "nobody asked to wait"
    assert (step.need.tokens, step.limit) == (500, ROOM)
    assert ask(after(), Observations(candidates=(), admitted=True), limit=ROOM) == steps.Upload()
    assert ask(after(UPLOADED), Observations(candidates=()), limit=ROOM) == steps.Create()
    refused = after(UPLOADED, INTENT, CREATED, ("refused", {"status": "queue_full"}))
    again = ask(refused, Observations(candidates=()), limit=ROOM)
    assert isinstance(again, steps.AwaitRoom)
    assert again.not_before > 0, "strangers may be using the queue"


def test_the_limit_that_a_refusal_names_wins_and_a_shard_that_can_never_fit_stops_with_the_number() -> None:
    refusal = {"status": "queue_full", "limit": 400, "unit": "tokens"}
    refused = after(UPLOADED, INTENT, CREATED, ("refused", refusal))
    step = ask(refused, Observations(candidates=()), limit=ROOM)
    assert isinstance(step, steps.Stop)
    assert "max_tokens_per_shard=380" in str(step.error)


@pytest.mark.parametrize(
    ("mode", "threshold", "step"),
    [
        ("batch", 10, steps.Upload()),
        ("auto", 9, steps.Upload()),
        ("auto", 10, steps.SendRealtime()),
        ("realtime", 0, steps.SendRealtime()),
    ],
)
def test_few_requests_go_out_in_real_time(mode: Any, threshold: int, step: steps.Step) -> None:
    policy = Policy(mode=mode, realtime_threshold=threshold)
    assert ask(after(), Observations(candidates=()), policy=policy) == step
    if isinstance(step, steps.SendRealtime):
        assert ask(after(), Observations(candidates=()), Goal.UPLOADED, policy=policy) == steps.Reached()


def test_a_send_stays_what_it_began_as() -> None:
    begun = after(("realtime", {}))
    assert ask(begun, Observations(candidates=()), policy=Policy(mode="batch")) == steps.SendRealtime()
    theirs = after(("realtime", {}), by="dag/other/task[0]")
    step = ask(theirs, Observations(candidates=()))
    assert isinstance(step, steps.Pause), "two at once would both pay"
    assert ask(theirs, Observations(candidates=()), now=step.until) == steps.SendRealtime()
    uploaded = after(UPLOADED)
    assert ask(uploaded, Observations(candidates=()), policy=Policy(mode="realtime")) == steps.Create()


FLEX = steps.SendRealtime(lane="flex", falls_back=True)


@pytest.mark.parametrize(
    ("mode", "threshold", "known", "step"),
    [
        ("auto", 10, True, FLEX),
        ("auto", 10, False, steps.SendRealtime()),
        ("auto", 9, True, steps.Upload()),
        ("flex", 0, True, steps.SendRealtime(lane="flex")),
        ("flex", 0, False, steps.SendRealtime(lane="flex")),
        ("realtime", 10, True, steps.SendRealtime()),
        ("batch", 10, True, steps.Upload()),
    ],
)
def test_few_requests_go_through_flex_where_it_is_known_to_be(
    mode: Any, threshold: int, known: bool, step: steps.Step
) -> None:
    policy = Policy(mode=mode, realtime_threshold=threshold)
    assert ask(after(), Observations(candidates=()), policy=policy, has_flex=known) == step


def test_what_flex_has_no_room_for_goes_on_as_the_mode_says() -> None:
    auto, patient = Policy(mode="auto"), Policy(mode="flex")
    closed = after(("flex", {}), ("crowded", {}))
    assert ask(after(("flex", {})), Observations(candidates=()), policy=auto, has_flex=True) == FLEX
    assert ask(closed, Observations(candidates=()), policy=auto, has_flex=True) == steps.SendRealtime()
    later = after(("flex", {}), ("crowded", {"until": 90.0}))
    assert ask(later, Observations(candidates=()), now=80.0, policy=patient) == steps.Pause(
        90.0, "flex has no capacity"
    )
    again = steps.SendRealtime(lane="flex")
    assert ask(later, Observations(candidates=()), now=90.0, policy=patient) == again
    assert (
        ask(later, Observations(candidates=()), now=80.0, policy=Policy(mode="batch")) == steps.EndRealtime()
    ), "what was begun at the price of a batch does not end at the full price"


def test_a_send_through_flex_minds_the_deadline() -> None:
    begun = after(("flex", {}))
    policy = Policy(mode="flex", deadline_at=LATE, on_deadline="publish")
    assert ask(begun, Observations(candidates=()), now=LATE - 1, policy=policy) == steps.SendRealtime(
        lane="flex", until=LATE
    )
    assert ask(begun, Observations(candidates=()), now=LATE, policy=policy) == steps.EndRealtime()
    ended = after(("flex", {}), ("ended", {"status": CUT_SHORT}), ("landed", {"leftover": 7}))
    assert ask(ended, Observations(candidates=()), now=LATE, policy=policy) == steps.Land(final=True)


def test_two_batches_of_one_send_are_settled_whenever_they_are_seen() -> None:
    mine, theirs = batch("in_progress", at=9.0), batch("in_progress", id="batch_0", at=5.0)
    once = after(UPLOADED, INTENT, CREATED)
    assert ask(once, Observations(batch=mine)) == steps.Wait(mine)
    assert ask(once, Observations(batch=mine, twins=True)) == steps.Find(2.0 - CLOCK_MARGIN_S), (
        "the triggerer has seen one"
    )
    twice = after(UPLOADED, INTENT, INTENT, CREATED)
    assert ask(twice, Observations(batch=mine)) == steps.Find(2.0 - CLOCK_MARGIN_S)
    assert ask(twice, Observations(batch=mine, candidates=(mine,))) == steps.Wait(mine)
    step = ask(twice, Observations(batch=mine, candidates=(mine, theirs)))
    assert step == steps.Adopt(theirs, (mine,))
    settled = after(
        UPLOADED,
        INTENT,
        INTENT,
        CREATED,
        ("duplicate", {"batch_id": "batch_1"}),
        ("created", {"batch_id": "batch_0"}),
    )
    assert ask(settled, Observations(batch=theirs, candidates=(mine, theirs))) == steps.Wait(theirs)


LATE = 50.0


@pytest.mark.parametrize(
    ("on_deadline", "unsent", "running"),
    [
        ("fail", steps.Stop, steps.Stop),
        ("realtime", steps.SendRealtime, steps.Cancel),
        ("flex", steps.SendRealtime, steps.Cancel),
        ("publish", steps.Land, steps.Cancel),
    ],
)
def test_after_the_deadline_the_parameter_decides(on_deadline: Any, unsent: type, running: type) -> None:
    policy = Policy(deadline_at=LATE, on_deadline=on_deadline)
    assert isinstance(ask(after(), Observations(candidates=()), now=LATE, policy=policy), unsent)
    created = after(UPLOADED, INTENT, CREATED)
    assert isinstance(
        ask(created, Observations(batch=batch("in_progress")), now=LATE, policy=policy), running
    )
    assert isinstance(
        ask(created, Observations(batch=batch("in_progress")), now=LATE - 1, policy=policy), steps.Wait
    )
    final = batch("cancelled")
    assert ask(created, Observations(batch=final), now=LATE, policy=policy) == steps.RecordEnded(final)


def test_a_sample_carries_the_first_requests_and_rests_until_a_full_run_goes_on() -> None:
    sample = Policy(first=3)
    assert ask(after(), Observations(), policy=sample) == steps.TakeSample(3)
    carried = {"leftover": 3, "leftover_sha256": "three", "leftover_bytes": 300, "leftover_tokens": 150}
    taken = after(("sampled", carried))
    assert (taken.content.requests, taken.content.sha256) == (3, "three")
    rest = {"leftover": 7, "leftover_sha256": "rest", "leftover_bytes": 700, "leftover_tokens": 350}
    uploaded = ("uploaded", {"file_id": "file-1", "file_sha256": "three"})
    landed = after(("sampled", carried), uploaded, INTENT, CREATED, ENDED, ("landed", rest))
    assert landed.ended[0].carried == 3
    assert not landed.setbacks
    assert ask(landed, Observations(), policy=sample) == steps.Reached()
    assert ask(landed, Observations(candidates=())) == steps.Upload()


def test_a_sample_that_has_landed_stays_so_while_a_larger_one_is_under_way() -> None:
    """The report asks the same as the machine."""

    def carry(first: int) -> tuple[str, dict[str, object]]:
        return ("sampled", {"first": first, "leftover": first, "leftover_sha256": f"of {first}"})

    rest: dict[str, object] = {"leftover": 7, "leftover_sha256": "rest", "leftover_bytes": 700}
    uploaded = ("uploaded", {"file_id": "file-1", "file_sha256": "of 3"})
    state = after(carry(3), uploaded, INTENT, CREATED, ENDED, ("landed", rest), carry(8))
    assert [first for first in (1, 3, 8) if has_sample(state, first)] == [1, 3]
    assert ask(state, Observations(), policy=Policy(first=3)) == steps.Reached()
    assert ask(state, Observations(candidates=()), policy=Policy(first=8)) == steps.Upload()


def test_the_accounts_trouble_is_no_setback_of_the_shard() -> None:
    left = {"leftover": 10, "leftover_sha256": "whole", "leftover_bytes": 1_000, "leftover_tokens": 500}
    state = after(UPLOADED, INTENT, CREATED, ENDED, ("landed", {**left, "account_errors": 10}))
    assert not state.setbacks


def test_of_two_who_claim_a_send_side_by_side_the_first_one_pays() -> None:
    events = [
        Event(kind="uploaded", send=1, at=1.0, by="a", file_id="file-1", file_sha256="whole"),
        Event(kind="intent", send=1, at=2.0, by="a"),
        Event(kind="intent", send=1, at=2.5, by="b"),
    ]
    both = fold_events(WHOLE, events)
    assert machine.may_pay(both, StepContext(now=3.0, me="a", key="k"), DEFAULT_POLICY)
    assert not machine.may_pay(both, StepContext(now=3.0, me="b", key="k"), DEFAULT_POLICY)
    later = fold_events(WHOLE, [*events, Event(kind="intent", send=1, at=130.0, by="b")])
    assert machine.may_pay(later, StepContext(now=131.0, me="b", key="k"), DEFAULT_POLICY)


def test_a_send_in_real_time_is_left_to_whoever_began_it() -> None:
    begun = fold_events(WHOLE, [Event(kind="realtime", send=1, at=10.0, by="other")])
    step = ask(begun, Observations(candidates=()), now=20.0, policy=Policy(mode="realtime"))
    assert isinstance(step, steps.Pause)
    assert "other is sending these requests" in step.why
    assert ask(begun, Observations(candidates=()), now=step.until) == steps.SendRealtime()
    assert ask(begun, Observations(candidates=()), now=20.0, me="other") == steps.SendRealtime()


def test_every_event_means_something_to_a_person() -> None:
    assert set(WORDS) == set(get_args(Kind))
    assert {words.state for words in WORDS.values()} <= set(STATES)
