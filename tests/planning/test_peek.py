"""Which models an input begins with."""

from __future__ import annotations

import gzip
from pathlib import Path

from airflow_openai_batch.planning.first_models import peek_models
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.storage.sources import describe_file
from fixtures.job import chat_line


def peek(folder: Path, *names: str) -> tuple[str, ...]:
    return peek_models([describe_file(resolve_plain(str(folder / name))) for name in names])


def test_the_models_of_all_files_are_found_whatever_stands_between(tmp_path: Path) -> None:
    first = chat_line("1").replace("gpt-4o-mini", "gpt-4o")
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + first.encode() + b"\n\nno json\n{}\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(chat_line("2").encode()))
    assert peek(tmp_path, "a.jsonl", "b.jsonl.gz") == ("gpt-4o", "gpt-4o-mini")


def test_what_cannot_be_read_is_left_to_the_scan(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(chat_line("1").encode() * 9)[:20])
    assert peek(tmp_path, "cut.jsonl.gz") == ()
