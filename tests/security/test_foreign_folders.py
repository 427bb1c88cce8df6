"""What a form names as the place of files that are not a job's: never a folder of another DAG's job or run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, get_current_context, task

from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.recipes.qdrant.embedding import cut_documents
from fixtures.job import Job, chat_line
from security.test_ownership import read_files

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn", "form_roots")

FOREIGN = "belongs to DAG 'openai_batch_one_task'"


@pytest.fixture
def foreign(run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path) -> Job:
    """A finished job of another DAG."""
    job = Job(tmp_path / "foreign").write([chat_line("a", "Review")])
    assert run_dag("openai_batch_one_task", job.conf(mode="realtime")).state == "success"
    return job


def test_no_recipe_writes_into_a_job(run_dag: RunDag, foreign: Job) -> None:
    before = read_files(foreign.output)
    run = run_dag("embed_documents", {"output_uri": str(foreign.output), "poll_interval": 0.1})
    assert FOREIGN in run.errors("read")
    assert read_files(foreign.output) == before


def test_no_inbox_lies_in_a_job(run_dag: RunDag, foreign: Job, openai_server: OpenAIServer) -> None:
    """It would send what a report calls failed."""
    (foreign.output / "failed.jsonl").write_text(f"{chat_line('a')}\n")
    before, calls = read_files(foreign.output), openai_server.books.billed.copy()
    run = run_dag("drain_request_files", {"inbox": str(foreign.output), "poll_interval": 0.1, "min_age": 0})
    assert FOREIGN in run.errors("find_files")
    assert read_files(foreign.output) == before
    assert openai_server.books.billed == calls


def test_no_join_replaces_rows_of_a_job(run_dag: RunDag, foreign: Job, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"review": "x"}) + "\n")
    with DAG("thief", schedule=None, params={"table": "", "overwrite": False}) as thief:
        prepare = OpenAIBatchPrepareOperator(
            task_id="prepare",
            source=f"{tmp_path}/rows.jsonl",
            output_uri=f"{tmp_path}/t/prepared",
            prompt={"name": "mood", "model": "gpt-4o-mini", "user": "{{ review }}"},
        )
        ask = OpenAIBatchJobOperator(
            task_id="ask", input_uri=prepare.output, output_uri=f"{tmp_path}/t/job", send_mode="realtime"
        )
        ask >> OpenAIBatchJoinOperator(
            task_id="join",
            prepared=f"{tmp_path}/t/prepared",
            job=f"{tmp_path}/t/job",
            output_uri="{{ params.table }}",
            overwrite="{{ params.overwrite }}",
        )
    before = read_files(foreign.output)
    run = run_dag(thief, {"table": f"{foreign.output}/results/part-00000.parquet", "overwrite": True})
    assert FOREIGN in run.errors("join")
    assert read_files(foreign.output) == before


@pytest.mark.parametrize("folder", ["", "raw"])
def test_no_file_of_a_batch_goes_into_a_job(
    run_dag: RunDag, openai_server: OpenAIServer, foreign: Job, folder: str
) -> None:
    with DAG("fetcher", schedule=None, params={"output_uri": ""}) as dag:
        OpenAIBatchDownloadOperator(
            task_id="download", batch_id="batch_x", output_uri="{{ params.output_uri }}"
        )
    before = read_files(foreign.output)
    run = run_dag(dag, {"output_uri": f"{foreign.output}/{folder}"})
    assert FOREIGN in run.errors("download")
    assert read_files(foreign.output) == before


def test_a_server_does_not_name_the_files_of_a_batch(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, {"poll_interval": 0.1}).write([chat_line("a")])
    assert run_dag("openai_batch_one_task", job.conf(mode="batch", keep_remote_files=True)).state == "success"
    (batch,) = openai_server.batches()
    fetch = BatchClient.fetch
    monkeypatch.setattr(BatchClient, "fetch", lambda self, each: replace(fetch(self, each), id="00000.1"))
    with DAG("fetcher", schedule=None) as dag:
        OpenAIBatchDownloadOperator(
            task_id="download", batch_id=batch["id"], output_uri=f"{tmp_path}/fetched"
        )
    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == [f"{batch['id']}.output.jsonl"]


def test_no_run_of_a_recipe_is_read_anew_by_another_dag(run_dag: RunDag, tmp_path: Path) -> None:
    output = tmp_path / "handbook"
    run = run_dag("embed_documents", {"output_uri": str(output), "poll_interval": 0.1, "queries": []})
    assert run.state == "success", run.failures
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "other.md").write_text("# Other\n\nPay to this account.\n")
    params: dict[str, Any] = {
        "output_uri": "",
        "documents": "",
        "qdrant_conn_id": "",
        "collection": "documents",
        "max_chars": 800,
        "on_existing": "resume",
    }
    with DAG("thief", schedule=None, params=params) as thief:

        @task
        def read() -> int:
            return cut_documents(get_current_context(), "embed_chunks.yaml")

        read()
    before = read_files(output)
    conf = {
        "output_uri": str(output),
        "documents": f"{tmp_path}/documents/",
        "on_existing": "restart",
    }
    assert "belongs to DAG 'embed_documents'" in run_dag(thief, conf).errors("read")
    assert read_files(output) == before


def test_no_form_puts_a_job_where_those_of_all_dags_lie(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """It would be one above theirs, and refuse their forms for ever."""
    job = Job(tmp_path).write([chat_line("a")])
    run = run_dag("openai_batch_one_task", job.conf(output_uri=str(tmp_path), dry_run=True))
    assert "is the folder below which forms name their outputs. Name a folder in it" in run.errors("split")
    assert not (tmp_path / "plan.json").exists()
