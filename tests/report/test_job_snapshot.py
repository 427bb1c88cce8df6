"""What a page shows of a job directory: right after each event, and cheap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import Event, ShardLedger
from airflow_openai_batch.job.plan import Plan, ShardLimits, job_key
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.report.progress import ProgressReader
from airflow_openai_batch.report.report import build_report
from airflow_openai_batch.report.snapshot import MOST_EVENTS, JobSnapshot, SnapshotReader
from airflow_openai_batch.results.landing_summary import ShardSummary
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.job import chat_line


class Planned:
    """A job of shards of one request."""

    def __init__(self, folder: Path, shards: int) -> None:
        (folder / "in.jsonl").write_text("".join(f"{chat_line(str(n))}\n" for n in range(shards)))
        self.output = resolve_plain(f"file://{folder}/job")
        self.plan: Plan = split_job(
            str(folder / "in.jsonl"),
            self.output,
            resolve=resolve_plain,
            limits=ShardLimits(max_requests=1),
            now=1.0,
        ).plan
        self.reader = SnapshotReader(self.output)

    def note(self, shard: int, kind: Any, **fields: Any) -> None:
        event = Event(kind=kind, send=1, at=2.0, plan=self.plan.name, **fields)
        ShardLedger(self.output.child(directory.state_folder(shard))).append(event)

    def read(self) -> JobSnapshot:
        return self.reader.read()


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    return Planned(tmp_path, 3)


def test_a_shard_goes_through_its_states(planned: Planned) -> None:
    seen = [planned.read().shards[1].words.state]
    for kind in ("uploaded", "intent", "created", "ended", "landed", "done", "cleaned", "reopened"):
        planned.note(1, kind)
        seen.append(planned.read().shards[1].words.state)
    assert seen == [
        "waiting", "sending", "sending", "running", "landing", "landing", "done", "done", "waiting",
    ]  # fmt: skip
    assert [shard.words.state for shard in planned.read().shards] == ["waiting"] * 3


def test_a_refusal_that_passes_is_waited_out_and_another_is_a_failure(planned: Planned) -> None:
    planned.note(
        0, "refused", status="queue_full", code="token_limit_exceeded", message="Limit: 90,000", limit=90_000
    )
    planned.note(1, "refused", status="permanent", code="invalid_json", message="line 3")
    planned.note(2, "stopped", message="five sends brought nothing")
    shards = planned.read().shards
    assert [shard.words.state for shard in shards] == ["waiting", "failed", "failed"]
    assert [shard.problem for shard in shards] == [
        "token_limit_exceeded Limit: 90,000",
        "invalid_json line 3",
        "five sends brought nothing",
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [("busy", "waiting"), ("file_missing", "waiting"), ("unsure", "waiting"), (None, "failed")],
)
def test_a_call_that_is_made_again_by_itself_is_no_failure(
    planned: Planned, status: str | None, state: str
) -> None:
    planned.note(1, "declined", status=status, code="rate_limit_exceeded", message="come back later")
    assert planned.read().shards[1].words == ("refused", state)


@pytest.mark.parametrize("late", ["duplicate", "declined", "stopped"])
def test_what_another_task_writes_behind_the_end_of_a_shard_opens_it_no_more(
    planned: Planned, late: Any
) -> None:
    """As the report, the command line and the machine have it."""
    for shard in range(3):
        planned.note(shard, "landed")
        planned.note(shard, "done", summary={"shard": shard})
        planned.note(shard, late)
    assert planned.read().is_done
    assert {shard.words for shard in planned.read().shards} == {("done", "done")}
    progress = ProgressReader(planned.plan, planned.output).read()
    assert (progress.complete, progress.shards) == (True, {"done": 3})


def test_batches_are_known_by_the_keys_of_all_sends_so_far(planned: Planned) -> None:
    planned.note(2, "created")
    planned.note(2, "refused")
    keys, plan = planned.read().keys, planned.plan
    for send in (1, 2):
        key = job_key(planned.output.uri, plan.fingerprint, plan.generation, 2, send)
        assert keys[key] == (2, send)


def test_what_was_paid_is_read_from_names_and_half_the_price_is_saved(planned: Planned) -> None:
    planned.note(0, "done")
    planned.note(1, "realtime")
    for name in ("00000.1.paid.2000000.1.100.50.json", "00001.1.paid.500000.1.100.50.json"):
        planned.output.child(f"{directory.SPENT}/{name}").write_bytes(b"")
    snapshot = planned.read()
    assert snapshot.spent.paid_usd == pytest.approx(2.5)
    assert snapshot.saving_usd() == pytest.approx(2.0)  # nothing is saved in real time


def test_a_directory_without_a_plan_says_so(planned: Planned) -> None:
    planned.read()
    planned.output.child(directory.PLAN).remove()
    with pytest.raises(JobError, match=r"plan.json is not there"):
        planned.read()


def test_a_restarted_job_is_read_anew(planned: Planned, tmp_path: Path) -> None:
    assert len(planned.read().shards) == 3
    planned.output.child(directory.PLAN).remove()
    Planned(tmp_path, 1)
    assert len(planned.read().shards) == 1


def test_failed_rows_are_there_where_the_file_has_any(planned: Planned) -> None:
    place = planned.output.child(directory.FAILED)
    assert not planned.read().has_failed_rows
    place.write_bytes(b"")
    assert not planned.read().has_failed_rows
    place.write_bytes(json.dumps({"custom_id": "a"}).encode())
    assert planned.read().has_failed_rows


def test_reading_does_not_grow_with_the_shards(tmp_path: Path) -> None:
    """Names alone, but for what was refused; of that a part at a time."""
    planned = Planned(tmp_path, 2 * MOST_EVENTS)
    for shard in range(2 * MOST_EVENTS):
        planned.note(shard, "refused" if shard % 4 else "created")
    opened = Counting()
    reader = SnapshotReader(Location(opened, planned.output.path, planned.output.uri))
    for most in (MOST_EVENTS + 2, MOST_EVENTS // 2 + 1, 1):  # the begin of the plan each time, all of it once
        opened.reads = 0
        reader.read()
        assert opened.reads == most


def test_a_look_at_what_has_not_changed_reads_the_begin_of_plan_and_report(tmp_path: Path) -> None:
    """A page that stays open looks every few seconds."""
    planned = Planned(tmp_path, 300)
    summaries = [ShardSummary(shard=shard) for shard in range(300)]
    report = build_report(planned.plan, summaries, job_uri=planned.output.uri, created_at=3.0)
    planned.output.child(directory.REPORT_JSON).write_bytes(report.to_json())
    opened = Counting()
    reader = SnapshotReader(Location(opened, planned.output.path, planned.output.uri))
    assert reader.read().report == report
    opened.bytes_read = 0
    assert reader.read().report == report
    assert opened.bytes_read < 40_000
    later = build_report(planned.plan, summaries, job_uri=planned.output.uri, created_at=4.0)
    planned.output.child(directory.REPORT_JSON).write_bytes(later.to_json())
    assert reader.read().report == later


class Counting(fsspec.get_filesystem_class("file")):  # type: ignore[misc]
    """A disk that counts what is read, and is read as an object store is."""

    protocol = "counted"
    cachable = False
    reads = bytes_read = 0

    def cat_file(self, path: str, *args: Any, **how: Any) -> Any:
        data = super().cat_file(path, *args, **how)
        self.reads += 1
        self.bytes_read += len(data)
        return data
