"""Faults of whole batches."""

from __future__ import annotations

import pytest

from airflow_openai_batch.testing.refusals import BATCH_MESSAGES, ApiError
from emulator.lines import errors, outputs, request_lines, start_batch, still_emulator


def test_an_expired_batch_has_its_done_part() -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "expired", "done": 7, "total": 10})
    ids = [start_batch(emulator, request_lines(20)) for _ in range(2)]
    assert [emulator.get_batch(batch_id)["status"] for batch_id in ids] == ["expired", "completed"]
    done = {line["custom_id"] for line in outputs(emulator, ids[0])}
    left = {line["custom_id"] for line in errors(emulator, ids[0])}
    assert (len(done), len(left), len(done | left)) == (14, 6, 20)


def test_what_did_not_run_can_be_missing_altogether() -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "expired", "done": 0, "unfinished": "missing", "empty_error_file_id": True})
    batch = emulator.get_batch(start_batch(emulator, request_lines(3)))
    assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == ("expired", None, "")
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 0}


def test_someone_cancels_a_batch() -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "cancelled", "done": 2, "cancelling_s": 60})
    batch_id = start_batch(emulator, request_lines(5))
    assert emulator.get_batch(batch_id)["status"] == "cancelling"
    emulator.clock.advance(60)  # type: ignore[attr-defined]
    assert emulator.get_batch(batch_id)["status"] == "cancelled"
    assert len(outputs(emulator, batch_id)) == 2


@pytest.mark.parametrize("code", sorted(BATCH_MESSAGES))
def test_a_batch_fails_with_each_error_of_the_table(code: str) -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "failed", "code": code, "limit": 90_000, "line_number": 4})
    batch = emulator.get_batch(start_batch(emulator, request_lines(2)))
    assert batch["status"] == "failed"
    error = batch["errors"]["data"][0]
    assert error["message"]
    assert "{" not in error["message"]
    if code.endswith("limit_exceeded"):
        assert "Limit: 90,000 enqueued" in error["message"]
        assert "gpt-4o-mini" in error["message"]
    assert not emulator.books.billed


@pytest.mark.parametrize(("status", "done"), [("validating", 0), ("in_progress", 3), ("finalizing", 3)])
def test_a_stuck_batch_stays_until_it_is_cancelled(status: str, done: int) -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": status, "done": 3})
    batch_id = start_batch(emulator, request_lines(5))
    emulator.clock.advance(3 * 86_400)  # type: ignore[attr-defined]
    assert emulator.get_batch(batch_id)["status"] == status
    emulator.cancel_batch(batch_id)
    assert emulator.get_batch(batch_id)["status"] == "cancelled"
    assert len(outputs(emulator, batch_id)) == done
    assert emulator.books.billed["batch"] == done


def test_the_batch_is_chosen_by_what_it_is() -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "failed", "code": "invalid_request", "shard": 1, "send": 2})
    emulator.script.add({"batch": "expired", "nth": 4})
    metadata = [{"shard": "1", "send": "1"}, {"shard": "0", "send": "2"}, {"shard": "1", "send": "2"}, {}]
    ids = [start_batch(emulator, request_lines(2), **pairs) for pairs in metadata]
    found = [emulator.get_batch(batch_id)["status"] for batch_id in ids]
    assert found == ["completed", "completed", "failed", "expired"]


def test_results_lag_behind_the_status() -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "completed", "file_lag": 2})
    output_id = emulator.get_batch(start_batch(emulator, request_lines(2)))["output_file_id"]
    for _ in range(2):
        with pytest.raises(ApiError, match="No such File object"):
            emulator.read_content(output_id)
    assert emulator.read_content(output_id).count(b"\n") == 2


def test_optional_fields_can_be_absent() -> None:
    emulator = still_emulator()
    emulator.script.add(
        {"batch": "completed", "omit": ["request_counts", "usage", "model"], "hide_output_file": True}
    )
    batch = emulator.get_batch(start_batch(emulator, request_lines(2)))
    assert batch["status"] == "completed"
    names = ("request_counts", "usage", "model", "output_file_id")
    assert [batch[name] for name in names] == [None, None, None, None]


def test_a_batch_takes_as_long_as_the_script_says() -> None:
    emulator = still_emulator()
    emulator.script.add({"batch": "completed", "takes_s": 60, "list_lag_s": 5})
    batch_id = start_batch(emulator, request_lines(2))
    emulator.clock.advance(59)  # type: ignore[attr-defined]
    assert emulator.get_batch(batch_id)["status"] == "in_progress"
    emulator.clock.advance(1)  # type: ignore[attr-defined]
    assert emulator.get_batch(batch_id)["status"] == "completed"
