"""Whoever may write into a folder may put something there that never ends, or that is larger than any memory: nobody
waits for the one, and no API server reads the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.errors import ConfigError, InputError, JobError, LedgerError
from airflow_openai_batch.job.directory import read_plan
from airflow_openai_batch.job.ledger import Event, ShardLedger
from airflow_openai_batch.job.open_plan import open_plan
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.operators.task.prompt_files import load_prompt
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.plugin.directories import Directory
from airflow_openai_batch.recipes.job_folder import read_note
from airflow_openai_batch.recipes.qdrant.document_files import find_documents, read_files
from airflow_openai_batch.report.snapshot import SnapshotReader
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.counted_store import CountedStore
from fixtures.job import chat_line

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore

PIPE = "is a device or a pipe"


def test_a_plan_that_is_a_pipe_holds_up_no_page(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    page = Directory(str(tmp_path))
    page.look()
    assert page.error is not None
    assert PIPE in page.error


def test_nor_a_worker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(InputError, match=PIPE):
        open_plan(resolve_plain(str(tmp_path)))


@pytest.mark.parametrize("named", ["{}/pipe.yaml", "file://{}/pipe.yaml"])
def test_a_prompt_that_is_a_pipe_is_refused(tmp_path: Path, named: str) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises((ConfigError, InputError)):
        load_prompt(named.format(tmp_path), {}, None, Giver.CODE)


def test_a_document_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match=PIPE):
        list(read_files(*find_documents(str(tmp_path / "pipe.txt"))))


@pytest.mark.parametrize("name", ["plan.json", "report.json"])
def test_the_page_reads_nothing_larger_than_its_memory(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.jsonl").write_text(f"{chat_line('1')}\n")
    job = resolve_plain(f"file://{tmp_path}/job")
    split_job(str(tmp_path / "in.jsonl"), job, resolve=resolve_plain, limits=ShardLimits(), now=1.0)
    with (tmp_path / "job" / name).open("wb") as file:
        file.truncate(2**33)  # of which a disk holds nothing
    with pytest.raises(JobError, match="8,589,934,592 bytes"):
        SnapshotReader(job).read()


def _stretch(place: Path) -> None:
    """To 8 GiB, of which a disk holds nothing."""
    with place.open("r+b") as file:
        file.truncate(2**33)


def _split(folder: Path) -> Location:
    (folder / "in.jsonl").write_text(f"{chat_line('1')}\n")
    job = resolve_plain(f"file://{folder}/job")
    split_job(str(folder / "in.jsonl"), job, resolve=resolve_plain, limits=ShardLimits(), now=1.0)
    return job


def test_an_event_larger_than_any_is_none_and_the_page_shows_the_rest(tmp_path: Path) -> None:
    job = _split(tmp_path)
    ledger = ShardLedger(job.child("state/00000"))
    ledger.append(Event(kind="refused", send=1, at=1.0))
    _stretch(tmp_path / "job/state/00000/0001-refused.json")
    assert SnapshotReader(job).read().shards[0].told is None
    with pytest.raises(LedgerError, match=r"more than 16,777,216 bytes.*Nothing was sent"):
        ShardLedger(job.child("state/00000")).read()


def test_a_plan_larger_than_any_is_refused_by_workers(tmp_path: Path) -> None:
    job = _split(tmp_path)
    (tmp_path / "job/plan.json").write_bytes(b" " * 100_000)
    _stretch(tmp_path / "job/plan.json")
    for read in (open_plan, read_plan):
        with pytest.raises(JobError, match=r"plan.json has more than 1,073,741,824 bytes"):
            read(job)


def test_nor_does_its_head_say_how_much_is_read(tmp_path: Path) -> None:
    job = _split(tmp_path)
    place = tmp_path / "job/plan.json"
    head = place.read_bytes()
    place.write_bytes((b'{"head_bytes":%10d,' % 2**33) + head.partition(b",")[2].ljust(100_000))
    _stretch(place)
    with pytest.raises(JobError, match="its head has 8,589,934,592 bytes"):
        open_plan(job)


class Note(msgspec.Struct):
    dag_id: str


def test_a_note_larger_than_any_is_none(tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_bytes(b"{")
    _stretch(tmp_path / "owner.json")
    with pytest.raises(JobError, match=r"owner.json has more than 67,108,864 bytes"):
        read_note(resolve_plain(str(tmp_path / "owner.json")), Note)


def test_of_an_object_no_more_is_fetched_than_was_asked_for(s3: ObjectStore) -> None:
    place = Location(s3.filesystem(), f"{s3.bucket}/large.txt", s3.uri("large.txt"))
    place.write_bytes(b"a" * 1_000)
    assert place.read_at_most(10) == b"a" * 11
    assert place.read_at_most(1_000) == place.read_at_most(5_000) == b"a" * 1_000
    empty = place.at(f"{s3.bucket}/empty.txt", s3.uri("empty.txt"))
    empty.write_bytes(b"")
    assert empty.read_at_most(10) == b""
    with pytest.raises(FileNotFoundError):
        place.at(f"{s3.bucket}/none.txt", s3.uri("none.txt")).read_at_most(10)


def test_that_is_one_request(tmp_path: Path) -> None:
    store = CountedStore()
    place = store.resolve("counted://folder/large.txt")
    place.write_bytes(b"a" * 1_000)
    store.reads.clear()
    store.bytes_read.clear()
    place.read_at_most(10)
    assert dict(store.reads) == {"folder/large.txt": 1}
    assert dict(store.bytes_read) == {"folder/large.txt": 11}
