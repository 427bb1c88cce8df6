"""Any table and a prompt typed into the form: what a new user tries first, and what they get wrong."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLE = Path(__file__).parents[2] / "include" / "samples" / "table" / "reviews.csv"


@pytest.fixture
def ask(run_dag: RunDag, tmp_path: Path) -> Callable[..., FinishedRun]:
    """Trigger the DAG with what was typed; the rest of the form stays as it is."""

    def run(**typed: Any) -> FinishedRun:
        conf = {"output_uri": f"file://{tmp_path}/out", "poll_interval": 0.1, **typed}
        return run_dag("openai_batch_table", conf)

    return run


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_untouched_form_runs_on_the_sample(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    run = run_dag("openai_batch_table")
    assert run.state == "success", run.failures
    table = Path(run.xcom("join")["uri"].removeprefix("file://"))
    assert table.parent.parent.name == "openai_batch_table"
    rows = read_csv(table)
    assert [row["review"] for row in rows] == [row["review"] for row in read_csv(SAMPLE)]
    assert {row["mood"] for row in rows} <= {"good", "bad", "mixed"}
    assert all(isinstance(json.loads(row["topics"]), list) for row in rows)
    assert {row["answer_status"] for row in rows} == {"ok"}
    assert openai_server.books.billed["batch"] == 0, "a handful goes out in real time"


@pytest.mark.long
def test_a_batch_of_a_parquet_becomes_typed_columns_of_a_workbook(
    ask: Callable[..., FinishedRun], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    import pyarrow as pa

    texts = [f"text {at % 12}" for at in range(15)]
    pq.write_table(pa.table({"My text": texts, "n": list(range(15))}), tmp_path / "in.parquet")
    openai_server.answer = lambda body: json.dumps(
        {"length": len(body["messages"][-1]["content"]), "fair": True}
    )
    typed = {
        "source": str(tmp_path / "in.parquet"),
        "prompt": "How long?\n{{ row['My text'] }}",
        "system": "Count.",
        "answer_columns": "length (integer): characters\nfair (boolean)",
        "format": "xlsx",
        "mode": "batch",
    }
    run = ask(**typed)
    assert run.state == "success", run.failures
    sheet = list(openpyxl.load_workbook(tmp_path / "out" / "answers.xlsx").active.values)
    cells = [dict(zip(sheet[0], values, strict=True)) for values in sheet[1:]]
    assert [cell["My text"] for cell in cells] == texts
    assert [cell["length"] for cell in cells] == [len(f"How long?\n{text}") for text in texts]
    assert all(cell["fair"] is True for cell in cells)
    assert openai_server.books.billed["batch"] == 12, "equal rows are asked once"
    again = ask(**typed)
    assert again.state == "success", again.failures
    assert openai_server.books.billed["batch"] == 12, "the same output again pays nothing"


def test_a_name_that_is_no_column_is_met_before_anything_is_sent(
    ask: Callable[..., FinishedRun], openai_server: OpenAIServer
) -> None:
    run = ask(prompt="Good? {{ reveiw }}")
    assert run.states[("prepare", -1)] == "failed"
    assert (
        "user: needs the column 'reveiw', which the table does not have. Did you mean 'review'? "
        "It has: id, product, review, stars." in run.errors("prepare")
    )
    assert openai_server.files() == []


def test_a_preview_shows_tokens_and_cost_and_sends_nothing(
    ask: Callable[..., FinishedRun],
    openai_server: OpenAIServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = ask(preview=2)
    assert run.state == "success", run.failures
    assert {task for (task, _), state in run.states.items() if state == "success"} == {"prepare"}
    shown = "".join(capfd.readouterr())
    assert "Boils fast, pours without dripping" in shown
    assert "2 requests for gpt-6-luna: " in shown
    assert "as a batch" in shown
    assert "Nothing was sent" in shown
    assert openai_server.books.billed == {}
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_csv_as_excel_saves_it_is_read_as_it_was_meant_and_comes_back_without_formulas(
    ask: Callable[..., FinishedRun],
    openai_server: OpenAIServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    openai_server.answer = lambda body: f"={body['messages'][-1]['content']}"
    (tmp_path / "in.csv").write_bytes(
        "sep=;\r\nid;text\r\n1;sch\u00f6n\r\n2;gr\u00fc\u00df Gott\r\n".encode("cp1252")
    )
    form = {"source": str(tmp_path / "in.csv"), "prompt": "{{ text }}", "answer_columns": None}
    run = ask(**form)
    assert run.state == "success", run.failures
    assert "was read as cp1252" in "".join(capfd.readouterr())
    rows = read_csv(tmp_path / "out" / "answers.csv")
    assert [row["answer"] for row in rows] == ["'=sch\u00f6n", "'=gr\u00fc\u00df Gott"]
    run = ask(**form, raw_csv=True)
    assert run.state == "success", run.failures
    assert read_csv(tmp_path / "out" / "answers.csv")[0]["answer"] == "=sch\u00f6n"


@pytest.mark.long
def test_rows_that_cannot_be_asked_are_in_the_table_with_their_reason(
    ask: Callable[..., FinishedRun], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,fine\n2,\n")
    run = ask(source=str(tmp_path / "in.csv"), prompt="Good? {{ text }}", answer_columns=None)
    assert run.state == "failed"
    assert "1 row of 2 could not be asked about: more than max_rejected_fraction=0.05" in str(run.failures)
    rows = read_csv(tmp_path / "out" / "answers.csv")
    assert [row["answer_status"] for row in rows] == ["ok", "rejected"]
    assert rows[1]["answer_error"] == "user: column 'text' is empty"


@pytest.mark.long
def test_the_table_comes_with_reasons_even_where_no_row_could_be_asked(
    ask: Callable[..., FinishedRun], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,\n2,\n")
    run = ask(source=str(tmp_path / "in.csv"), prompt="Good? {{ text }}", max_rejected_fraction=1)
    assert run.state == "success", run.failures
    assert run.states[("ask.split", -1)] == "skipped"
    assert run.states[("ask.publish", -1)] == "skipped"
    rows = read_csv(tmp_path / "out" / "answers.csv")
    assert [(row["id"], row["answer_status"], row["answer_error"], row["mood"]) for row in rows] == [
        (n, "rejected", "user: column 'text' is empty", "") for n in ("1", "2")
    ]
    assert openai_server.files() == []


def test_a_bad_answer_turns_the_run_red_and_the_table_is_there(
    ask: Callable[..., FinishedRun], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(line=400, code="invalid_request_error", custom_id="row-3", times=None)
    run = ask(mode="batch", format="parquet")
    assert run.state == "failed"
    assert {task for (task, _), state in run.states.items() if state == "failed"} == {"ask.publish"}
    rows = pq.read_table(tmp_path / "out" / "answers.parquet").to_pylist()
    assert [row["answer_status"] for row in rows] == ["ok"] * 3 + ["failed"] + ["ok"] * 4
    assert rows[3]["mood"] is None


@pytest.mark.long
def test_a_sample_leaves_the_other_rows_open_and_the_rest_goes_on_from_it(
    ask: Callable[..., FinishedRun], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    assert ask(sample_requests=2, mode="batch").state == "success"
    rows = read_csv(tmp_path / "out" / "answers.csv")
    assert [row["answer_status"] for row in rows] == ["ok"] * 2 + ["unfinished"] * 6
    assert all("not part of the sample" in row["answer_error"] for row in rows[2:])
    assert ask(mode="batch").state == "success"
    assert {row["answer_status"] for row in read_csv(tmp_path / "out" / "answers.csv")} == {"ok"}
    assert openai_server.books.billed["batch"] == 8


@pytest.mark.long
def test_rows_of_a_query_and_a_schema_of_ones_own(
    ask: Callable[..., FinishedRun],
    tmp_path: Path,
    define_connection: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_SQL_CONN_IDS", "shop")
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER, text TEXT)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?)", [(1, "good"), (2, "poor")])
    connection.close()
    define_connection("shop", conn_type="sqlite", host=str(tmp_path / "shop.db"))
    schema = {"type": "object", "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}}}
    run = ask(
        sql="SELECT id, text FROM reviews ORDER BY id",
        sql_conn_id="shop",
        prompt="{{ text }}",
        answer_schema=schema,
        format="jsonl",
    )
    assert run.state == "success", run.failures
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["good", "poor"]
    assert all(0 <= row["score"] <= 1 for row in rows)
