"""Late rows of a day whose cells have types: they are asked as they would have been with the others, and once."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.recipes.reviews.known_answers import KnownAnswers
from fixtures.nights import make_day_form, read_day_table

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

DAG_ID = "reviews_sentiment_nightly"
PROMPT = (
    "{{ stored_at.strftime('%d.%m.%Y') }} {{ took }} {{ '%.1f' % price }} {{ source }} "
    "{{ stars or '' }}: {{ text }}"
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("stored_at", pa.timestamp("us", "UTC")),
        ("took", pa.duration("s")),
        ("price", pa.decimal128(10, 2)),
        ("source", pa.binary()),
        ("stars", pa.float64()),
    ]
)


def write_parquet(file: Path, count: int) -> None:
    rows = [
        {
            "text": f"Lovely, number {number}",
            "stored_at": dt.datetime(2025, 6, number, 10, 0, number, tzinfo=dt.UTC),
            "took": dt.timedelta(hours=number),
            "price": Decimal(number),
            "source": b"shop",
            "stars": [5.0, float("nan"), float("nan"), float("inf"), float("-inf"), 4.5][number % 6],
        }
        for number in range(1, count + 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)


def write_workbook(file: Path, count: int) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(SCHEMA.names)
    for number in range(1, count + 1):
        day = dt.datetime(2025, 6, number, 10, 0, number)
        sheet.append([f"Lovely, number {number}", day, dt.timedelta(hours=30), number / 4, "shop", number])
    book.save(file)


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("write", [write_parquet, write_workbook])
def test_late_rows_keep_their_types_and_are_asked_as_the_others_and_once(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Any, write: Any
) -> None:
    dag = copied_dag(DAG_ID, "sentiment.yaml", ("{{ text }}", PROMPT))
    file = tmp_path / f"2025-06-20.{'parquet' if write is write_parquet else 'xlsx'}"
    form = make_day_form(tmp_path, file.suffix[1:])
    for count in (1, 4, 5):
        write(file, count)
        run = run_dag(dag, form)
        assert run.state == "success", run.failures
        table = read_day_table(tmp_path)
        assert [row["answer_status"] for row in table] == ["ok"] * count
        assert sum(openai_server.books.good.values()) == count, "each row is paid once"


@pytest.mark.usefixtures("openai_conn")
def test_how_many_rows_may_be_rejected_is_of_the_day_and_not_of_what_came_late(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Any
) -> None:
    dag = copied_dag(DAG_ID, "sentiment.yaml", ("{{ text }}", "{{ stars }} stars: {{ text }}"))
    file = tmp_path / "2025-06-20.csv"
    form = make_day_form(tmp_path, "csv", max_rejected_fraction=0.2)
    lines = ["stars,text", *(f"5,Lovely {number}" for number in range(8))]
    good = 8
    for late in ([], ["1,"], ["2,", "2,Broken"]):  # alone, and beside a good one
        lines += late
        good += sum(not line.endswith(",") for line in late)
        file.write_text("\n".join(lines) + "\n")
        run = run_dag(dag, form)
        assert run.state == "success", run.failures
        rows = read_day_table(tmp_path)
        statuses = ["rejected" if line.endswith(",") else "ok" for line in lines[1:]]
        assert [row["answer_status"] for row in rows] == statuses
        assert sum(openai_server.books.good.values()) == good
    file.write_text("\n".join([*lines, *["3,"] * 10, "3,Fine"]) + "\n")
    run = run_dag(dag, form)
    assert run.state == "failed"
    assert "10 rows of 11 cannot be sent" in run.errors("prepare"), "equal ones count each"
    assert sum(openai_server.books.good.values()) == good
    file.write_text("\n".join([*lines, "3,", "3,Fine"]) + "\n")  # mended: 3 of 13 are too many all the same
    assert run_dag(dag, form).state == "failed"
    run = run_dag(dag, {**form, "max_rejected_fraction": 0.25})
    assert run.state == "success", run.failures


@pytest.mark.usefixtures("openai_conn")
def test_rows_of_a_jsonl_are_the_same_in_a_column_that_turns_into_texts(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Any
) -> None:
    prompt = "{{ stars or '' }} {{ shop or '' }} {{ seen or '' }}: {{ text }}"
    dag = copied_dag(DAG_ID, "sentiment.yaml", ("{{ text }}", prompt))
    form = make_day_form(tmp_path, "jsonl")
    lines = [
        '{"stars": 5.0, "text": "Lovely.", "shop": {"town": "Ulm", "no": 1.0}, "seen": [1.0, 2]}',
        '{"stars": 4.5, "text": "It broke.", "shop": {"street": "See", "area": null}, "seen": [null]}',
        '{"stars": 3, "text": "Fine.", "shop": null}',
    ]
    for late in (
        [],
        ['{"stars": "n/a", "text": "Late.", "shop": "closed", "seen": "never"}'],
        ['{"stars": "5.00", "text": "Lovely.", "shop": "{Ulm}", "seen": "[1"}'],
    ):
        lines += late
        (tmp_path / "2025-06-20.jsonl").write_text("".join(line + "\n" for line in lines))
        run = run_dag(dag, form)
        assert run.state == "success", run.failures
        rows = read_day_table(tmp_path)
        assert [row["answer_status"] for row in rows] == ["ok"] * len(lines)
        assert sum(openai_server.books.good.values()) == len(lines), "each row is paid once"


def write_mixed_workbook(file: Path, night: int) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["text", "seen", "took", "price"])
    sheet.append(["Lovely.", dt.datetime(2025, 6, 1, 10), dt.timedelta(hours=30), 5])
    sheet.append(["It broke.", dt.datetime(2025, 6, 2, 10, 0, 0, 500_000), dt.timedelta(seconds=30), 1e22])
    for late in range(night):
        sheet.append([f"Late {late}.", "n/a", "n/a", "n/a"])
    book.save(file)


def write_other_types(file: Path, night: int) -> None:
    """The same values each night: in the type of the first, of a wider one, and as texts."""
    zone = ["UTC", "Europe/Berlin", "Europe/Berlin"][night]
    seen = [dt.datetime(2025, 6, day, 10, tzinfo=dt.UTC) for day in (1, 2)]
    columns: dict[str, Any] = {
        "text": pa.array(["Lovely.", "It broke."]),
        "seen": pa.array(seen, pa.timestamp("us", zone)),
        "took": pa.array([5, 4], [pa.int64(), pa.float64(), pa.float64()][night]),
        "price": pa.array([Decimal("5.5"), Decimal("4")], pa.decimal128(12, night + 1)),
    }
    if night == 2:
        columns["seen"] = pa.array(["2025-06-01 10:00:00+00:00", "2025-06-02 10:00:00+00:00"])
        columns["took"], columns["price"] = pa.array(["5", "4"]), pa.array(["5.5", "4.0"])
    table = pa.table(columns)
    late = pa.Table.from_pylist([{"text": f"Late {number}."} for number in range(night)], table.schema)
    pq.write_table(pa.concat_tables([table, late]), file)


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("write", [write_mixed_workbook, write_other_types])
def test_rows_are_the_same_in_columns_that_get_another_type(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Any, write: Any
) -> None:
    prompt = "{{ seen or '' }} {{ took or '' }} {{ price or '' }}: {{ text }}"
    dag = copied_dag(DAG_ID, "sentiment.yaml", ("{{ text }}", prompt))
    file = tmp_path / f"2025-06-20.{'xlsx' if write is write_mixed_workbook else 'parquet'}"
    form = make_day_form(tmp_path, file.suffix[1:])
    for night in range(3):
        write(file, night)
        run = run_dag(dag, form)
        assert run.state == "success", run.failures
        rows = read_day_table(tmp_path)
        assert [row["answer_status"] for row in rows] == ["ok"] * (2 + night)
        assert sum(openai_server.books.good.values()) == 2 + night, "each row is paid once"


def test_texts_that_look_like_the_same_value_are_different_rows() -> None:
    texts = ["5", "5.0", "05", "5.00", "2025-06-01 10:00:00", "2025-06-01T10:00:00", "null", "inf"]
    values: list[Any] = [dt.datetime(2025, 6, 1, 10), 5.5, Decimal("6.50"), float("inf"), float("-inf"), True]
    with KnownAnswers(["it"], as_lines=False) as known:
        for value in [*texts, *values]:
            known.add({"it": value}, [str(value)], 1)
        for value in texts:
            found = known.find({"it": value})
            assert found is not None
            assert found.cells == [value]
        assert known.find({"it": "5.50"}) is None
        assert known.find({"it": Decimal("6.5")}) is not None
        assert known.find({"it": None}) is None
