"""Segments: whole or not at all, never over one another, and never read past what was cut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.sending.realtime import segments as module
from airflow_openai_batch.sending.realtime.lines import write_error
from airflow_openai_batch.sending.realtime.segments import SegmentBuffer, Segments
from airflow_openai_batch.storage.location import Location, resolve_plain

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore


@pytest.fixture
def output(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path))


def line(name: str) -> bytes:
    return write_error(name, "request_timeout", "No answer.")


def names(output: Location) -> list[str]:
    return output.child("raw").names()


def test_numbering_goes_on_after_a_crash_and_other_sends_are_not_seen(output: Location) -> None:
    Segments(output, 3, 2).append([line("a"), line("b")])
    Segments(output, 3, 1).append([line("other send")])
    Segments(output, 31, 2).append([line("other shard")])
    output.child("raw/00003.2.output.jsonl").write_bytes(b"a batch's file\n")
    again = Segments(output, 3, 2)
    assert list(again.read_answered()) == ["a", "b"]
    again.append([line("c")])
    assert [place.uri.rpartition("/")[2] for place in again.places()] == [
        "00003.2.output.0001.jsonl",
        "00003.2.output.0002.jsonl",
    ]
    assert list(Segments(output, 3, 2).read_answered()) == ["a", "b", "c"]


def test_two_writers_never_overwrite_each_other(output: Location) -> None:
    one, other = Segments(output, 0, 1), Segments(output, 0, 1)
    assert one.places() == other.places() == ()
    for number in range(3):
        one.append([line(f"one {number}")])
        other.append([line(f"other {number}")])
    assert len(names(output)) == 6
    assert len(set(one.read_answered())) == 6


def test_parts_beyond_four_digits_stay_in_order(output: Location) -> None:
    for part in (10_000, 9_999, 2):
        output.child(f"raw/00000.1.output.{part:04d}.jsonl").write_bytes(line(str(part)) + b"\n")
    segments = Segments(output, 0, 1)
    assert list(segments.read_answered()) == ["2", "9999", "10000"]
    assert segments.append([line("x")]).uri.endswith(".10001.jsonl")


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (line("a") + b"\n" + line("b")[:-3], 2),
        (line("a"), 1),  # whole, but its end is missing: what follows it may be, too
        (b"", 1),
        (line("a") + b"\n\n", 2),
        (line("a") + b"\n" + b'{"id": "x"}\n', 2),
        (b"\x00\x00\x00\n", 1),
    ],
)
def test_what_is_cut_or_no_answer_is_an_error(output: Location, data: bytes, number: int) -> None:
    output.child("raw/00000.1.output.0001.jsonl").write_bytes(data)
    with pytest.raises(JobError, match=rf"0001\.jsonl:{number}: .*Nothing was sent"):
        list(Segments(output, 0, 1).read_answered())


def test_a_segment_that_cannot_be_read_is_not_taken_for_absent(output: Location, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "00000.1.output.0001.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(JobError, match="cannot be read"):
        list(Segments(output, 0, 1).read_answered())


def test_segments_lie_in_an_object_store_as_well(s3: ObjectStore) -> None:
    place = Location(s3.filesystem(), f"{s3.bucket}/job", s3.uri("job"))
    one, other = Segments(place, 0, 1), Segments(place, 0, 1)
    assert one.places() == other.places() == ()
    one.append([line("a")])
    other.append([line("b")])
    assert list(Segments(place, 0, 1).read_answered()) == ["a", "b"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_buffer_is_due_by_number_time_and_size(output: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    buffer = SegmentBuffer(Segments(output, 0, 1), clock)
    buffer.flush()
    assert names(output) == []
    for number in range(99):
        buffer.add(line(str(number)))
    assert not buffer.is_due
    buffer.add(line("99"))
    assert buffer.is_due
    buffer.flush()
    assert not buffer.is_due

    clock.now = 10.0
    buffer.add(line("slow"))
    clock.now = 11.9
    assert not buffer.is_due
    clock.now = 12.0
    assert buffer.is_due
    buffer.flush()

    monkeypatch.setattr(module, "FLUSH_BYTES", 300)
    buffer.add(line("large" * 100))
    assert buffer.is_due
    buffer.flush()
    assert buffer.written == len(names(output)) == 3


def test_what_could_not_be_written_is_written_the_next_time(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(output, 0, 1)
    buffer = SegmentBuffer(segments)
    buffer.add(line("a"))
    with monkeypatch.context() as patch:
        patch.setattr(Location, "create_exclusive", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            buffer.flush()
    buffer.add(line("b"))
    buffer.flush()
    assert list(segments.read_answered()) == ["a", "b"]
