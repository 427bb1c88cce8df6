"""Counting in processes of their own: the same numbers, no credentials, no hang, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from airflow_openai_batch.errors import WorkerDiedError
from airflow_openai_batch.planning.chunk_counter import ChunkCounter, CountRules
from airflow_openai_batch.planning.chunks import Chunk, SourceChunk
from airflow_openai_batch.planning.count_pool import CountPool
from airflow_openai_batch.planning.split import Counting
from fixtures.split_input import read_rejected, request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.planning.chunk_tally import ChunkTally

RULES = CountRules(mode="exact", max_tokens=1_000, max_line_bytes=10_000, max_embedding_inputs=50_000)


def chunks(count: int, lines: int = 50) -> Iterator[SourceChunk]:
    offset = 0
    for number in range(count):
        text = [request_line(f"{number}-{line}", f"chunk {number} " * (line + 1)) for line in range(lines)]
        text[3] = "bad"
        data = "".join(f"{line}\n" for line in text).encode()
        yield SourceChunk(0, Chunk(offset, data), 0)
        offset += len(data)


def children() -> set[int]:
    below = psutil.Process().children()
    return {child.pid for child in below if any("count_worker" in each for each in child.cmdline())}


def numbers(tally: ChunkTally) -> tuple[object, ...]:
    """All but the hashes, which differ from process to process."""
    rejections = [(each.index, each.code) for each in tally.rejections]
    return tally.lengths, tally.tokens, tally.keys, tally.flags, tally.inputs, tally.names, rejections


def test_workers_tally_as_this_process_does_and_in_order() -> None:
    counter = ChunkCounter(RULES)
    expected = [(item, numbers(counter.count(item.chunk.data))) for item in chunks(12)]
    with CountPool(RULES, 3, ["in.jsonl"]) as pool:
        assert [(item, numbers(tally)) for item, tally in pool(chunks(12))] == expected
    assert not children()


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_chunks_of_any_size_follow_each_other_through_the_same_memory(
    monkeypatch: pytest.MonkeyPatch, *, has_memory_files: bool
) -> None:
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create")
    counter, sizes = ChunkCounter(RULES), (1, 20_000, 3, 20_001, 2, 1, 20_002)
    items = [next(chunks(1, lines=4)), *(long_chunk(lines) for lines in sizes)]
    expected = [numbers(counter.count(item.chunk.data)) for item in items]
    with CountPool(RULES, 1, ["in.jsonl"]) as pool:
        assert [numbers(tally) for _, tally in pool(items)] == expected


def long_chunk(lines: int) -> SourceChunk:
    """20,000 lines are 5 MB."""
    text = "".join(f"{request_line(f'{lines}-{line}', 'x' * 150)}\n" for line in range(lines))
    return SourceChunk(0, Chunk(0, text.encode()), 0)


@pytest.mark.long
def test_duplicates_are_found_over_the_chunks_of_all_workers(tmp_path: Path) -> None:
    """Hashes of ids are compared between processes; Python's are seeded for each."""
    lines = [request_line(str(number % 5_990), "x" * 1_000) for number in range(6_000)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    options = {"on_bad_line": "reject", "max_tokens": 100_000}
    alone = split(source, tmp_path / "alone", **options).plan
    for workers in (1, 2):
        job = tmp_path / str(workers)
        plan = split(source, job, counting=Counting(workers=workers), **options).plan
        assert (plan.shards, plan.fingerprint) == (alone.shards, alone.fingerprint)
        assert [line["line_number"] for line in read_rejected(job)] == list(range(5_991, 6_001))


@pytest.mark.long
def test_a_faster_counter_is_used_where_it_agrees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [request_line(str(number), f"wörd {number} " * 99) for number in range(3_000)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    expected = split(source, tmp_path / "alone", max_tokens=100_000).plan.shards
    for counter in ("tiktoken", "auto"):
        counting = Counting(workers=2, counter=counter)
        assert (
            split(source, tmp_path / counter, max_tokens=100_000, counting=counting).plan.shards == expected
        )
    assert not caplog.records


BROKEN_TOKTOK = ["def batch_count(texts, encoding, threads=0):", "    return [1 for text in texts]"]


def test_a_faster_counter_that_counts_otherwise_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [request_line(str(number), "some words " * 99) for number in range(3_000)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    expected = split(source, tmp_path / "alone", max_tokens=100_000).plan.shards
    broken = write_lines(tmp_path / "broken" / "toktok.py", BROKEN_TOKTOK)
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    counting = Counting(workers=2, counter="toktok")
    assert split(source, tmp_path / "job", max_tokens=100_000, counting=counting).plan.shards == expected
    assert [record.message for record in caplog.records] == [
        "toktok counts other than tiktoken on a sample of this input; tiktoken counts instead."
    ]
    assert not children()


def test_a_line_too_long_to_be_kept_never_reaches_a_worker(tmp_path: Path) -> None:
    lines = [request_line("a"), request_line("b", "x" * 5_000_000), request_line("c")]
    source = write_lines(tmp_path / "in.jsonl", lines)
    counting = Counting(workers=1)
    plan = split(source, tmp_path / "job", on_bad_line="reject", max_bytes=1_000, counting=counting).plan
    assert (plan.counts.requests, plan.counts.rejected) == (2, 1)


def test_a_killed_worker_is_an_error_with_its_place_and_no_hang() -> None:
    def feed() -> Iterator[SourceChunk]:
        for number, item in enumerate(chunks(200)):
            if number == 20:
                for pid in children():
                    os.kill(pid, signal.SIGKILL)
            yield item

    began = time.monotonic()
    with (
        pytest.raises(
            WorkerDiedError, match=r"in\.jsonl, bytes [\d,]+ to [\d,]+: .* SIGKILL \(out of memory\?\)"
        ),
        CountPool(RULES, 2, ["in.jsonl"]) as pool,
    ):
        for _ in pool(feed()):
            pass
    assert time.monotonic() - began < 20
    assert not WorkerDiedError.permanent
    assert not children()


def test_one_dead_of_two_is_an_error_too() -> None:
    def feed() -> Iterator[SourceChunk]:
        for number, item in enumerate(chunks(200)):
            if number == 20:
                os.kill(min(children()), signal.SIGKILL)
            yield item

    with pytest.raises(WorkerDiedError), CountPool(RULES, 2, ["in.jsonl"]) as pool:
        for _ in pool(feed()):
            pass


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = write_lines(tmp_path / "msgspec.py", ["raise ImportError('this msgspec is broken')"])
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with (
        pytest.raises(WorkerDiedError, match=r"(?s)ended with exit code 1: .*this msgspec is broken"),
        CountPool(RULES, 1, ["in.jsonl"]) as pool,
    ):
        list(pool(chunks(1)))


def test_an_error_here_ends_the_workers() -> None:
    threads = threading.active_count()

    def interrupted() -> Iterator[SourceChunk]:
        yield from chunks(20)
        raise KeyboardInterrupt

    with CountPool(RULES, 2, ["in.jsonl"]) as pool, pytest.raises(KeyboardInterrupt):
        list(pool(interrupted()))
    assert not children()
    assert threading.active_count() == threads


def test_workers_know_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://user:db-secret@db")
    with CountPool(RULES, 1, ["in.jsonl"]) as pool:
        list(pool(chunks(1)))
        (worker,) = children()
        environment = Path(f"/proc/{worker}/environ").read_bytes()
        session = os.getsid(worker)
    assert b"secret" not in environment
    assert session != os.getsid(0), "a signal to the task's process group must not reach it"


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and " Z " not in stat.read_text()


PARENT = """
import os, sys, time
from airflow_openai_batch.planning.count_pool import CountPool
sys.path.insert(0, sys.argv[1])
from planning.test_count_pool import RULES, chunks, children
pool = CountPool(RULES, 2, ["in.jsonl"]).__enter__()
next(pool(chunks(50)))
print(*children(), flush=True)
time.sleep(60)
"""


def test_workers_end_when_the_task_is_killed() -> None:
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, str(Path(tests).parent / "include")])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tests],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive the task"
        time.sleep(0.05)
