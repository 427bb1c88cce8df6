"""A value's type is its own: prompts see each row as it was read, whatever other rows hold."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.tables.reading import limits
from airflow_openai_batch.tables.reading.read_items import read_item_rows
from airflow_openai_batch.tables.reading.read_query import read_query_rows
from airflow_openai_batch.tables.reading.spool import RawBlock, spool_table
from fixtures.prepared import ask, prepare, read_reasons, read_requests, read_rows

if TYPE_CHECKING:
    import pytest


def ask_about(rows: list[dict[str, Any]], tmp_path: Path, prompt: str) -> list[str]:
    """The texts that go out for the lines of a JSONL file."""
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "in.jsonl", tmp_path / "out", ask(user=prompt))
    return read_texts(tmp_path / "out")


def read_texts(output: Path) -> list[str]:
    return [request["body"]["messages"][-1]["content"] for request in read_requests(output)]


def test_one_odd_cell_changes_no_other_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"meta": {"name": f"Book {n}", "year": 1990 + n}} for n in range(5)]
    rows[3]["meta"]["year"] = "c. 1993"
    texts = ask_about(rows, tmp_path, "{{ meta.name }}, {{ meta.year }}")
    assert texts == [f"Book {n}, {row['meta']['year']}" for n, row in enumerate(rows)]


def test_numbers_stay_the_numbers_that_they_were(tmp_path: Path) -> None:
    rows = [{"n": 1}, {"n": 2.5}, {"n": "3"}, {"n": True}, {"n": 2**70}, {"n": [1, "a", {"b": None}]}]
    texts = ask_about(rows, tmp_path, "{{ n }} {{ row | tojson }}")
    assert texts[:3] == ['1 {"n": 1}', '2.5 {"n": 2.5}', '3 {"n": "3"}']
    assert texts[4:] == [
        f'{2**70} {{"n": {2**70}}}',
        '[1, "a", {"b": null}] {"n": [1, "a", {"b": null}]}',
    ]
    assert [row["n"] for row in read_rows(tmp_path / "out")] == [
        "1", "2.5", "3", "true", str(2**70), '[1,"a",{"b":null}]',
    ]  # fmt: skip


def test_rows_do_not_bring_the_keys_of_others(tmp_path: Path) -> None:
    rows = [{"page": n, f"only {n}": n, "counts": {f"user {n}": n}} for n in range(300)]
    texts = ask_about(rows, tmp_path, "{{ row | tojson }}")
    assert [json.loads(text) for text in texts] == rows
    kept = read_rows(tmp_path / "out")
    assert json.loads(kept[7]["counts"]) == {"user 7": 7}, "no table has a field for each user"
    assert (kept[7]["only 7"], kept[7]["only 8"]) == (7, None)


def test_a_key_that_a_row_lacks_is_an_empty_cell(tmp_path: Path) -> None:
    rows = [{"id": 1, "title": "x"}, {"id": 2}]
    ask_about(rows, tmp_path, "{{ title }}")
    assert read_reasons(tmp_path / "out") == {1: "user: column 'title' is empty"}
    (tmp_path / "other").mkdir()
    template = (
        "{{ 'none' if row.title is none else row.title }} {{ 'title' in row }}"
        "{% for name in row %} {{ name }}{% endfor %}"
    )
    assert ask_about(rows, tmp_path / "other", template) == ["x True id title", "none False id"]


def test_cells_of_workbooks_and_queries_have_types_of_their_own(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [["n", "day"], [1, dt.datetime(2026, 1, 31)], [2.5, "soon"], ["three", None]]:
        book.active.append(row)
    book.save(tmp_path / "in.xlsx")
    prepare(
        tmp_path / "in.xlsx", tmp_path / "out", ask(user="{{ n }} {{ day.strftime('%d.%m.') if _row == 0 }}")
    )
    assert read_texts(tmp_path / "out") == ["1 31.01.", "2.5 ", "three "]
    portions = iter([[(1, Decimal("1.10"), b"\xff"), ("a", None, memoryview(b"x"))], []])
    with spool_table(read_query_rows(lambda _: next(portions), lambda: ["n", "price", "raw"])) as table:
        (block,) = table.blocks
        assert block.rows == [
            {"n": 1, "price": Decimal("1.10"), "raw": b"\xff"},
            {"n": "a", "price": None, "raw": b"x"},
        ]
        assert block.batch.column("n").to_pylist() == ["1", "a"]


def test_what_code_hands_out_is_a_value_or_rejects_its_row() -> None:
    class Thing:
        pass

    day = dt.datetime(2026, 1, 31, 8, tzinfo=dt.UTC)
    items: list[dict[str, Any]] = [
        {"a": {"at": day, "days": [day.date()], "took": dt.timedelta(1, 2, 3)}, "t": (1, {"b"})},
        {"a": {"deep": [Thing()]}},
        {"a": len},
        {"a": "half \ud83d"},
    ]
    with spool_table(read_item_rows(items)) as table:
        (block,) = table.blocks
    assert block.rows is not None
    assert block.rows[0] == {**items[0], "t": [1, ["b"]]}
    assert block.rows[3] == {"a": "half \ufffd"}
    assert block.problems == {
        1: "column 'a' holds a Thing, which has no form as text",
        2: "column 'a' holds a builtin_function_or_method, which has no form as text",
    }


def test_too_many_keys_and_too_deep_cells_reject_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS", 3)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    rows = [{"a": 1, "b": 2, "c": 3}, {"d": 2}, {"a": deep}, {"c": 3}]
    with spool_table([RawBlock(rows, {})]) as table:
        (block,) = table.blocks
    assert table.schema.names == ["a", "b", "c"]
    assert list(block.problems) == [1, 2]
    assert block.problems[1].startswith("brings 1 key beside the 3 of the rows before, limit 3 in all")
    assert block.problems[2] == "column 'a' is nested more than 100 levels deep"


def test_parquet_values_that_python_has_none_for(tmp_path: Path) -> None:
    table = pa.table(
        {
            "born": pa.array([-719529, 20000], pa.date32()),
            "until": pa.array([253402300799000000, 0], pa.timestamp("us", tz="Europe/Berlin")),
            "took": pa.array([2**62, 1], pa.duration("s")),
            "in": pa.array([{"at": -719529}, None], pa.struct([("at", pa.date32())])),
            "text": pa.array([b"caf\xc3\xa9", b"\xff"], pa.binary()),
            "price": pa.array([1.5, float("nan")]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    prepare(tmp_path / "in.parquet", tmp_path / "1", ask(user="{{ born }}|{{ until }}|{{ took }}"))
    assert read_texts(tmp_path / "1") == [
        "-0001-12-31|9999-12-31 23:59:59+00:00|4611686018427387904 s",
        "2024-10-04|1970-01-01 01:00:00+01:00|0:00:01",
    ]
    prepare(tmp_path / "in.parquet", tmp_path / "2", ask(user="{{ text }} {{ price }} {{ row['in'] }}"))
    assert read_texts(tmp_path / "2") == ['café 1.5 {"at": "-0001-12-31"}']
    assert read_reasons(tmp_path / "2") == {1: "user: column 'text' is binary and no text in UTF-8"}
    prepare(tmp_path / "in.parquet", tmp_path / "3", ask(user="{{ price }}"))
    assert read_reasons(tmp_path / "3") == {1: "user: column 'price' is empty"}
