"""Which files an input names, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_openai_batch.job.inputs import list_sources
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    import pytest


def names(inputs: str | list[str], folder: Path, output: str = "out") -> list[str]:
    listing = list_sources(inputs, resolve_plain(str(folder / output)), resolve_plain)
    return [file.uri.removeprefix("file://").removeprefix(f"{folder}/") for file in listing.files]


def test_a_list_keeps_its_order_and_a_glob_is_sorted(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c/d.jsonl", "c/a.jsonl", "e.txt"):
        write_lines(tmp_path / name, ["x"])
    assert names([f"{tmp_path}/e.txt", f"{tmp_path}/a.jsonl"], tmp_path) == ["e.txt", "a.jsonl"]
    assert names(f"{tmp_path}/*.jsonl", tmp_path) == ["a.jsonl", "b.jsonl"]
    assert names(f"file://{tmp_path}/**/*.jsonl", tmp_path) == [
        "a.jsonl",
        "b.jsonl",
        "c/a.jsonl",
        "c/d.jsonl",
    ]
    assert names([f"{tmp_path}/c/*.jsonl", f"{tmp_path}/b.jsonl"], tmp_path) == [
        "c/a.jsonl",
        "c/d.jsonl",
        "b.jsonl",
    ]


def test_uris_of_a_glob_are_written_as_the_glob_is(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ["x"])
    listing = list_sources(f"file://{tmp_path}/*.jsonl", resolve_plain(str(tmp_path / "out")), resolve_plain)
    assert [file.uri for file in listing.files] == [f"file://{tmp_path}/a.jsonl"]


def test_relative_paths_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next task may run in another directory."""
    write_lines(tmp_path / "in" / "a.jsonl", ["x"])
    monkeypatch.chdir(tmp_path)
    for inputs in ("in/a.jsonl", "in/*.jsonl", "./in/a.jsonl"):
        listing = list_sources(inputs, resolve_plain(str(tmp_path / "out")), resolve_plain)
        assert [file.uri for file in listing.files] == [f"{tmp_path}/in/a.jsonl"]


def test_brackets_in_a_file_name_are_no_glob_if_the_file_is_there(tmp_path: Path) -> None:
    for name in ("data[1].jsonl", "data1.jsonl"):
        write_lines(tmp_path / name, ["x"])
    assert names(f"{tmp_path}/data[1].jsonl", tmp_path) == ["data[1].jsonl"]
    assert names(f"{tmp_path}/data[12].jsonl", tmp_path) == ["data1.jsonl"]


def test_job_directories_below_a_glob_are_left_out(tmp_path: Path) -> None:
    """Only what this package wrote: a user's file beside it, or in a folder called raw, stays in."""
    source = write_lines(tmp_path / "in.jsonl", [request_line("a"), "bad"])
    job = tmp_path / "jobs" / "one"
    split(source, job, on_bad_line="reject")
    for name in (
        "raw/00000.1.output.jsonl",
        "leftover/00000.2.jsonl",
        "failed.jsonl",
        "mine.jsonl",
        "my/raw.jsonl",
    ):
        write_lines(job / name, ["x"])
    write_lines(tmp_path / "raw" / "mine.jsonl", ["x"])
    listing = list_sources(f"{tmp_path}/**/*.jsonl", resolve_plain(str(tmp_path / "out")), resolve_plain)
    found = [file.uri.removeprefix(f"{tmp_path}/") for file in listing.files]
    assert found == ["in.jsonl", "jobs/one/mine.jsonl", "jobs/one/my/raw.jsonl", "raw/mine.jsonl"]
    assert listing.notices == (f"{tmp_path}/**/*.jsonl: left out 4 files of job directories below it.",)


def test_files_of_a_job_can_be_named(tmp_path: Path) -> None:
    """failed.jsonl is made to be sent again."""
    source = write_lines(tmp_path / "in.jsonl", [request_line("a")])
    split(source, tmp_path / "job")
    failed = write_lines(tmp_path / "job" / "failed.jsonl", [request_line("a")])
    assert split(failed, tmp_path / "again").plan.counts.requests == 1


def test_an_output_directory_within_the_input_can_be_split_again(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", [request_line("a"), "bad"])
    first = split(tmp_path / "*.jsonl", tmp_path, on_bad_line="reject")
    again = split(tmp_path / "*.jsonl", tmp_path, on_bad_line="reject")
    assert (first.created, again.created) == (True, False)
    assert again.plan == first.plan
