"""What happens when, by a clock that only the test moves."""

from __future__ import annotations

import pytest

from airflow_openai_batch.testing import Clock, Emulator
from airflow_openai_batch.testing.refusals import ApiError
from emulator.lines import CHAT, errors, outputs, request_lines, start_batch, still_emulator

DAY = 86_400


def advance(emulator: Emulator, seconds: float) -> None:
    assert isinstance(emulator.clock, Clock)
    emulator.clock.advance(seconds)


def test_a_batch_passes_through_its_states_in_its_time() -> None:
    emulator = still_emulator(validating_s=10, in_progress_s=100, finalizing_s=5)
    batch_id = start_batch(emulator, request_lines(10))
    seen = []
    for seconds in (0, 10, 50, 50, 5):
        advance(emulator, seconds)
        batch = emulator.get_batch(batch_id)
        seen.append((batch["status"], batch["request_counts"]["completed"]))
    assert seen == [
        ("validating", 0),
        ("in_progress", 0),
        ("in_progress", 5),
        ("finalizing", 10),  # reads 100% although no file is there yet
        ("completed", 10),
    ]
    stamps = ("created_at", "in_progress_at", "finalizing_at", "completed_at")
    assert [batch[name] - 1_000_000 for name in stamps] == [0, 10, 110, 115]


def test_one_long_jump_gives_the_same_as_many_short_ones() -> None:
    def run(steps: list[float]) -> dict[str, object]:
        emulator = still_emulator(validating_s=7, in_progress_s=60, queue_limits={"gpt-4o-mini": 250})
        ids = []
        for _ in range(3):
            ids.append(start_batch(emulator, request_lines(20)))
            advance(emulator, 1)
        for step in steps:
            advance(emulator, step)
            emulator.batches.settle()
        return {batch_id: emulator.get_batch(batch_id) for batch_id in ids}

    assert run([1_000.0]) == run([1.0] * 1_000)


def test_what_takes_longer_than_a_day_expires_with_its_part() -> None:
    emulator = still_emulator(in_progress_s=2 * DAY)
    batch_id = start_batch(emulator, request_lines(10))
    advance(emulator, DAY - 1)
    assert emulator.get_batch(batch_id)["status"] == "in_progress"
    advance(emulator, 1)
    batch = emulator.get_batch(batch_id)
    assert batch["status"] == "expired"
    assert batch["request_counts"] == {"total": 10, "completed": 5, "failed": 0}
    assert len(outputs(emulator, batch_id)) == 5
    assert [line["error"]["code"] for line in errors(emulator, batch_id)] == ["batch_expired"] * 5
    assert emulator.books.billed["batch"] == 5


def test_a_full_queue_refuses_after_the_create_and_has_room_when_batches_end() -> None:
    emulator = still_emulator(in_progress_s=60, queue_limits={"gpt-4o-mini": 250})
    first = start_batch(emulator, request_lines(20))
    tokens = emulator.batches.get(first).input_tokens
    assert 125 < tokens < 250, "one fits, two do not"
    second = emulator.get_batch(start_batch(emulator, request_lines(20)))
    assert second["status"] == "failed"
    error = second["errors"]["data"][0]
    assert error["code"] == "token_limit_exceeded"
    assert (
        "Enqueued token limit reached for gpt-4o-mini in organization org-emulator. Limit: 250"
        in error["message"]
    )
    advance(emulator, 60)
    third = start_batch(emulator, request_lines(20))
    assert emulator.get_batch(third)["status"] == "in_progress"
    assert emulator.books.peak_enqueued["gpt-4o-mini"] == tokens
    assert emulator.books.refusals == {"token_limit_exceeded": 1}


def test_strangers_take_room_in_the_queue() -> None:
    emulator = still_emulator(queue_limits={"gpt-4o-mini": 250})
    emulator.occupy_queue("gpt-4o-mini", tokens=200)
    assert emulator.get_batch(start_batch(emulator, request_lines(20)))["status"] == "failed"
    emulator.occupy_queue("gpt-4o-mini", tokens=-200)
    assert emulator.get_batch(start_batch(emulator, request_lines(20)))["status"] == "completed"


def test_the_queue_counts_requests_too_and_snapshots_share_it() -> None:
    emulator = still_emulator(in_progress_s=60, queue_request_limits={"gpt-4o-mini": 30})
    emulator.get_batch(start_batch(emulator, request_lines(20)))
    dated = request_lines(20).replace(b"gpt-4o-mini", b"gpt-4o-mini-2024-07-18")
    error = emulator.get_batch(start_batch(emulator, dated))["errors"]["data"][0]
    assert error["code"] is None
    assert "Limit: 30 enqueued requests" in error["message"]


def test_a_cancelled_batch_gives_its_room_back() -> None:
    emulator = still_emulator(in_progress_s=60)
    batch_id = start_batch(emulator, request_lines(20))
    emulator.get_batch(batch_id)
    assert emulator.books.enqueued["gpt-4o-mini"] > 0
    emulator.cancel_batch(batch_id)
    emulator.get_batch(batch_id)
    assert emulator.books.enqueued["gpt-4o-mini"] == 0


def test_lists_lag_behind_while_a_batch_can_be_retrieved() -> None:
    emulator = still_emulator(list_lag_s=30)
    batch_id = start_batch(emulator, request_lines(1))
    assert emulator.list_batches()["data"] == []
    assert emulator.get_batch(batch_id)["id"] == batch_id
    advance(emulator, 30)
    assert [batch["id"] for batch in emulator.list_batches()["data"]] == [batch_id]


def test_only_so_many_batches_are_created_in_an_hour() -> None:
    emulator = still_emulator(creates_per_hour=3)
    for _ in range(3):
        start_batch(emulator, request_lines(1))
    advance(emulator, 3_000)
    with pytest.raises(ApiError) as caught:
        start_batch(emulator, request_lines(1))
    assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "600")
    advance(emulator, 600)
    start_batch(emulator, request_lines(1))


def test_files_expire_when_they_were_told_to() -> None:
    emulator = still_emulator()
    file = emulator.upload(request_lines(1), expires_after={"anchor": "created_at", "seconds": 3_600})
    batch = emulator.create_batch(
        {
            "input_file_id": file["id"],
            "endpoint": CHAT,
            "completion_window": "24h",
            "output_expires_after": {"anchor": "created_at", "seconds": 7_200},
        }
    )
    output_id = emulator.get_batch(batch["id"])["output_file_id"]
    advance(emulator, 3_600)
    assert [found["id"] for found in emulator.list_files()["data"]] == [output_id]
    advance(emulator, 3_600)
    with pytest.raises(ApiError, match="No such File object"):
        emulator.read_content(output_id)


def test_a_clock_with_speed_runs_ahead_of_the_real_one() -> None:
    clock = Clock(speed=100_000, start=0)
    while clock.now() < 1_000:
        pass
    clock.run(speed=0)
    stopped = clock.now()
    assert stopped == clock.now()
    assert clock.advance(10) == stopped + 10
