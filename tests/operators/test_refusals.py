"""What a user reads when something is wrong before or while sending; nothing of it is tried for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.airflow_versions import CREATES
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

KEY = "sk-very-secret"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Two requests with text nobody else may read."""
    return Job(tmp_path).write(chat_line(str(n), "my secret diary") for n in range(2))


@pytest.fixture
def keyed_conn(openai_server: OpenAIServer, define_connection: Callable[..., str]) -> str:
    """A connection whose key the server knows."""
    openai_server.configure(api_keys=frozenset({KEY}))
    return define_connection("openai_default", conn_type="openai", password=KEY, host=openai_server.base_url)


def test_a_connection_that_does_not_exist_is_named_with_the_way_out(
    run_dag: RunDag, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS", "openai_typo")
    run = run_dag("openai_batch", job.conf(conn_id="openai_typo"), retries=3)
    assert run.state == "failed"
    assert "connection 'openai_typo' does not exist. Create it with type OpenAI" in run.errors("split")


def test_the_key_in_the_environment_serves_where_there_is_no_default_connection(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    assert run_dag("openai_batch", job.conf()).state == "success"


def test_a_wrong_key_fails_before_the_scan_and_without_retries(
    run_dag: RunDag, openai_server: OpenAIServer, define_connection: Callable[..., str], job: Job
) -> None:
    openai_server.configure(api_keys=frozenset({"sk-another"}))
    define_connection("openai_default", conn_type="openai", password=KEY, host=openai_server.base_url)
    run = run_dag("openai_batch", job.conf(), retries=3)
    assert run.state == "failed"
    text = run.errors("split")
    assert "401 invalid_api_key" in text
    assert "key of the connection is wrong" in text
    assert not (job.output / "plan.json").exists()
    assert openai_server.books.calls_of("GET /v1/batches") == 1


def test_no_quota_fails_at_once_and_clearing_goes_on_without_paying_twice(
    run_dag: RunDag, openai_server: OpenAIServer, keyed_conn: str, job: Job
) -> None:
    openai_server.script(http="POST /batches", status=429, code="insufficient_quota", times=None)
    run = run_dag("openai_batch", job.conf(), retries=3)
    assert run.state == "failed"
    assert "429 insufficient_quota" in run.errors(CREATES, map_index=0)
    assert openai_server.books.calls_of("POST /v1/batches") == 1
    openai_server.unscript()
    assert run_dag("openai_batch", job.conf()).state == "success"
    assert openai_server.books.calls_of("POST /v1/files") == 1  # the file that was uploaded serves
    assert openai_server.books.billed["batch"] == 2


@pytest.mark.parametrize(
    ("option", "params", "words"),
    [
        ("ALLOWED_INPUT_ROOTS", {}, "not below an allowed input root"),
        ("ALLOWED_OUTPUT_ROOTS", {}, "not below an allowed output root"),
        ("ALLOWED_CONN_IDS", {}, "connection 'openai_default': not allowed"),
    ],
)
def test_what_the_allow_lists_do_not_name_is_refused(
    run_dag: RunDag,
    keyed_conn: str,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    params: dict[str, object],
    words: str,
) -> None:
    monkeypatch.setenv(f"AIRFLOW__OPENAI_BATCH__{option}", "s3://bucket/here, elsewhere")
    run = run_dag("openai_batch", job.conf(**params))
    assert run.state == "failed"
    assert words in run.errors("split")
    assert not job.output.exists()


def test_dots_lead_nowhere_past_the_allow_list(
    run_dag: RunDag, keyed_conn: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job.folder / "allowed").mkdir()
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_INPUT_ROOTS", f"file://{job.folder}/allowed")
    run = run_dag("openai_batch", job.conf(input_uri=f"{job.folder}/allowed/../in/requests.jsonl"))
    assert "the part '..' of its path is not allowed" in run.errors("split")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"input_uri": ""}, "input_uri is empty"),
        ({"input_uri": "/nowhere/at/all.jsonl"}, "/nowhere/at/all.jsonl"),
        ({"input_uri": "nosuch://bucket/key"}, "nosuch://bucket/key"),
        ({"output_uri": "/proc/job"}, "cannot be written"),
    ],
)
def test_places_that_cannot_be_used_are_named(
    run_dag: RunDag,
    keyed_conn: str,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    params: dict[str, object],
    words: str,
) -> None:
    for role in ("INPUT", "OUTPUT"):
        monkeypatch.setenv(f"AIRFLOW__OPENAI_BATCH__ALLOWED_{role}_ROOTS", "/, nosuch://bucket")
    run = run_dag("openai_batch", job.conf(**params), retries=2)
    assert run.state == "failed"
    assert words in run.errors("split")


def test_an_input_that_changed_after_the_split_is_not_sent(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    keyed_conn: str,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__RENAMED_DAGS", "late=openai_batch")
    assert run_dag("openai_batch", job.conf(dry_run=True)).state == "success"
    changed = job.input.read_text().replace("diary", "DIARY")
    from airflow.sdk import DAG

    from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator

    with DAG("late", schedule=None) as dag:
        OpenAIBatchShardOperator(
            task_id="shard", shard={"job": job.conf()["output_uri"], "shard": 0}, poll_interval=0.1
        )
    job.input.write_text(changed)
    run = run_dag(dag, retries=2)
    assert run.state == "failed"
    assert "the input changed since it was split" in run.errors("shard")
    assert openai_server.batches() == []


def test_neither_keys_nor_bodies_are_written_anywhere_but_to_raw_and_results(
    run_dag: RunDag, openai_server: OpenAIServer, keyed_conn: str, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    openai_server.script(line=400, custom_id="1", times=None)
    openai_server.script(batch="failed", code="invalid_json_line", line_number=2, times=1)
    run_dag("openai_batch", job.conf())
    run_dag("openai_batch", job.conf())
    printed = "".join(capfd.readouterr())
    assert "secret" not in printed
    for path in job.output.rglob("*"):
        if (
            path.is_file()
            and path.parent.name not in ("raw", "results", "leftover")
            and path.name != "failed.jsonl"
        ):
            assert b"secret" not in path.read_bytes(), path
    assert "secret" not in json.dumps([batch["metadata"] for batch in openai_server.batches()])
