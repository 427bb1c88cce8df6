"""Tables that were made to fill a worker's memory or time: told with the limit, and none stops more than its row, or
its file where that cannot be read at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.planning import line_table
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.reading import find_row_files, limits, open_row_files
from fixtures.bounded_memory import run_bounded
from fixtures.prepared import read_source
from fixtures.split_input import request_line, split

READ = """
from fixtures.prepared import read_source
from fixtures.split_input import request_line, split
from airflow_openai_batch.planning import line_table
from airflow_openai_batch.errors import InputError
try:
    table, rows, problems = read_source(sys.argv[1])
    print(len(rows), sorted(set(problems.values()))[:2])
except InputError as error:
    print(error)
"""


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_equal_header_names_take_no_time(tmp_path: Path) -> None:
    start = time.process_time()
    table, _, _ = read_source(write(tmp_path / "a.csv", ",".join(["a"] * 16_000) + "\n"))
    assert time.process_time() - start < 5
    assert table.schema.names[:3] + table.schema.names[-1:] == ["a", "a_2", "a_3", "a_16000"]
    assert len(table.notices) == 21
    assert "15,979 further columns" in table.notices[-1]


def test_more_columns_than_any_table_has(tmp_path: Path) -> None:
    content = ",".join(f"c{n}" for n in range(16_385)) + "\n"
    with pytest.raises(InputError, match="has 16,385 columns, limit 16,384"):
        read_source(write(tmp_path / "a.csv", content))


def test_keys_of_each_row_its_own(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x", **{f"key-{row}-{n}": n for n in range(10)}}) for row in range(1_200)]
    source = write(tmp_path / "a.jsonl", "\n".join(lines))
    found = run_bounded(READ, source, limit_mb=700)
    assert found.startswith(
        "1200 ['line 1,000 brings 10 keys beside the 1,991 of the lines before, limit 2,000"
    )
    # Rows without keys of their own are as good as before.
    write(source, "\n".join([*lines, '{"text": "good"}']))
    _, rows, problems = read_source(source)
    assert rows[-1]["text"] == "good"
    assert 1_200 not in problems
    assert len(problems) == 1_200 - 199


@pytest.mark.parametrize(
    "inner", ["[" * 60 + "]" * 60, '{"a":' * 900 + "1" + "}" * 900, "[" * 99_999 + "]" * 99_999]
)
def test_values_nested_too_deep_reject_their_row(tmp_path: Path, inner: str) -> None:
    content = f'{{"text": "good"}}\n{{"text": "bad", "in": {inner}}}\n{{"text": "good", "in": {"[" * 20 + "]" * 20}}}'
    _, rows, problems = read_source(write(tmp_path / "a.jsonl", content))
    assert [row["text"] for row in rows] == ["good", None, "good"]
    assert list(problems) == [1]
    assert problems[1] in (
        "line 2 nests lists or objects more than 50 deep, the limit",
        "line 2 is not valid JSON",
    )


def test_a_line_of_millions_of_values_rejects_its_row(tmp_path: Path) -> None:
    content = '{"text": "good"}\n{"in": [' + "{}," * 5_000_000 + '{}]}\n{"text": "good"}'
    found = run_bounded(READ, write(tmp_path / "a.jsonl", content), limit_mb=300)
    assert found == "3 ['line 2 has more than 1,000,000 values, the limit']"


MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRINGS = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"


def make_workbook(path: Path, *, sheet: str, strings: str = "", styles: str = "", prolog: str = "") -> Path:
    """A workbook of openpyxl's with parts of its own; the cells share ``text``, ``good`` and ``strings``."""
    plain = io.BytesIO()
    openpyxl.Workbook().save(plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
    ):
        for name in source.namelist():
            text = source.read(name).decode()
            if name == "xl/worksheets/sheet1.xml":
                text = f'{prolog}<worksheet xmlns="{MAIN}"><sheetData>{sheet}</sheetData></worksheet>'
            elif name == "xl/styles.xml":
                text = text.replace("</styleSheet>", f"{styles}</styleSheet>")
            elif name == "[Content_Types].xml":
                part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{STRINGS}"/></Types>'
                text = text.replace("</Types>", part)
            target.writestr(name, text)
        shared = f"<si><t>text</t></si><si><t>good</t></si>{strings}"
        target.writestr("xl/sharedStrings.xml", f'<sst xmlns="{MAIN}">{shared}</sst>')
    return path


HEADER = '<row r="1"><c r="A1" t="s"><v>0</v></c></row>'


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        (
            '<row r="999999999999"><c r="A999999999999"><v>1</v></c></row>',
            "has a row 999,999,999,999, limit 1,048,576",
        ),
        ('<row r="2"><c r="ZZZ2"><v>1</v></c></row>', "has a cell beyond column 16,384, the limit"),
        ('<row r="2">' + "<c/>" * 140_000 + "</row>", "has more cells than fit into 16,384 columns"),
        (
            '<row r="2"><c r="A2" t="inlineStr"><is><t>' + "a" * (65 * 2**20),
            "a row of it has more than 67,108,864",
        ),
        ('<row r="x"><c r="A2"><v>1</v></c></row>', "has no number that could be one"),
    ],
    ids=["row-number", "column", "cells", "text", "no-number"],
)
def test_sheets_that_are_larger_than_excel_allows(tmp_path: Path, sheet: str, message: str) -> None:
    bomb = make_workbook(tmp_path / "a.xlsx", sheet=HEADER + sheet)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(InputError) as told:
        read_source(bomb)
    assert message in str(told.value)


def test_a_gap_before_the_last_row_of_a_sheet_takes_no_time(tmp_path: Path) -> None:
    last = '<row r="1048576"><c r="A1048576" t="s"><v>1</v></c></row>'
    _, rows, _ = read_source(make_workbook(tmp_path / "a.xlsx", sheet=HEADER + last))
    assert rows == [{"text": "good"}]


def test_more_rows_or_shared_texts_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SHEET_ROWS", 1_000)
    with pytest.raises(InputError, match="has a row 1,001, limit 1,000"):
        read_source(make_workbook(tmp_path / "a.xlsx", sheet=HEADER + "<row/>" * 1_000))
    monkeypatch.setattr(limits, "MAX_SHARED_STRINGS", 1_000)
    with pytest.raises(InputError, match="share more than 1,000 texts, the limit"):
        read_source(make_workbook(tmp_path / "b.xlsx", sheet=HEADER, strings="<si/>" * 1_000))


def test_shared_texts_that_fill_the_memory(tmp_path: Path) -> None:
    """A hundredth of what brought 2.6 GB, in a hundredth of the memory."""
    many = make_workbook(tmp_path / "a.xlsx", sheet=HEADER, strings="<si/>" * 100_000)
    assert run_bounded(READ, many, limit_mb=30) == "0 []"
    pieces = make_workbook(tmp_path / "b.xlsx", sheet=HEADER, strings="<si>" + "<r/>" * 1_000_000 + "</si>")
    assert "more than 131,072 pieces, the limit" in run_bounded(READ, pieces, limit_mb=100)


def test_a_long_shared_text_in_each_cell_of_a_row_rejects_the_row(tmp_path: Path) -> None:
    cells = (
        '<row r="2">'
        + '<c t="s"><v>2</v></c>' * 1_000
        + '</row><row r="3"><c r="A3" t="s"><v>0</v></c></row>'
    )
    strings = f"<si><t>{'a' * 2**20}</t></si>"
    bomb = make_workbook(tmp_path / "a.xlsx", sheet=HEADER + cells, strings=strings)
    found = run_bounded(READ, bomb, limit_mb=300)
    assert found == "2 ['is longer than 16,777,216 bytes, the limit']"


def test_other_parts_of_a_workbook_are_not_unpacked_beyond_a_limit(tmp_path: Path) -> None:
    bomb = make_workbook(tmp_path / "a.xlsx", sheet=HEADER, styles="<!--" + " " * (20 * 2**20) + "-->")
    with pytest.raises(
        InputError, match=r"xl/styles\.xml in it has 20,9\d\d,\d\d\d bytes unpacked, limit 16,777,216"
    ):
        read_source(bomb)


def test_entities_that_multiply_are_refused(tmp_path: Path) -> None:
    nested = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    row = '<row r="2"><c t="inlineStr"><is><t>&e9;</t></is></c></row>'
    prolog = f'<!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{nested}]>'
    bomb = make_workbook(tmp_path / "a.xlsx", sheet=HEADER + row, prolog=prolog)
    assert "is damaged or encrypted" in run_bounded(READ, bomb, limit_mb=300)


def test_a_cell_that_cannot_be_read_rejects_its_row(tmp_path: Path) -> None:
    rows = "".join(
        f'<row r="{number}"><c r="A{number}" t="{kind}"><v>{value}</v></c></row>'
        for number, (kind, value) in enumerate(
            [("s", "99"), ("s", "-1"), ("n", "x"), ("n", "1e5"), ("n", "9" * 5_000)], 2
        )
    )
    _, found, problems = read_source(make_workbook(tmp_path / "a.xlsx", sheet=HEADER + rows))
    assert [row["text"] for row in found] == [None, None, None, 100_000.0, None]
    assert set(problems) == {0, 1, 2, 4}
    assert set(problems.values()) == {"its cell in column 1 cannot be read"}


def test_a_long_value_that_a_parquet_file_holds_once_for_all_rows(tmp_path: Path) -> None:
    """A few kilobytes that would be 800 MB as texts."""
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["a" * 2 * 2**20]))
    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": once}), source, store_schema=False)
    assert source.stat().st_size < 500_000
    found = run_bounded(
        """
        from airflow_openai_batch.tables.reading import find_row_files, open_row_files
        from airflow_openai_batch.storage.location import resolve_plain
        found = find_row_files([sys.argv[1]], resolve_plain("/nowhere"), resolve_plain)
        with open_row_files(found) as table:
            print(table.schema.field("text").type, sum(block.batch.num_rows for block in table.blocks))
        """,
        source,
        limit_mb=500,
    )
    assert found == "string 400"


COUNT_ROWS = """
    from airflow_openai_batch.tables.reading import find_row_files, open_row_files
    from airflow_openai_batch.storage.location import resolve_plain
    found = find_row_files([sys.argv[1]], resolve_plain("/nowhere"), resolve_plain)
    try:
        with open_row_files(found) as table:
            print(table.schema.field("text").type, sum(block.batch.num_rows for block in table.blocks))
    except Exception as error:
        print(type(error).__name__, error)
    """


def _repeat(values: int, rows: int, name: str) -> pa.Array:
    """One value of 2 MB that stands so often in lists or objects, as a file holds it: once."""
    once = pa.DictionaryArray.from_arrays(pa.array([0] * values, pa.int32()), pa.array(["a" * 2 * 2**20]))
    offsets = pa.array([values // rows * number for number in range(rows + 1)], pa.int32())
    if name == "objects":
        return pa.StructArray.from_arrays([once], ["in"])
    if name == "maps":
        return pa.MapArray.from_arrays(offsets, pa.array([str(n) for n in range(values)]), once)
    return pa.ListArray.from_arrays(offsets, once)


@pytest.mark.parametrize(("name", "rows"), [("lists", 200), ("objects", 400), ("maps", 200)])
def test_nor_in_what_rows_hold(tmp_path: Path, name: str, rows: int) -> None:
    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": _repeat(400, rows, name)}), source, store_schema=False)
    assert source.stat().st_size < 500_000
    assert run_bounded(COUNT_ROWS, source, limit_mb=500).endswith(f" {rows}")


def test_a_row_that_repeats_a_long_value_in_a_list(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": _repeat(1_000, 1, "lists")}), source, store_schema=False)
    found = run_bounded(COUNT_ROWS, source, limit_mb=500)
    assert found.startswith("InputError")
    assert "2,097,152,000 bytes written out, limit 268,435,456" in found


@pytest.mark.parametrize(
    ("packing", "said"), [("gzip", "string 2270"), ("zstd", "InputError")], ids=["gzip", "zstd"]
)
def test_few_long_values_among_many_short_ones(tmp_path: Path, packing: str, said: str) -> None:
    """By the mean of their group they are as short as the others."""
    values = pa.array(["a" * 4_000_000] * 270 + ["b"] * 2_000)
    source = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": values}), source, use_dictionary=False, compression=packing, write_batch_size=1
    )
    assert source.stat().st_size < 2_000_000
    assert run_bounded(COUNT_ROWS, source, limit_mb=400).startswith(said)


def test_texts_in_lists_and_objects_stay_what_they_are(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a.b": pa.array(["x", None, "x", "y"]),
            "lists": pa.array([["a", "b", None], None, [], ["a"]]),
            "objects": pa.array([{"k": "a", "n": 1}, None, {"k": None, "n": 2}, {"k": "b", "n": 3}]),
            "maps": pa.array([[("a", "x")], None, [], [("b", None)]], pa.map_(pa.string(), pa.string())),
            "deep": pa.array([[[{"k": "a"}], []], None, [], [[{"k": "b"}, None]]]),
            "pairs": pa.array([["a", "b"], None, ["c", None], ["a", "a"]], pa.list_(pa.string(), 2)),
            "large": pa.array([["a"], None, [], ["b"]], pa.large_list(pa.large_string())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with open_row_files(
        find_row_files([str(tmp_path / "a.parquet")], resolve_plain("/nowhere"), resolve_plain)
    ) as rows:
        assert rows.schema.equals(table.schema)
        assert [row for block in rows.blocks for row in block.batch.to_pylist()] == table.to_pylist()


def test_a_parquet_column_nested_too_deep(tmp_path: Path) -> None:
    kind = pa.int64()
    for _ in range(60):
        kind = pa.struct([("a", kind)])
    pq.write_table(pa.table({"in": pa.array([None], kind)}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="column 'in' nests lists or objects more than 50 deep, the limit"):
        read_source(tmp_path / "a.parquet")


def test_a_parquet_file_with_too_many_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({f"c{n}": pa.array([1]) for n in range(16_385)}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has 16,385 columns, limit 16,384"):
        read_source(tmp_path / "a.parquet")


def test_more_lines_than_a_job_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_table, "MAX_LINES", 1_000)
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(request_line("a").encode() + b"\n" * 1_000))
    assert split(source, tmp_path / "job").plan.counts.requests == 1
    source.write_bytes(gzip.compress(request_line("a").encode() + b"\n" * 1_001))
    with pytest.raises(InputError, match="more than 1,000 lines, blank ones too, the limit of a job"):
        split(source, tmp_path / "other")


def test_devices_and_pipes_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe\.csv: is a device or a pipe"):
        read_source(tmp_path / "pipe.csv")
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "link.txt").symlink_to(tmp_path / "good.txt")
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    _, rows, _ = read_source(f"{tmp_path}/")
    assert [row["name"] for row in rows] == ["good.txt", "link.txt"]
