"""A join whose parts and table lie in an object store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import openpyxl
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.location import Location
from airflow_openai_batch.tables.join.join_table import join_answers
from airflow_openai_batch.tables.writing.write_table import find_format
from fixtures.prepared_job import PreparedJob, result

if TYPE_CHECKING:
    from airflow_openai_batch.tables.join.join_table import Joined
    from fixtures.object_store import ObjectStore


def put(s3: ObjectStore, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put(path.relative_to(folder).as_posix(), path.read_bytes())


def join(s3: ObjectStore, name: str) -> Joined:
    fs = s3.filesystem()

    def place(key: str) -> Location:
        return Location(fs, f"{s3.bucket}/{key}", s3.uri(key))

    return join_answers(place("prepared"), place("job"), place(name), format=find_format(name))


@pytest.mark.long
def test_every_format_is_written_and_read_back(s3: ObjectStore, tmp_path: Path) -> None:
    put(s3, PreparedJob(tmp_path, {"text": list("abcdefg")}, positions=[0, 1, 2, 0, 3, 4, 1]).write().folder)
    expected = [f"answer {at}" for at in (0, 1, 2, 0, 3, 4, 1)]
    for name in ("t.parquet", "t.csv", "t.jsonl", "t.xlsx"):
        assert join(s3, name).rows == 7
    assert pq.read_table(io.BytesIO(s3.get("t.parquet")))["answer"].to_pylist() == expected
    assert [line.split(",")[1] for line in s3.get("t.csv").decode().splitlines()[1:]] == expected
    sheet = openpyxl.load_workbook(io.BytesIO(s3.get("t.xlsx"))).worksheets[0]
    assert [row[1].value for row in sheet.iter_rows(min_row=2)] == expected


def test_a_join_that_fails_leaves_nothing(s3: ObjectStore, tmp_path: Path) -> None:
    long = [result(0), result(1, content="x" * 40_000)]
    put(s3, PreparedJob(tmp_path, {"text": ["a", "b"]}, results=long).write().folder)
    with pytest.raises(ConfigError, match="row 1, column answer: 40,000 characters"):
        join(s3, "out/t.xlsx")
    found = s3.keys()
    assert not [key for key in found if key.startswith("out")]
