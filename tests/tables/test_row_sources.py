"""Rows from files as people have them: types kept, oddities named, nothing lost."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.reading import find_row_files, limits, open_row_files, read_csv
from airflow_openai_batch.tables.reading.read_query import read_query_rows
from airflow_openai_batch.tables.reading.row_table import BLOCK_ROWS
from airflow_openai_batch.tables.reading.spool import spool_table
from fixtures.prepared import read_source


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, content: bytes | str, **reading: Any) -> tuple[list[dict[str, Any]], dict[int, str]]:
    _, rows, problems = read_source(write(path, content), **reading)
    return rows, problems


def test_csv_cells_stay_as_they_are(tmp_path: Path) -> None:
    content = '\ufeffid,text\r\n007,"one\r\ntwo, ""three"""\r\n\r\n8, x \u2028 y \r\n9,\r\n'
    rows, problems = read(tmp_path / "a.csv", content)
    assert rows == [
        {"id": "007", "text": 'one\r\ntwo, "three"'},
        {"id": "8", "text": " x \u2028 y "},
        {"id": "9", "text": None},
    ]
    assert not problems


def test_csv_rows_that_cannot_be_read_spoil_no_other(tmp_path: Path) -> None:
    content = b'a,b\n1,\xc3\xa9\xc3\xa9\n2\n3,x,y\n4,"a"b"\n5,caf\xe9\n'
    content += b'6,"never closed\n7,x\n8,"two\nlines"\n9,x\ry\n10,z'
    rows, problems = read(tmp_path / "a.csv", content)
    assert [row["a"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
    assert problems == {
        1: "has 1 cell, the header 2",
        2: "has 3 cells, the header 2",
        3: "a quote is not closed, or closed in the middle of a cell",
        4: "is not valid UTF-8 (byte 6 of line 6)",
        5: "a quote is not closed, or closed in the middle of a cell",
        8: "has a carriage return outside of quotes",
    }
    assert rows[7]["b"] == "two\nlines"


def test_a_delimiter_at_the_end_of_every_row_is_no_cell(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "a,b\n" + "1,x,\n" * 99 + "2,,\n3,y\n4,one, two\n5,z,\n")
    table, rows, problems = read_source(file)
    assert [tuple(row.values()) for row in rows] == [
        *[("1", "x")] * 99, ("2", None), ("3", "y"), ("4", "one"), ("5", "z")
    ]  # fmt: skip
    assert problems == {101: "has 3 cells, the header 2"}, "something stands where nothing should"
    assert any("rows end with a delimiter" in notice for notice in table.notices)


@pytest.mark.parametrize("content", ["a,b\n1,x,\n", "a,b\n1,x,\n2,y\n", "a,b\n1,x\n2,one, two,\n"])
def test_a_row_that_alone_ends_with_a_delimiter_may_have_one_too_many_within(
    tmp_path: Path, content: str
) -> None:
    _, problems = read(tmp_path / "a.csv", content)
    assert len(problems) == 1


def test_a_quote_that_swallows_the_rest_of_the_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_csv, "MAX_RECORD_BYTES", 1_000)
    content = 'a,b\n1,"open\n' + "".join(f"{n},x\n" for n in range(2, 2_000))
    rows, problems = read(tmp_path / "a.csv", content)
    assert len(rows) == 1_999
    assert list(problems) == [0]


@pytest.mark.parametrize(
    ("name", "header", "reading"),
    [
        ("a.csv", "a;b", {}),
        ("a.csv", '"x,y,z";b', {}),
        ("a.tsv", "a\tb,c", {}),
        ("a.csv", "a|b", {}),
        ("a.csv", "a:b", {"delimiter": ":"}),
    ],
)
def test_csv_delimiters(tmp_path: Path, name: str, header: str, reading: dict[str, Any]) -> None:
    separator = reading.get("delimiter") or next(sign for sign in "\t;|" if sign in header)
    table, rows, _ = read_source(write(tmp_path / name, f"{header}\n1{separator}2,3\n"), **reading)
    assert list(rows[0].values()) == ["1", "2,3"]
    assert len(table.schema) == 2


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    rows, problems = read(tmp_path / "a.csv", "a\ncafé\n".encode("cp1252"), encoding="cp1252")
    assert (rows, problems) == ([{"a": "café"}], {})
    for name in ("nonsense", "rot13", "utf-32"):
        with pytest.raises(ConfigError, match="one that keeps ASCII as it is"):
            read(tmp_path / "a.csv", "a\n", encoding=name)


ALPHABETS = {
    "cp1252": "Très bon produit, livré à l\u2019heure \u2013 déçu par la qualité",
    "cp1250": "Zażółć gęślą jaźń, bardzo dobry produkt, książka była świetna",
    "cp1251": "Очень хороший товар, рекомендую всем",
    "shift_jis": "とても良い商品でした。また買います",
}


@pytest.mark.parametrize(
    "content", ["id;text\r\n1;schön\r\n2;bad\r\n3;grüß Gott\r\n", "a;text\n1;10 € \u2013 \u201cgood\u201d\n"]
)
def test_a_csv_of_western_excel_is_read_and_told(tmp_path: Path, content: str) -> None:
    table, rows, problems = read_source(write(tmp_path / "a.csv", content.encode("cp1252")))
    assert not problems
    assert [row["text"] for row in rows] == [line.partition(";")[2] for line in content.splitlines()[1:]]
    assert "is not UTF-8 and was read as cp1252" in table.notices[0]


@pytest.mark.parametrize("encoding", ALPHABETS)
def test_another_encoding_is_never_taken_for_a_wrong_one(tmp_path: Path, encoding: str) -> None:
    content = f"id;text\n1;{ALPHABETS[encoding]}\n2;x\n".encode(encoding)
    if encoding == "cp1252":
        assert read(tmp_path / "a.csv", content)[0][0]["text"] == ALPHABETS[encoding]
    else:
        with pytest.raises(
            InputError, match=rf"cannot be told for sure\. It may be {encoding}\. Set encoding"
        ):
            read(tmp_path / "a.csv", content)
    assert read(tmp_path / "a.csv", content, encoding=encoding)[0][0]["text"] == ALPHABETS[encoding]


@pytest.mark.parametrize(
    ("encoding", "text", "guesses"),
    [
        ("cp1252", "Ça marche, déjà livré à l\u2019heure \u2013 un cœur léger", "cp1252 or cp125[07]"),
        ("cp1252", "È arrivato tardi, però la qualità è perfetta", "cp1252 or cp125[07]"),
        ("cp1252", "Mycket bra, kommer att köpa igen. Älskar färgen på båten", "cp1252 or cp125[07]"),
        ("cp1250", "Przesyłka dotarła szybko, polecam sprzedawcę, dobra jakość", "cp1250"),
        ("shift_jis", "配送が早くて助かりました", "shift_jis"),
    ],
)
def test_what_western_excel_saves_is_said_first_where_it_is_as_likely(
    tmp_path: Path, encoding: str, text: str, guesses: str
) -> None:
    with pytest.raises(InputError, match=rf"It may be {guesses}\. Set encoding"):
        read(tmp_path / "a.csv", f"id;text\n1;{text}\n".encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        "Die Lieferung kam pünktlich, die Qualität ist großartig",
        *("Müller in Köln", "STRASSE ÄRGER ÖL"),
        "Ça marche, mais l\u2019emballage était abîmé, déçu par la qualité",
        "Erittäin hyvä tuote, nopea lähetys ja ystävällinen henkilökunta",
    ],
)
def test_umlauts_are_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "a.csv", f"id;text\n1;{text}\n".encode("cp1252"))[0][0]["text"] == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_with_its_mark_is_read_and_told(tmp_path: Path, encoding: str) -> None:
    content = "id\ttext\r\n1\tgrün \U0001f600\r\n2\tlone \ud83d\r\n3\t" + "x" * 2**21 + "\r\n"
    if encoding == "utf-16-be":
        content = f"\ufeff{content}"
    table, rows, problems = read_source(write(tmp_path / "a.csv", content.encode(encoding, "surrogatepass")))
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["text"] == "grün \U0001f600"
    assert len(rows[2]["text"]) == 2**21
    assert list(problems) == [1]
    assert "is UTF-16 by its first bytes" in table.notices[0]
    lines = '{"text": "grün"}\n{"text": "b"}'.encode("utf-16")
    assert read(tmp_path / "a.jsonl", lines)[0] == [{"text": "grün"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [("sep=;", ";"), ('"SEP=;"\r', ";"), ("\ufeffsep=;", ";"), ("sep=\t", "\t"), ("sep=:", ":")],
)
def test_a_first_line_that_tells_excel_the_delimiter_is_no_row(
    tmp_path: Path, first: str, delimiter: str
) -> None:
    content = f"{first}\nid{delimiter}a,b\n1{delimiter}good\n"
    assert read(tmp_path / "a.csv", content) == ([{"id": "1", "a,b": "good"}], {})
    assert read(tmp_path / "a.csv", content, delimiter=delimiter) == ([{"id": "1", "a,b": "good"}], {})


def test_headers_without_names_and_with_the_same(tmp_path: Path) -> None:
    table, rows, _ = read_source(write(tmp_path / "a.csv", "id,,id,id_2\n1,2,3,4\n"))
    assert rows == [{"id": "1", "column_2": "2", "id_3": "3", "id_2": "4"}]
    assert [notice.partition(": ")[2] for notice in table.notices] == [
        "Column 2 has no name; it is called 'column_2'.",
        "Column 3 has the name 'id' of another; it is called 'id_3'.",
    ]


def test_several_csv_files_with_different_columns(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a,b\n1,2\n")
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"c,a\n3,4\n", mtime=0))
    (tmp_path / "3.csv.zst").write_bytes(zstandard.compress(b"a\n5\n"))
    _, rows, _ = read_source(tmp_path / "*.csv*")
    assert rows == [
        {"a": "1", "b": "2", "c": None},
        {"a": "4", "b": None, "c": "3"},
        {"a": "5", "b": None, "c": None},
    ]


def test_long_rows_come_in_small_blocks(tmp_path: Path) -> None:
    rows = [{"text": chr(97 + n) * 2**20} for n in range(26)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", use_dictionary=False)
    write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    for name in ("a.parquet", "a.jsonl"):
        found = find_row_files([str(tmp_path / name)], resolve_plain("/nowhere"), resolve_plain)
        with open_row_files(found) as table:
            assert max(block.batch.nbytes for block in table.blocks) < 20 * 2**20
    portions: list[int] = []

    def fetch(size: int) -> list[tuple[str]]:
        portions.append(size)
        return [("x" * 2**20,)] * size if len(portions) < 4 else []

    for _ in read_query_rows(fetch, lambda: ["text"]):
        pass
    assert portions == [100, 8, 8, 8]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_empty_file_is_an_empty_table(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, "") == ([], {})
    assert read(tmp_path / name, "\n\n") == ([], {})


def test_a_header_alone_is_an_empty_table_with_columns(tmp_path: Path) -> None:
    table, rows, _ = read_source(write(tmp_path / "a.csv", "a,b\n"))
    assert (table.schema.names, rows) == (["a", "b"], [])


def test_jsonl_keeps_types_and_tells_them_over_the_whole_file(tmp_path: Path) -> None:
    found = [
        {
            "id": 1,
            "text": "x",
            "score": 1,
            "mixed": 1,
            "big": 2**53 + 1,
            "huge": 2**70,
            "tags": ["a"],
            "in": {"x": 1},
        },
        {"id": 2, "text": None, "score": 1.5, "mixed": "a", "big": 0.5, "flag": True, "in": {"y": "z"}},
        {"id": 3, "mixed": {"k": [1]}, "late": "now"},
        {"id": 2**62, "mixed": True},
    ]
    # Types must not depend on where blocks of rows end.
    padding = [{"id": 9}] * BLOCK_ROWS
    for rows in (found, [found[0], *padding, *found[1:]]):
        content = "\n".join(json.dumps(row) for row in rows)
        table, read_rows, problems = read_source(write(tmp_path / "a.jsonl", content))
        assert not problems
        kept = [row for row in read_rows if row["id"] != 9]
        assert [row["id"] for row in kept] == [1, 2, 3, 2**62]
        assert [row["score"] for row in kept] == [1.0, 1.5, None, None]
        assert [row["mixed"] for row in kept] == ["1", "a", '{"k":[1]}', "true"]
        assert [row["big"] for row in kept[:2]] == [
            "9007199254740993",
            "0.5",
        ]  # as a float it would be another number
        assert kept[0]["huge"] == str(2**70)
        assert kept[0]["tags"] == ["a"]
        assert kept[1]["in"] == {"x": None, "y": "z"}
        assert kept[1]["flag"] is True
        assert table.schema.field("late").type == pa.string()
        assert table.schema.names[:4] == ["id", "text", "score", "mixed"]


def test_jsonl_objects_that_parquet_has_no_form_for_are_kept_as_text(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "a.jsonl", '{"a": {}, "b": [], "c": {"d": {}}}\n{"a": {"x": 1}, "b": [1]}')
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows
    assert (rows[0]["b"], rows[1]["b"]) == ([], [1])
    alone, _ = read(tmp_path / "a.jsonl", '{"a": {}, "c": {"d": {}}}')
    assert alone == [{"a": "{}", "c": '{"d":{}}'}]


def test_jsonl_lines_that_are_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LINE_BYTES", 500)
    content = b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a": "%b"}\n{"a": 2}' % (b"x" * 600)
    rows, problems = read(tmp_path / "a.jsonl", content)
    assert [row["a"] for row in rows] == [1, None, None, None, None, 2]
    assert problems == {
        1: "line 3 is not valid JSON",
        2: "line 4 is no JSON object",
        3: "line 5 is not valid UTF-8 (byte 8)",
        4: "line 6 is longer than any request may be (limit 500 bytes)",
    }


def test_parquet_keeps_its_types_over_files_that_differ(tmp_path: Path) -> None:
    day = dt.datetime(2026, 1, 31, 8, tzinfo=dt.UTC)
    first = pa.table(
        {
            "n": pa.array([1], pa.int32()),
            "at": pa.array([day], pa.timestamp("ns", "UTC")),
            "price": pa.array([Decimal("1.10")], pa.decimal128(5, 2)),
            "kind": pa.array(["x"]).dictionary_encode(),
        }
    )
    pq.write_table(first, tmp_path / "1.parquet")
    pq.write_table(pa.table({"n": pa.array([2**40]), "more": ["y"]}), tmp_path / "2.parquet")
    table, rows, _ = read_source(tmp_path / "*.parquet")
    assert table.schema.field("n").type == pa.int64()
    assert table.schema.field("at").type == pa.timestamp("ns", "UTC")
    assert [(row["n"], row["price"], row["kind"], row["more"]) for row in rows] == [
        (1, Decimal("1.10"), "x", None),
        (2**40, None, None, "y"),
    ]


def make_workbook(path: Path) -> Path:
    book = openpyxl.Workbook()
    first = book.active
    first.title = "Reviews"
    for row in [
        [],
        ["id", "text", "score", "at", None],
        [1, "=1+1", -2.5, dt.datetime(2026, 1, 31, 8)],
        [None, None, None, None],
        [2, "0012", 3, None],
        [3, "x", 4, None, None, "beyond"],
    ]:
        first.append(row)
    first["B3"].data_type = "s"
    book.create_sheet("Other").append(["a"])
    book.save(path)
    return path


def test_excel_first_sheet_with_types(tmp_path: Path) -> None:
    _, rows, problems = read_source(make_workbook(tmp_path / "a.xlsx"))
    assert rows == [
        {"id": 1, "text": "=1+1", "score": -2.5, "at": dt.datetime(2026, 1, 31, 8)},
        {"id": 2, "text": "0012", "score": 3.0, "at": None},
        {"id": 3, "text": "x", "score": 4.0, "at": None},
    ]
    assert list(problems) == [2]
    assert problems[2].endswith("of the header, which is the first row that is not blank: take away titles")


def test_excel_values_as_other_programs_write_them(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["id", "vat", "text", "stock"])
    sheet.append([1, "=A2*0.2", "First_x000D_\nSecond _x005F_x0041_ _xD83D__xDE00_", "#N/A"])
    sheet.append([2, "=A3*0.2", "_xZZZZ_ plain", "#DIV/0!"])
    sheet.append([3, 0.6, "x", 5])
    book.save(tmp_path / "a.xlsx")
    table, rows, problems = read_source(tmp_path / "a.xlsx")
    assert not problems
    assert [row["text"] for row in rows] == ["First\r\nSecond _x0041_ \U0001f600", "_xZZZZ_ plain", "x"]
    assert [row["stock"] for row in rows] == [None, None, 5]
    assert [row["vat"] for row in rows] == [None, None, 0.6]
    assert [notice.partition("a.xlsx: ")[2] for notice in table.notices] == [
        "2 cells with an error of Excel's (#DIV/0!, #N/A) taken as empty.",
        "2 formulas without a value taken as empty: the program that wrote the workbook did not compute them. Open it "
        "in Excel or LibreOffice and save it.",
    ]


def test_excel_other_sheets(tmp_path: Path) -> None:
    path = make_workbook(tmp_path / "a.xlsx")
    table, rows, _ = read_source(path, sheet="Other")
    assert (table.schema.names, rows) == (["a"], [])
    with pytest.raises(InputError, match=r"a.xlsx: has no sheet 'Oder'; it has Reviews, Other"):
        read_source(path, sheet="Oder")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"no workbook", "is no Excel workbook"),
        ("a.parquet", b"no table at all", "is no Parquet file, or was cut off"),
        ("a.parquet", b"PAR1" + bytes(100), "is no Parquet file, or was cut off"),
        ("a.csv", "a,b\n".encode("utf-32"), "is UTF-32. Save it as UTF-8"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "looks like utf-16-le without its mark. Set encoding"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16")[:-1], "ends in the middle of a character"),
        ("a.csv", b"PK\x03\x04 and so on", "is a ZIP file or an Excel workbook by its content"),
        ("a.csv", gzip.compress(b"a\n1\n", mtime=0), "is gzip by its content. Let its name end in .gz"),
        ("a.csv", b'"a,b\n1,2\n', "the header cannot be read: a quote is not closed"),
        ("a.jsonl", b'[{"a": 1}]', "is a JSON array. Write one object per line instead"),
        ("a.csv.gz", b"a,b\n", "damaged"),
    ],
)
def test_files_that_are_not_what_their_name_says(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        read(tmp_path / name, content)


def test_a_source_that_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a.txt: its name does not tell what it is .* Set format"):
        read(tmp_path / "a.txt", "a\n1\n")
    assert read(tmp_path / "a.txt", "a\n1\n", format="csv")[0] == [{"a": "1"}]
    write(tmp_path / "b.jsonl", "")
    (tmp_path / "a.txt").rename(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="mixes formats"):
        read_source(tmp_path / "?.*")
    with pytest.raises(InputError, match="no file matches it"):
        read_source(tmp_path / "*.parquet")
    with pytest.raises(ConfigError, match="format='excel': must be one of auto, csv"):
        read_source(tmp_path / "a.csv", format="excel")


def test_objects_below_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    write(tmp_path / "in" / "b.txt", "\ufeffsecond")
    write(tmp_path / "in" / "sub" / "c.txt", b"\xff")
    write(tmp_path / "in" / "a.txt", "first")
    write(tmp_path / "in" / ".hidden", "x")
    write(tmp_path / "in" / "z.txt", "")
    _, rows, problems = read_source(f"{tmp_path}/in/")
    assert [(row["name"], row["size_bytes"], row["text"]) for row in rows] == [
        ("a.txt", 5, "first"),
        ("b.txt", 9, "second"),
        ("sub/c.txt", 1, None),
        ("z.txt", 0, None),
    ]
    assert problems == {2: "is not valid UTF-8 (byte 1)"}
    table, rows, _ = read_source(f"{tmp_path}/in/", format="files")
    assert table.schema.names == ["uri", "name", "size_bytes"]
    assert rows[0]["uri"].endswith("/in/a.txt")


def test_query_results_with_the_values_of_drivers() -> None:
    name = uuid.UUID(int=7)
    first = [(1, Decimal("1.5"), memoryview(b"\x00"), dt.date(2026, 1, 1), name, "a")]
    second = [(2, Decimal("123.25"), None, None, None, 5), (None,) * 6]
    portions = iter([first, second, []])
    blocks = read_query_rows(lambda rows: next(portions), lambda: ["id", "price", "raw", "day", "u", "id"])
    with spool_table(blocks) as table:
        rows = [row for block in table.blocks for row in block.batch.to_pylist()]
    assert rows == [
        {
            "id": 1,
            "price": Decimal("1.50"),
            "raw": b"\x00",
            "day": dt.date(2026, 1, 1),
            "u": str(name),
            "id_2": "a",
        },
        {"id": 2, "price": Decimal("123.25"), "raw": None, "day": None, "u": None, "id_2": "5"},
        {"id": None, "price": None, "raw": None, "day": None, "u": None, "id_2": None},
    ]


def test_a_query_without_rows_has_columns_all_the_same() -> None:
    with spool_table(read_query_rows(lambda rows: [], lambda: ["id", "text"])) as table:
        assert table.schema.names == ["id", "text"]
        assert [block.batch.num_rows for block in table.blocks] == [0]
