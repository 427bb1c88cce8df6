"""Tables as files: what a reader of each format finds in them again."""

from __future__ import annotations

import csv
import datetime
import decimal
import json

import openpyxl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.writing.write_table import TableOptions, check_table, find_format, open_table

TRICKY = ['say "hi"', "two\nlines", "a,b", "", "ünï 😀", " space ", None]
FORMULAS = ["=1+1", "+49 30 1234", "-2+3", "@sum", "\tx", "- a list", "#N/A"]


def write(folder, name, table, **options):
    """The table in pieces of two rows."""
    table = table if isinstance(table, pa.Table) else pa.table(table)
    place = resolve_plain(str(folder / name))
    with open_table(place, find_format(name), table.schema, TableOptions(**options)) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write(batch)
    assert writer.rows == len(table)
    return writer


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def read_sheet(path, number=0):
    book = openpyxl.load_workbook(path)
    return [[cell.value for cell in row] for row in book.worksheets[number].iter_rows()]


def test_csv_keeps_quotes_newlines_and_commas(tmp_path):
    write(tmp_path, "t.csv", {"text": TRICKY, "n": range(7)})
    rows = read_csv(tmp_path / "t.csv")
    assert rows == [["text", "n"], *([text or "", str(at)] for at, text in enumerate(TRICKY))]
    options = pa_csv.ParseOptions(newlines_in_values=True)
    assert pa_csv.read_csv(tmp_path / "t.csv", parse_options=options).num_rows == 7
    assert b'"two\nlines",1\r\n' in (tmp_path / "t.csv").read_bytes()


def test_csv_writes_types_as_text_without_losing_a_digit(tmp_path):
    table = pa.table(
        {
            "b": pa.array([True, None]),
            "f": pa.array([0.1, -2.0], pa.float32()),
            "d": pa.array([decimal.Decimal("12345678901234567890.10"), None], pa.decimal128(30, 2)),
            "t": pa.array([1_500_000_000_123_456_789, None], pa.timestamp("ns", tz="UTC")),
            "day": pa.array([datetime.date(1850, 1, 2), None]),
            "tags": pa.array([["a", "b"], None]),
            "v": pa.array([b"\xff", None]),
            "o": pa.array([{"x": datetime.date(2024, 1, 2), "y": b"\xff"}, None]),
            "c": pa.array(["x", None]).dictionary_encode(),
        }
    )
    write(tmp_path, "t.csv", table)
    assert read_csv(tmp_path / "t.csv")[1:] == [
        [
            *("true", "0.1", "12345678901234567890.10", "2017-07-14T02:40:00.123456789Z", "1850-01-02"),
            *('["a","b"]', "/w==", '{"x":"2024-01-02","y":"/w=="}', "x"),
        ],
        ["", "-2.0", *[""] * 7],
    ]


def test_csv_for_machines_is_left_as_it_is(tmp_path):
    write(tmp_path, "t.csv", {"text": FORMULAS}, raw_csv=True)
    assert [row[0] for row in read_csv(tmp_path / "t.csv")[1:]] == FORMULAS
    assert not (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_csv_for_excel_has_a_mark_and_no_formulas_and_its_negative_numbers_stay(tmp_path):
    table = {"text": ["=1+1", "-12.5", "+3e5", "-2+3", "- a", "ok"], "n": [-1, -2, 3, 4, 5, 6]}
    write(tmp_path, "t.csv", table, for_excel=True)
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbftext,n\r\n")
    rows = read_csv(tmp_path / "t.csv")[1:]
    assert [row[0] for row in rows] == ["'=1+1", "-12.5", "+3e5", "'-2+3", "'- a", "ok"]
    assert [row[1] for row in rows] == ["-1", "-2", "3", "4", "5", "6"]


def test_json_lines_keep_lists_objects_vectors_and_null(tmp_path):
    table = pa.table(
        {
            "text": pa.array(TRICKY[:2]),
            "v": pa.array([[0.1, 0.2], None], pa.list_(pa.float32())),
            "o": pa.array([{"a": [1]}, None]),
            "n": pa.array([float("nan"), 2**60 + 0.0]),
            "i": pa.array([2**63 - 1, None]),
        }
    )
    write(tmp_path, "t.jsonl", table)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert rows == [
        {"text": TRICKY[0], "v": [0.1, 0.2], "o": {"a": [1]}, "n": None, "i": 2**63 - 1},
        {"text": TRICKY[1], "v": None, "o": None, "n": 2**60, "i": None},
    ]


def test_vectors_of_a_slice_are_its_own(tmp_path):
    table = pa.table({"v": pa.array([[1.0], [2.0, 3.0], [], [4.0]], pa.list_(pa.float32()))})
    write(tmp_path, "t.jsonl", table.slice(1))
    rows = [json.loads(line)["v"] for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert rows == [[2.0, 3.0], [], [4.0]]


def test_text_in_excel_stays_text_and_numbers_numbers(tmp_path):
    texts = [*FORMULAS, "00123", "4111111111111111", "-5"]
    numbers = [-12, 0, 10**14, 10**17, -3, 1, 2, 3, 4, 5]
    write(tmp_path, "t.xlsx", {"=text": texts, "n": numbers, "f": [-0.5] * 10})
    book = openpyxl.load_workbook(tmp_path / "t.xlsx")
    cells = list(book.worksheets[0].iter_rows())
    assert [row[0].value for row in cells] == ["=text", *texts]
    assert {row[0].data_type for row in cells} == {"s"}
    assert [row[1].value for row in cells[1:]] == [-12, 0, 10**14, str(10**17), -3, 1, 2, 3, 4, 5]
    assert {row[2].value for row in cells[1:]} == {-0.5}
    assert cells[1][0].quotePrefix


def test_dates_in_excel_are_dates_where_it_has_them(tmp_path):
    moments = [datetime.datetime(2024, 2, 29, 12, 30), datetime.datetime(1850, 1, 1), None]
    table = pa.table(
        {
            "at": pa.array(moments, pa.timestamp("ns")),
            "zoned": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "day": pa.array([each and each.date() for each in moments]),
        }
    )
    write(tmp_path, "t.xlsx", table)
    rows = read_sheet(tmp_path / "t.xlsx")[1:]
    assert rows[0][0] == moments[0]
    assert rows[1][0].startswith("1850-01-01T00:00:00")
    assert rows[0][1] == "2024-02-29T12:30:00.000000Z"
    assert rows[0][2].date() == moments[0].date()
    assert rows[1][2] == "1850-01-01"


def test_what_excel_cannot_hold_is_replaced_and_said(tmp_path):
    writer = write(
        tmp_path,
        "t.xlsx",
        {"text": ["a\x00b", "c\ud7ff\uffff", "tab\tand\nline"], "f": [float("nan"), 1.0, None]},
    )
    rows = read_sheet(tmp_path / "t.xlsx")[1:]
    assert [row[0] for row in rows] == ["a\ufffdb", "c\ud7ff\ufffd", "tab\tand\nline"]
    assert [row[1] for row in rows] == ["nan", 1, None]
    assert "2 texts had control characters" in writer.notices[0]


def test_a_text_too_long_for_a_cell_fails_or_is_cut_as_asked(tmp_path):
    table = {"text": ["ok", "😀" * 16_384]}
    with pytest.raises(ConfigError, match=r"row 1, column text: 32,768 characters.*long_text=cut"):
        write(tmp_path, "t.xlsx", table)
    assert not list(tmp_path.iterdir())
    writer = write(tmp_path, "t.xlsx", table, long_text="cut")
    assert read_sheet(tmp_path / "t.xlsx")[2][0] == "😀" * 16_383 + "\u2026", (
        "whoever reads it sees that it goes on"
    )
    assert "1 text of more than 32,767" in writer.notices[0]


def test_more_rows_than_a_sheet_holds_go_on_in_further_sheets(tmp_path):
    writer = write(tmp_path, "t.xlsx", {"n": range(7)}, max_sheet_rows=4)
    sheets = [read_sheet(tmp_path / "t.xlsx", number) for number in range(3)]
    assert sheets == [[["n"], [0], [1], [2]], [["n"], [3], [4], [5]], [["n"], [6]]]
    assert writer.notices == ("7 rows in 3 sheets of the workbook.",)


def test_a_table_with_too_many_columns_for_excel_is_refused(tmp_path):
    schema = pa.schema([(f"c{number}", pa.int8()) for number in range(16_385)])
    with pytest.raises(ConfigError, match="16,385 columns, Excel's limit is 16,384"):
        check_table("xlsx", schema)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.xlsx"])
def test_a_table_that_is_not_finished_leaves_nothing(tmp_path, name):
    table = pa.table({"n": [1, 2]})
    place = resolve_plain(str(tmp_path / name))

    def begin():
        with open_table(place, find_format(name), table.schema, TableOptions()) as writer:
            writer.write(table.to_batches()[0])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        begin()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "found"), [("a/B.CSV", "csv"), ("s3://b/x.ndjson", "jsonl")])
def test_the_format_follows_from_the_name(name, found):
    assert find_format(name) == found


def test_a_name_of_no_format_is_refused():
    with pytest.raises(ConfigError, match=r"s3://b/x.tsv: ends in none of .parquet, .csv"):
        find_format("s3://b/x.tsv")
