"""The prepare operator in real Airflow: from files and a database to answers, and what a user meets on the way."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from pydantic import BaseModel

from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from fixtures.job import Job
from fixtures.prepared import ASK, read_reasons, read_requests, read_rows

if TYPE_CHECKING:
    from fixtures.airflow_runs import FinishedRun, RunDag

SECRET = "hush-hush"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(f"id,text\n1,{SECRET}\n2,\n3,bad\n4,{SECRET}\n")
    return path


def run_prepare(run_dag: RunDag, tmp_path: Path, **settings: Any) -> FinishedRun:
    """One task that prepares into ``out``, and one after it that is skipped where there is nothing to do."""
    conf = settings.pop("conf", None)
    params = settings.pop("params", {})
    retries = settings.pop("retries", 0)
    with DAG("prepare_only", schedule=None, params=params) as dag:
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare", **{"prompt": ASK, "output_uri": f"file://{tmp_path}/out", **settings}
        )

        @dag.task
        def after() -> None:
            return None

        prepare >> after()
    return run_dag(dag, conf, retries=retries)


@pytest.mark.usefixtures("openai_conn")
def test_a_table_becomes_answers(run_dag: RunDag, tmp_path: Path, table: Path) -> None:
    job = Job(tmp_path)
    with DAG("table", schedule=None) as dag:
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare",
            source=str(table),
            prompt={**ASK, "parameters": {"max_tokens": 200}},
            output_uri=f"file://{tmp_path}/{{run_id}}/prepared",
            dedupe=True,
        )
        split = OpenAIBatchSplitOperator(
            task_id="split", input_uri=prepare.output, output_uri=f"file://{job.output}"
        )
        shards = OpenAIBatchShardOperator.partial(task_id="shard", poll_interval=0.1).expand(
            shard=split.output
        )
        shards >> OpenAIBatchReportOperator(task_id="publish", job=f"file://{job.output}")
    run = run_dag(dag)
    assert run.state == "success", run.failures
    prepared = Path(run.xcom("prepare", key="prepared").removeprefix("file://"))
    assert ":" not in prepared.parent.name, "the run id in a form fit for a path"
    answers = {row["position"]: row for row in job.rows()}
    rows = read_rows(prepared)
    assert [row["_position"] for row in rows] == [0, None, 1, 0]
    assert all(answers[row["_position"]]["status"] == "ok" for row in rows if row["_position"] is not None)
    assert run.xcom("prepare", key="counts") == {"rows": 4, "requests": 2, "rejected": 1, "duplicates": 1}


@pytest.fixture
def database(tmp_path: Path, define_connection: Callable[..., str]) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER, text TEXT, stars REAL, day TEXT)")
        rows = [(n, f"text {n}", n / 2, "2026-01-31" if n % 2 else "2026-02-01") for n in range(5_000)]
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?)", rows)
    connection.close()
    define_connection("shop", conn_type="sqlite", host=str(path))
    return path


def test_a_table_whose_name_cannot_be_written_down_is_named(run_dag: RunDag, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.csv")).write_text("text\nGood.\n")
    run = run_prepare(run_dag, tmp_path, source=f"{tmp_path}/*.csv")
    ((task_id, _, message),) = run.failures
    assert task_id == "prepare"
    assert message.endswith("caf\\udce9.csv: its name is no UTF-8. Rename the file.")


def test_rows_of_a_query(run_dag: RunDag, tmp_path: Path, database: Path) -> None:
    run = run_prepare(
        run_dag,
        tmp_path,
        sql="SELECT id, text, stars FROM reviews WHERE day = :day ORDER BY id",
        sql_parameters={"day": "{{ params.day }}"},
        conn_id="shop",
        params={"day": "2026-01-31"},
    )
    assert run.state == "success", run.failures
    rows = read_rows(tmp_path / "out")
    assert [(row["id"], row["stars"]) for row in rows] == [(n, n / 2) for n in range(1, 5_000, 2)]
    assert len(read_requests(tmp_path / "out")) == 2_500


def test_a_query_in_another_order_does_not_change_a_job_under_way_and_the_log_says_so(
    run_dag: RunDag, tmp_path: Path, database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"sql": "SELECT id, text FROM reviews LIMIT 3", "conn_id": "shop"}
    assert run_prepare(run_dag, tmp_path, **settings).state == "success"
    assert "is not asked again" not in "".join(capfd.readouterr())
    before = read_requests(tmp_path / "out")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE reviews SET id = -id, text = 'other'")
    connection.close()
    run = run_prepare(run_dag, tmp_path, **settings)
    assert run.state == "success", run.failures
    assert read_requests(tmp_path / "out") == before
    assert run.xcom("prepare", key="counts")["requests"] == 3
    assert "is not asked again: rows that came since are not among these 3" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sql": "SELECT id FROM orders"}, "connection 'shop': OperationalError: no such table: orders"),
        ({"sql": "DELETE FROM reviews WHERE id < 0"}, "the statement returns no rows. It must be a query"),
        ({"sql": "SELECT 1", "conn_id": "none_such"}, "connection 'none_such': does not exist"),
        ({"sql": "SELECT 1", "conn_id": None}, "conn_id is empty"),
        ({"sql": "SELECT 1", "conn_id": "openai_default"}, "is none of a database that takes SQL"),
        ({"sql": "SELECT id FROM reviews"}, "user: needs the column 'text', which the table does not have"),
        ({}, "Name either a source, or sql with conn_id"),
    ],
)
@pytest.mark.usefixtures("openai_conn")
def test_what_is_wrong_with_a_query_is_said(
    run_dag: RunDag, tmp_path: Path, database: Path, settings: dict[str, Any], message: str
) -> None:
    run = run_prepare(run_dag, tmp_path, **{"conn_id": "shop", **settings})
    assert run.states[("prepare", -1)] == "failed"
    assert message in run.errors("prepare")


@pytest.mark.parametrize(
    ("sql", "tries"),
    [("SELECT none_such FROM reviews", 1), ("SELECT :day", 1), ("SELECT id, text FROM reviews", 3)],
)
@pytest.mark.usefixtures("openai_conn")
def test_what_the_query_is_refused_for_is_not_tried_again(
    run_dag: RunDag, tmp_path: Path, database: Path, sql: str, tries: int
) -> None:
    """Where the way to the database is closed, it is."""
    if tries > 1:
        database.unlink()
        database.mkdir()
    with DAG("ask_once", schedule=None) as dag:
        OpenAIBatchPrepareOperator(
            task_id="prepare", sql=sql, conn_id="shop", prompt=ASK, output_uri=str(tmp_path / "out")
        )
    run = run_dag(dag, retries=2)
    assert run.state == "failed"
    assert len(run.failures) == tries, run.failures
    assert ("Correct the query, or what its user may read." in run.errors("prepare")) == (tries == 1)


def test_prompt_and_model_may_be_typed_into_the_form(run_dag: RunDag, tmp_path: Path, table: Path) -> None:
    """What a person types holds templates of its own, which Airflow must leave alone."""
    run = run_prepare(
        run_dag,
        tmp_path,
        source="{{ params.source }}",
        prompt_overrides={
            "user": "{{ params.prompt }}",
            "model": "{{ params.model }}",
            "system": "{{ params.no }}",
        },
        params={"prompt": "", "model": "", "source": "", "no": None},
        conf={"prompt": "Tags for: {{ text | upper }}", "model": "gpt-4o", "source": str(table)},
    )
    assert run.state == "success", run.failures
    body = read_requests(tmp_path / "out")[0]["body"]
    assert body["model"] == "gpt-4o"
    assert body["messages"] == [{"role": "user", "content": f"Tags for: {SECRET.upper()}"}]


def test_prompts_from_files_are_found_from_the_dag(run_dag: RunDag, tmp_path: Path, table: Path) -> None:
    name = "fixtures/nothing.yaml"
    run = run_prepare(run_dag, tmp_path, source=str(table), prompt=name)
    folder = Path(__file__).parent
    prompts = folder.parents[1] / "include" / "prompts"
    looked_at = f"{folder}/{name}, {folder.parent}/{name}, {prompts}/nothing.yaml"
    assert f"{name}: there is no such prompt file. Looked at {looked_at}." in run.errors("prepare")
    for given in (prompts / "sentiment.yaml", f"file://{prompts}/sentiment.yaml"):
        run = run_prepare(run_dag, tmp_path, source=str(table), prompt=given)
        assert run.state == "success", run.failures
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["prompt"]["name"] == "sentiment"


class Verdict(BaseModel):
    """A Pydantic model in a DAG."""

    tone: str


def test_a_pydantic_model_as_schema(run_dag: RunDag, tmp_path: Path, table: Path) -> None:
    run = run_prepare(run_dag, tmp_path, source=str(table), prompt={**ASK, "response_schema": Verdict})
    assert run.state == "success", run.failures
    schema = read_requests(tmp_path / "out")[0]["body"]["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["required"] == ["tone"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["schema"] == schema["schema"]


def test_a_preview_shows_requests_with_tokens_and_cost_and_does_nothing_else(
    run_dag: RunDag, tmp_path: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_prepare(run_dag, tmp_path, source=str(table), preview="2")
    assert run.states == {("prepare", -1): "success", ("after", -1): "skipped"}
    shown = "".join(capfd.readouterr())
    assert "contents of rows are shown because preview=2 asks for it" in shown
    assert "row-0: 12 input tokens, at most $0.000004 as a batch" in shown
    assert f"Good? {SECRET}" in shown
    assert "Row 1 would be rejected: user: column 'text' is empty." in shown
    assert "1 request for gpt-4o-mini: 12 input tokens" in shown
    assert not (tmp_path / "out").exists()


def test_a_deployment_is_counted_and_priced_as_the_model_behind_it(
    run_dag: RunDag,
    tmp_path: Path,
    table: Path,
    define_connection: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """``gpt-4o-mini`` reads 128,000 tokens; of another name that would not be known, nor its price."""
    long = tmp_path / "long.csv"
    long.write_text(f"text\n{'word ' * 130_000}\nshort\n")
    extra = {"server": "azure", "deployments": {"mine": "gpt-4o-mini"}}
    define_connection("mine", conn_type="openai", host="https://r.openai.azure.com", extra=extra)
    how: dict[str, Any] = {"prompt": {**ASK, "model": "mine"}, "openai_conn_id": "mine", "source": str(long)}
    run_prepare(run_dag, tmp_path, preview=2, **how)
    shown = "".join(capfd.readouterr())
    assert "tokens, the model reads 128,000" in shown
    assert re.search(r"row-1: \d+ input tokens, at most \$0\.0+\d", shown)
    assert run_prepare(run_dag, tmp_path, **how).state == "success"
    assert list(read_reasons(tmp_path / "out")) == [0]


def test_a_form_names_no_connection_but_those_of_the_code(
    run_dag: RunDag, tmp_path: Path, table: Path
) -> None:
    how: dict[str, Any] = {"source": str(table), "openai_conn_id": "{{ params.asked }}"}
    run = run_prepare(run_dag, tmp_path, params={"asked": "mine"}, conf={"asked": "of_others"}, **how)
    assert "connection 'of_others': was named by whoever triggered this run" in run.errors("prepare")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_contents_of_rows_are_nowhere_but_in_the_requests(
    run_dag: RunDag, tmp_path: Path, table: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompt = {**ASK, "user": "{{ text }} {{ (text | int('x')) + 1 }}"}
    failed = run_prepare(run_dag, tmp_path, source=str(table), prompt=prompt)
    good = run_prepare(run_dag, tmp_path, source=str(table))
    assert (failed.state, good.state) == ("failed", "success")
    assert "the template failed with TypeError" in failed.errors("prepare")
    for text in (
        "".join(capfd.readouterr()),
        failed.errors("prepare"),
        (tmp_path / "out" / "manifest.json").read_text(),
        (tmp_path / "out" / "rejected.jsonl").read_text(),
    ):
        assert SECRET not in text
    assert read_reasons(tmp_path / "out") == {1: "user: column 'text' is empty"}


def test_a_quiet_night_is_skipped(run_dag: RunDag, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\n")
    settings = {"source": f"{tmp_path}/in.csv"}
    assert "has no rows" in run_prepare(run_dag, tmp_path, **settings).errors("prepare")
    run = run_prepare(run_dag, tmp_path, **settings, on_empty="skip")
    assert run.states == {("prepare", -1): "success", ("after", -1): "skipped"}


def test_a_source_that_was_moved_away_meanwhile_is_not_needed_again(
    run_dag: RunDag, tmp_path: Path, table: Path
) -> None:
    assert run_prepare(run_dag, tmp_path, source=str(table)).state == "success"
    table.unlink()
    assert run_prepare(run_dag, tmp_path, source=str(table)).state == "success"
    other = run_prepare(run_dag, tmp_path, source=str(table), prompt={**ASK, "version": 2})
    assert "was prepared with another prompt, and its source cannot be read any more" in other.errors(
        "prepare"
    )
    again = run_prepare(run_dag, tmp_path, source=str(table), on_existing="restart")
    assert "there is no such file" in again.errors("prepare")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("allowed_input_roots", "/somewhere", "not below an allowed input root"),
        ("allowed_output_roots", "/somewhere", "not below an allowed output root"),
        ("allowed_conn_ids", "openai_default", "connection 'shop': not allowed"),
    ],
)
def test_allow_lists_hold(
    run_dag: RunDag,
    tmp_path: Path,
    table: Path,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(f"AIRFLOW__OPENAI_BATCH__{option.upper()}", value)
    source = {"sql": "SELECT 1", "conn_id": "shop"} if "conn" in option else {"source": str(table)}
    assert message in run_prepare(run_dag, tmp_path, **source).errors("prepare")


def test_the_prefix_of_images_is_held_to_the_allow_list(
    run_dag: RunDag, tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_INPUT_ROOTS", str(table))
    prompt = {**ASK, "images": [{"column": "text"}]}
    run = run_prepare(run_dag, tmp_path, source=str(table), prompt=prompt, images_root="/etc")
    assert "/etc: not below an allowed input root" in run.errors("prepare")
