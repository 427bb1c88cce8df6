"""Who may send next. The clock is a number, the lists are written by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.sending.queue.line import HEAD_WAIT_S, RESERVED_S, AdmissionQueue, Waiter
from airflow_openai_batch.sending.queue.room import Need

MINI = "gpt-4o-mini"
LIMIT = QueueLimit(tokens=2_000)


def view(key: str, tokens: int, status: str = "in_progress", model: str = MINI) -> BatchView:
    return BatchView(
        id=f"batch_{key}",
        status=BatchStatus(status),
        input_file_id="file-1",
        times={},
        metadata={"job_key": key, "input_tokens": str(tokens)},
        model=model,
    )


class Line:
    """A room, its clock, and what the lists show."""

    def __init__(self, *batches: BatchView) -> None:
        self.room = AdmissionQueue()
        self.now = 1_000_000.0
        self.batches = list(batches)
        self.created_last_hour = 0
        self.look()

    def look(self, after_s: float = 60.0) -> list[str]:
        """Time passes, the lists are seen again; who was let go."""
        self.now += after_s
        self.room.see(self.batches, created_last_hour=self.created_last_hour, at=self.now)
        return self.admit()

    def admit(self) -> list[str]:
        return [waiter.need.job_key for waiter in self.room.admit(self.now)]

    def join(
        self,
        key: str,
        tokens: int,
        *,
        limit: QueueLimit = LIMIT,
        model: str = MINI,
        asked_at: float | None = None,
        patience_s: float = 0.0,
        holder: str = "",
    ) -> Waiter:
        return self.room.join(
            Need(model, tokens, 1, key),
            limit,
            now=self.now,
            asked_at=asked_at,
            not_before=self.now + patience_s if patience_s else 0.0,
            holder=holder,
        )


def test_nobody_goes_before_a_list_was_seen() -> None:
    room = AdmissionQueue()
    waiter = room.join(Need(MINI, 1, 1, "a"), LIMIT, now=0.0)
    assert room.admit(0.0) == []
    assert "not known yet" in room.describe(waiter, 0.0)
    room.see([], created_last_hour=0, at=1.0)
    assert room.admit(1.0) == [waiter]


def test_as_many_go_as_fit_in_the_order_they_came() -> None:
    line = Line(view("other", 500))
    for key in "abcd":
        line.join(key, 600)
    assert line.admit() == ["a", "b"]
    assert line.admit() == []  # what was granted is taken, seen or not
    line.batches = [view("a", 600, "validating"), view("b", 600)]
    assert line.look() == ["c"]


def test_a_grant_is_counted_once_before_and_after_it_is_seen() -> None:
    line = Line()
    line.join("a", 1_000)
    line.join("b", 1_000)
    line.join("c", 1_000)
    assert line.admit() == ["a", "b"]
    line.batches = [view("a", 1_000)]  # b's create is on its way, or the list lags
    assert line.look() == []
    line.batches = [view("a", 1_000), view("b", 1_000)]
    assert line.look() == []
    line.batches = [view("b", 1_000)]
    assert line.look() == ["c"]


def test_a_grant_that_nobody_uses_is_void_after_a_while() -> None:
    line = Line()
    line.join("a", 2_000)
    line.join("b", 2_000)
    assert line.admit() == ["a"]
    assert line.look(RESERVED_S - 1) == []
    assert line.look(2) == ["b"]


def test_a_batch_that_was_over_before_it_was_seen_running_frees_its_room() -> None:
    line = Line()
    line.join("a", 2_000)
    line.join("b", 2_000)
    assert line.admit() == ["a"]
    line.batches = [view("a", 2_000, "completed")]
    assert line.look() == ["b"]


def test_whoever_leaves_without_going_gives_its_room_back() -> None:
    line = Line()
    first, second = line.join("a", 2_000), line.join("b", 2_000)
    line.admit()
    line.room.leave(first, taken=False)
    assert line.admit() == ["b"]
    line.room.leave(second, taken=True)
    line.join("c", 2_000)
    assert line.admit() == []


def test_a_shard_that_asks_again_holds_nothing_from_before() -> None:
    line = Line()
    line.join("send-1", 2_000, holder="job#0")
    assert line.admit() == ["send-1"]
    line.join("send-2", 2_000, holder="job#0")  # refused before a list showed its batch
    assert line.admit() == ["send-2"]


def test_smaller_ones_pass_a_large_one_but_not_for_ever() -> None:
    line = Line(view("old", 1_000))
    line.join("large", 1_500)
    line.join("small-1", 600)
    assert line.admit() == ["small-1"]
    line.batches = [view("old", 1_000), view("small-1", 600)]
    line.look(HEAD_WAIT_S)
    line.join("small-2", 300)
    assert line.admit() == []  # the large one waits for the room that the others leave
    line.batches = [view("small-1", 400)]
    assert line.look() == ["large"]
    line.batches = [view("large", 1_500)]
    assert line.look() == ["small-2"]


def test_a_full_queue_of_one_model_holds_up_no_other() -> None:
    line = Line(view("old", 2_000))
    line.join("a", 100)
    line.look(HEAD_WAIT_S + 1)
    line.look(HEAD_WAIT_S + 1)
    line.join("b", 100, model="gpt-4o-2024-08-06")
    assert line.admit() == ["b"]


def test_a_shard_keeps_its_place_after_a_restart() -> None:
    line = Line()
    line.join("young", 2_000, asked_at=line.now)
    line.join("old", 2_000, asked_at=line.now - 3_600)
    assert line.admit() == ["old"]


def test_at_most_two_thousand_batches_an_hour_are_created_by_all_together() -> None:
    line = Line()
    line.created_last_hour = 1_998
    line.look()
    for key in "abc":
        line.join(key, 1, limit=QueueLimit())
    assert line.admit() == ["a", "b"]
    waiter = line.join("d", 1)
    assert "2,000 batches were created in the last hour" in line.room.describe(waiter, line.now)
    line.created_last_hour = 1_900
    assert line.look() == ["c", "d"]


def test_what_a_refusal_said_of_the_limit_counts_for_all() -> None:
    line = Line()
    line.join("b", 800, limit=QueueLimit(tokens=2_000_000, tokens_by="parameter"))
    line.join("a", 800, limit=QueueLimit(tokens=1_000, tokens_by="refusal"))
    assert line.admit() == ["b"]
    waiter = line.join("c", 100, limit=QueueLimit(tokens=2_000_000, tokens_by="parameter"))
    assert line.room.find_room(waiter).limit == QueueLimit(tokens=1_000, tokens_by="refusal")
    line.join("d", 1, limit=QueueLimit(tokens=5_000, tokens_by="refusal"))  # the account was raised
    assert line.admit() == ["a", "c", "d"]


def test_each_waiter_keeps_to_the_parameter_of_its_own_run() -> None:
    line = Line(view("old", 900))
    line.join("modest", 200, limit=QueueLimit(tokens=1_000, tokens_by="parameter"))
    line.join("other", 200)
    assert line.admit() == ["other"]


def test_patience_after_a_refusal_holds_all_that_would_meet_it() -> None:
    line = Line(view("ours", 200))
    line.join("refused", 1_000, patience_s=90, asked_at=1.0)  # so less than 1,200 of ours go in
    line.join("alike", 1_000)
    line.join("small", 900)
    assert line.admit() == ["small"]
    line.batches.append(view("small", 900))
    assert line.look() == []
    line.batches = []
    assert line.look(31) == ["refused"]  # after its patience, and first in line


def test_at_the_wall_one_tries_for_all_and_each_that_is_admitted_moves_it() -> None:
    line = Line(view("ours", 1_000))
    line.join("a2", 300, patience_s=60, asked_at=1.0, holder="a")  # less than 1,300 of ours go in
    for key in "bcd":
        line.join(key, 300)
    line.join("e", 350)
    assert line.look(59) == []
    assert line.look(2) == ["a2"]
    line.batches.append(view("a2", 300, "validating"))
    assert line.look() == []
    line.batches[-1] = view("a2", 300)
    assert line.look() == ["b"]  # 1,300 went in, perhaps 1,600 do
    line.batches.append(view("b", 300))
    assert line.look() == ["c"]
    line.join("c2", 300, patience_s=60, asked_at=2.0, holder="c")  # but not 1,900
    assert line.look(59) == []
    line.batches = [view("ours", 1_000)]
    assert line.look() == ["c2", "d"]  # below the wall nothing is in the way


def test_a_try_that_came_to_nothing_does_not_stop_the_next() -> None:
    line = Line(view("ours", 1_000))
    line.join("a2", 300, patience_s=60, holder="a")
    line.join("b", 300)
    tried = line.look(61)
    assert tried == ["a2"]  # its task dies, no batch is ever seen
    assert line.look(RESERVED_S - 1) == []
    assert line.look(2) == ["b"]


def test_a_wall_is_forgotten_with_the_line() -> None:
    line = Line()
    refused = line.join("a2", 1_000, patience_s=60)
    line.room.leave(refused, taken=False)
    line.join("b", 1_000)
    line.join("c", 1_000)
    assert line.admit() == ["b", "c"]


def test_strangers_who_keep_the_queue_full_cost_one_refusal_per_patience() -> None:
    """Twenty shards before a queue that others fill for three hours: nobody runs into it but one at a time."""
    line = Line()
    patience, tries = dict.fromkeys(range(20), 0), 0
    for shard in patience:
        line.join(f"{shard}.1", 100, holder=str(shard), asked_at=line.now + shard)
    started = line.now
    while line.now < started + 3 * 3_600:
        for key in line.look():
            tries += 1
            shard = int(key.partition(".")[0])
            patience[shard] += 1
            line.join(
                f"{shard}.{patience[shard] + 1}",
                100,
                holder=str(shard),
                asked_at=started + shard,
                patience_s=min(60 * 2 ** (patience[shard] - 1), 900),
            )
    assert tries <= 20 + 4 + 3 * 4  # all at once before anything was known, a doubling, four an hour


def test_a_waiter_is_told_what_it_waits_for() -> None:
    line = Line(view("ours", 1_600))
    for key in "abc":
        line.join(key, 1_900)
    last = line.join("d", 1_900)
    assert (
        line.room.describe(last, line.now)
        == "needs 1,900 tokens, 400 of 2,000 free, 3 shards before this one"
    )
    late = line.join("e", 5, patience_s=120, asked_at=1.0)
    assert "refused before, asks again in 2 min at the earliest" in line.room.describe(late, line.now)


@given(st.lists(st.tuples(st.integers(1, 2_000), st.integers(1, 5), st.booleans()), min_size=1, max_size=25))
def test_the_queue_is_never_overfilled_and_everybody_goes(shards: list[tuple[int, int, bool]]) -> None:
    """Batches of some minutes each; whether a list shows a new one at once or a look later is drawn."""
    line = Line()
    live: dict[str, tuple[int, float, bool]] = {}
    for number, (tokens, _, _) in enumerate(shards):
        line.join(str(number), tokens)
    gone = 0
    for _ in range(2_000):
        line.batches = [view(key, live[key][0]) for key in live if not live[key][2]]
        live = {key: (tokens, end, False) for key, (tokens, end, _) in live.items()}
        for key in line.look():
            tokens, minutes, lags = shards[int(key)]
            live[key] = (tokens, line.now + 60 * minutes + 90 * lags, lags)
            gone += 1
        assert sum(tokens for tokens, _, _ in live.values()) <= 2_000
        live = {key: batch for key, batch in live.items() if batch[1] > line.now}
        if gone == len(shards):
            return
    pytest.fail("somebody never went")
