"""A shard read back: as an upload and as lines, and what happens where the input is not what was split."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_openai_batch.errors import InputChangedError, InputError
from airflow_openai_batch.job.shard_reader import ShardReader
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan

LINES = [request_line(str(number), "x" * 3_000) for number in range(2_000)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = write_lines(tmp_path / "in.jsonl", LINES)
    path.write_bytes(path.read_bytes()[:-1])  # no newline at the end
    return path


def reader(plan: Plan, job: Path, shard: int = 0) -> ShardReader:
    return ShardReader(plan.sources, plan.shards[shard], resolve_plain(str(job)), resolve_plain)


def change_without_a_trace(path: Path, old: str, new: str) -> None:
    """Same size, same time."""
    stat = path.stat()
    path.write_text(path.read_text().replace(old, new, 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_an_upload_is_read_as_clients_do(source: Path, tmp_path: Path) -> None:
    plan = split(source, tmp_path / "job", max_requests=1_500).plan
    for number, lines in enumerate((LINES[:1_500], LINES[1_500:])):
        with reader(plan, tmp_path / "job", number).open_upload() as stream:
            request = httpx.Request("POST", "http://127.0.0.1/v1/files", files={"file": ("a.jsonl", stream)})
            sent = b"".join(request.stream)  # type: ignore[arg-type]
            assert int(request.headers["content-length"]) == len(sent)
            expected = "".join(f"{line}\n" for line in lines).encode()
            assert expected in sent
            assert stream.size == len(expected)
            stream.seek(0)  # a retry
            assert stream.read(10) == expected[:10]
            stream.seek(0)
            parts = list(iter(lambda: stream.read(65_536), b""))
            assert b"".join(parts) == expected
            assert max(map(len, parts)) <= 65_536


def test_seeks_elsewhere_are_refused(source: Path, tmp_path: Path) -> None:
    """Bytes from the middle could not be checked."""
    stream = reader(split(source, tmp_path / "job").plan, tmp_path / "job").open_upload()
    stream.read(100)
    assert stream.seek(0, io.SEEK_CUR) == 100
    assert stream.seek(0, io.SEEK_END) == stream.size
    assert stream.read(5) == b""
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(50)


def test_a_change_is_noticed_before_the_last_bytes_are_handed_out(source: Path, tmp_path: Path) -> None:
    plan = split(source, tmp_path / "job").plan
    change_without_a_trace(source, '"1500"', '"1x00"')
    stream = reader(plan, tmp_path / "job").open_upload()
    received: list[bytes] = []
    with pytest.raises(
        InputChangedError, match=r"the input changed since it was split .*on_existing=restart"
    ):
        received.extend(iter(lambda: stream.read(65_536), b""))
    assert sum(map(len, received)) < plan.shards[0].bytes
    assert stream.problem is not None
    with pytest.raises(InputChangedError, match="its SHA-256 differs"):
        list(reader(plan, tmp_path / "job").lines())


def test_another_size_is_noticed_before_the_first_byte(source: Path, tmp_path: Path) -> None:
    plan = split(source, tmp_path / "job").plan
    with source.open("a") as file:
        file.write("\n")
    with pytest.raises(InputChangedError, match=r"in\.jsonl: the input changed since it was split"):
        reader(plan, tmp_path / "job").open_upload().read(1)
    with pytest.raises(InputChangedError):
        next(reader(plan, tmp_path / "job").lines())


def test_a_newer_file_is_checked_as_a_whole_before_the_first_line(source: Path, tmp_path: Path) -> None:
    plan = split(source, tmp_path / "job").plan
    change_without_a_trace(source, '"1500"', '"1x00"')
    os.utime(source)
    with pytest.raises(InputChangedError, match="its SHA-256 differs"):
        next(reader(plan, tmp_path / "job").lines())
    change_without_a_trace(source, '"1x00"', '"1500"')
    assert len(list(reader(plan, tmp_path / "job").lines())) == 2_000


def test_a_missing_file_is_said_to_have_been_there(source: Path, tmp_path: Path) -> None:
    plan = split(source, tmp_path / "job").plan
    source.unlink()
    with pytest.raises(InputChangedError, match=r"in\.jsonl: there is no such file. It was there when"):
        next(reader(plan, tmp_path / "job").lines())


def test_a_leftover_is_read_and_checked(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", LINES[:5])
    shard = reader(split(source, tmp_path / "job").plan, tmp_path / "job")
    content = b"one\ntwo\n"
    (tmp_path / "job" / "leftover").mkdir()
    (tmp_path / "job" / "leftover" / "00000.2.jsonl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert shard.open_leftover(2, len(content), digest).read() == content
    with pytest.raises(InputChangedError):
        shard.open_leftover(2, len(content), "0" * 64).read()


def test_a_leftover_that_is_not_there_is_no_fault_of_the_network(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", LINES[:5])
    stream = reader(split(source, tmp_path / "job").plan, tmp_path / "job").open_leftover(2, 8, "0" * 64)
    with pytest.raises(InputError, match="there is no such file") as raised:
        stream.read()
    assert stream.problem is raised.value  # the openai client would say that OpenAI cannot be reached


def test_reading_stops_without_leaving_files_open(source: Path, tmp_path: Path) -> None:
    plan = split(source, tmp_path / "job").plan
    opened = len(list(Path("/proc/self/fd").iterdir()))
    lines = reader(plan, tmp_path / "job").lines()
    next(lines)
    lines.close()  # type: ignore[attr-defined]
    stream = reader(plan, tmp_path / "job").open_upload()
    stream.read(10)
    stream.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == opened
