"""What people put, or changed, where tables are written is still theirs afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openpyxl
import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.workbook import WorkbookSheet, write_workbook
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.prepared_job import PreparedJob


def join(folder: Path, name: str, **options: Any) -> tuple[str, ...]:
    job = PreparedJob(folder, {"text": ["a", "b"]})
    if not (folder / "prepared").exists():
        job.write()
    return job.join(name, **options).notices


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.xlsx"])
def test_a_file_of_somebody_else_is_an_error_and_stays(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    if name == "t.xlsx":
        openpyxl.Workbook().save(theirs)
    else:
        theirs.write_bytes(b"PAR1" if name == "t.parquet" else b"my,own\n1,2\n")
    before = theirs.read_bytes()
    with pytest.raises(ConfigError, match=r"is there already, and was not written here.*overwrite"):
        join(tmp_path, name)
    assert theirs.read_bytes() == before
    join(tmp_path, name, overwrite=True)
    assert theirs.read_bytes() != before


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.xlsx"])
def test_a_table_of_ours_is_written_again_and_a_changed_one_is_put_aside(tmp_path: Path, name: str) -> None:
    assert join(tmp_path, name) == join(tmp_path, name) == ()
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    changed = (tmp_path / name).read_bytes()
    (notice,) = join(tmp_path, name)
    (kept,) = tmp_path.glob("t.kept-*")
    assert kept.read_bytes() == changed
    assert kept.name in notice
    assert join(tmp_path, name) == ()
    # An earlier release left no note.
    (tmp_path / f".{name}.written.json").unlink()
    assert join(tmp_path, name) == ()
    assert len(list(tmp_path.glob("t*"))) == 2


def test_a_workbook_that_somebody_works_in_is_put_aside(tmp_path: Path) -> None:
    place = resolve_plain(str(tmp_path / "catalogue.xlsx"))
    for row in ("one", "two", "three"):
        write_workbook(place, [WorkbookSheet("results", ["a"], [{"a": row}])])
        if row == "two":
            book = openpyxl.load_workbook(tmp_path / "catalogue.xlsx")
            book.worksheets[0]["B1"] = "checked"
            book.save(tmp_path / "catalogue.xlsx")
    (kept,) = tmp_path.glob("catalogue.kept-*.xlsx")
    assert openpyxl.load_workbook(kept).worksheets[0]["B1"].value == "checked"
    assert openpyxl.load_workbook(tmp_path / "catalogue.xlsx").worksheets[0]["A2"].value == "three"
