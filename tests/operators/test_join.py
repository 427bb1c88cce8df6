"""From a CSV to a table with answers, by real Airflow: prepare, split, send, join."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG

from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from fixtures.prepared_job import PreparedJob

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"type": "string", "enum": ["glad", "sad"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "stars": {"type": "integer"},
    },
}


def make_dag(folder: Path, prompt: dict[str, Any], **join: Any) -> DAG:
    """The whole way, and one join for each of ``join``'s lists of outputs."""
    with DAG("table", schedule=None) as dag:
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare",
            source=str(folder / "reviews.csv"),
            prompt=prompt,
            output_uri=f"file://{folder}/prepared",
            dedupe=True,
        )
        split = OpenAIBatchSplitOperator(
            task_id="split",
            input_uri="{{ ti.xcom_pull(task_ids='prepare') }}",
            output_uri=f"file://{folder}/job",
            max_requests_per_shard=3,
        )
        send = OpenAIBatchShardOperator.partial(task_id="send", poll_interval=0.1).expand(shard=split.output)
        prepare >> split
        for name in join.pop("outputs"):
            send >> OpenAIBatchJoinOperator(
                task_id=f"join_{Path(name).suffix[1:]}",
                prepared="{{ ti.xcom_pull(task_ids='prepare', key='prepared') }}",
                job="{{ ti.xcom_pull(task_ids='split', key='job') }}",
                output_uri=f"{folder}/{name}",
                **join,
            )
    return dag


@pytest.mark.usefixtures("openai_conn")
def test_a_csv_of_reviews_comes_back_with_typed_answers_in_every_format(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    texts = ["good", "=bad, very", "", "good", "so so", "fine", "poor"]
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([at, text] for at, text in enumerate(texts))])

    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        return json.dumps({"mood": "glad", "tags": [text, "x"], "stars": -len(text)})

    openai_server.answer = answer
    prompt = {
        "name": "moods",
        "version": "1",
        "model": "gpt-4o-mini",
        "endpoint": "/v1/chat/completions",
        "user": "{{ text }}",
        "response_schema": SCHEMA,
    }
    run = run_dag(
        make_dag(
            tmp_path, prompt, outputs=["t.parquet", "t.csv", "t.jsonl", "t.xlsx"], max_rejected_fraction=1
        )
    )
    assert run.state == "success", run.failures

    table = pq.read_table(tmp_path / "t.parquet")
    rows = table.to_pylist()
    assert [row["text"] or "" for row in rows] == texts
    assert table.schema.field("tags").type == pa.list_(pa.string())
    for row in rows:
        if row["answer_status"] == "ok":
            assert (row["tags"], row["stars"]) == ([row["text"], "x"], -len(row["text"]))
    assert run.xcom("prepare", key="counts")["duplicates"] == 1
    assert rows[0]["answer_cost_usd"] > 0
    assert rows[3]["answer_cost_usd"] is None

    found = run.xcom("join_xlsx")
    assert found["rows"] == len(texts)
    assert sum(found["statuses"].values()) == len(texts)
    paid = sum(row["cost_usd"] for row in read_results(tmp_path))
    assert found["cost_usd"] == pytest.approx(paid)

    sheet = [
        [cell.value for cell in row]
        for row in openpyxl.load_workbook(tmp_path / "t.xlsx").worksheets[0].iter_rows()
    ]
    assert sheet[0] == table.column_names
    assert sheet[2][sheet[0].index("text")] == "=bad, very"
    assert sheet[2][sheet[0].index("stars")] == -10
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["good", "'=bad, very", *texts[2:]]
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines == rows


@pytest.mark.usefixtures("openai_conn")
def test_embeddings_several_to_a_request_come_back_each_beside_its_row(
    run_dag: RunDag, tmp_path: Path
) -> None:
    texts = [f"text {number}" for number in range(7)]
    (tmp_path / "reviews.csv").write_text("".join(f"{text}\n" for text in ["text", *texts, texts[0]]))
    prompt = {
        "name": "vectors",
        "version": "1",
        "model": "text-embedding-3-small",
        "endpoint": "/v1/embeddings",
        "input": "{{ text }}",
        "rows_per_request": 3,
    }
    run = run_dag(make_dag(tmp_path, prompt, outputs=["t.parquet", "t.jsonl"]))
    assert run.state == "success", run.failures
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    vectors = [row["embedding"] for row in rows]
    by_hand = [vector for row in read_results(tmp_path) for vector in row["embeddings"]]
    assert len({tuple(vector) for vector in vectors}) == 7
    assert vectors == [*by_hand, by_hand[0]]
    assert [row["answer_cost_usd"] is not None for row in rows] == [at in (0, 3, 6) for at in range(8)]


def read_results(folder: Path) -> list[dict[str, Any]]:
    parts = sorted((folder / "job" / "results").iterdir())
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def run_join(run_dag: RunDag, folder: Path, **arguments: Any) -> Any:
    with DAG("join", schedule=None) as dag:
        OpenAIBatchJoinOperator(
            task_id="join",
            **{"prepared": f"{folder}/prepared", "job": f"{folder}/job", **arguments},
        )
    return run_dag(dag)


def test_what_cannot_be_joined_says_why_and_what_to_do(run_dag: RunDag, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({"output_uri": f"{tmp_path}/t.tsv"}, "ends in none of .parquet"),
        ({"output_uri": f"{tmp_path}/out/"}, "name the file to write"),
        ({"output_uri": f"{tmp_path}/t", "format": "pdf"}, "must be one of parquet, csv, jsonl, xlsx"),
        ({"output_uri": f"{tmp_path}/t.csv", "job": ""}, "job is empty"),
        ({"output_uri": f"{tmp_path}/t.csv", "job": f"{tmp_path}/none"}, "there is no plan.json"),
        ({"output_uri": f"{tmp_path}/t.csv", "prepared": f"{tmp_path}/none"}, "OpenAIBatchPrepareOperator"),
        ({"output_uri": f"{tmp_path}/t.csv"}, "1 of 2 shards are not done"),
    ]
    PreparedJob(tmp_path, {"text": list("abcdef")}, unfinished=frozenset({1})).write()
    with DAG("joins", schedule=None) as dag:
        for number, (arguments, _) in enumerate(cases):
            how = {"prepared": f"{tmp_path}/prepared", "job": f"{tmp_path}/job", **arguments}
            OpenAIBatchJoinOperator(task_id=f"join_{number}", **how)
    run = run_dag(dag)
    for number, (_, said) in enumerate(cases):
        assert said in run.errors(f"join_{number}")
    assert not list(tmp_path.glob("t*"))


def test_the_table_is_held_to_the_allowed_output_roots(
    run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS", f"{tmp_path}/job,{tmp_path}/prepared")
    PreparedJob(tmp_path, {"text": ["a"]}).write()
    run = run_join(run_dag, tmp_path, output_uri=f"{tmp_path}/elsewhere.csv")
    assert "not below an allowed output root" in run.errors("join")


def test_a_template_may_say_all_of_it_and_a_second_run_writes_the_same(
    run_dag: RunDag, tmp_path: Path
) -> None:
    PreparedJob(tmp_path, {"text": ["=a", "b"]}).write()
    how = {
        "output_uri": f"{tmp_path}/{{run_id}}",
        "format": "{{ 'csv' }}",
        "for_excel": "{{ True }}",
        "on_unfinished": "{{ 'keep' }}",
    }
    texts = []
    for _ in range(2):
        run = run_join(run_dag, tmp_path, **how)
        assert run.state == "success", run.failures
        texts.append(Path(run.xcom("join")["uri"].removeprefix("file://")).read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].startswith(b"\xef\xbb\xbftext,answer")
    assert b"'=a" in texts[0]
