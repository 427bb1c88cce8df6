"""The operators in DAGs of one's own: bare files and batches, poke mode, clearing, links and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from airflow.sdk import DAG

from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator, OpenAIBatchUploadOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from fixtures.airflow_versions import CREATES, needs_airflow_3_2, read_extra
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Four requests: two shards of two."""
    return Job(tmp_path, {"max_requests_per_shard": 2}).write(chat_line(str(n)) for n in range(4))


def upload_by_hand(server: OpenAIServer, *lines: str) -> str:
    client = openai.OpenAI(base_url=server.base_url, api_key="any")
    return client.files.create(file=("f.jsonl", "\n".join(lines).encode()), purpose="batch").id


def test_a_file_and_a_batch_of_ones_own_need_no_split(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    file_id = upload_by_hand(openai_server, chat_line("a"), chat_line("b"))
    with DAG("bare", schedule=None) as dag:
        create = OpenAIBatchCreateOperator(
            task_id="create",
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            metadata={"team": "search"},
        )
        batch_id = "{{ ti.xcom_pull(task_ids='create')['batch_id'] }}"
        wait = OpenAIBatchSensor(task_id="wait", batch_id=batch_id, poll_interval=0.1)
        download = OpenAIBatchDownloadOperator(
            task_id="download", batch_id=batch_id, output_uri=f"file://{tmp_path}/answers"
        )
        create >> wait >> download
    run = run_dag(dag)
    assert run.state == "success", run.states
    (batch,) = openai_server.batches()
    assert batch["metadata"]["team"] == "search"
    assert run.xcom("wait") == {"batch_id": batch["id"], "status": "completed"}
    result = run.xcom("download")
    answers = Path(result["output"].removeprefix("file://")).read_text().splitlines()
    assert {json.loads(line)["custom_id"] for line in answers} == {"a", "b"}
    assert result["error"] is None


def test_a_bare_create_that_lost_its_reply_finds_its_batch_again(
    run_dag: RunDag, openai_server: OpenAIServer
) -> None:
    file_id = upload_by_hand(openai_server, chat_line("a"))
    openai_server.script(http="POST /batches", drop="after")
    with DAG("bare_retry", schedule=None) as dag:
        OpenAIBatchCreateOperator(task_id="create", input_file_id=file_id)
    run = run_dag(dag, retries=1)
    assert run.state == "success"
    (batch,) = openai_server.batches()
    assert run.xcom("create") == {"batch_id": batch["id"]}


def test_a_bare_batch_that_failed_validation_fails_the_sensor(
    run_dag: RunDag, openai_server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    file_id = upload_by_hand(openai_server, chat_line("a"), chat_line("a"))
    with DAG("bare_failed", schedule=None) as dag:
        create = OpenAIBatchCreateOperator(task_id="create", input_file_id=file_id)
        create >> OpenAIBatchSensor(
            task_id="wait", batch_id="{{ ti.xcom_pull(task_ids='create')['batch_id'] }}", poll_interval=0.1
        )
    assert run_dag(dag).states[("wait", -1)] == "failed"


@pytest.mark.parametrize("deferrable", [True, False])
def test_every_step_can_be_mapped_over_the_split_on_its_own(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, deferrable: bool
) -> None:
    openai_server.configure(in_progress_s=0.5)
    settings = job.conf()
    with DAG("own", schedule=None) as dag:
        split = OpenAIBatchSplitOperator(
            task_id="split",
            input_uri=settings["input_uri"],
            output_uri=settings["output_uri"],
            max_requests_per_shard=2,
        )
        shards = split.output
        batch: Any = {"send_mode": "batch"}  # two requests would go out in real time otherwise
        upload = OpenAIBatchUploadOperator.partial(task_id="upload", **batch).expand(shard=shards)
        create = OpenAIBatchCreateOperator.partial(task_id="create", **batch).expand(shard=upload.output)
        wait = OpenAIBatchSensor.partial(task_id="wait", poll_interval=0.1, deferrable=deferrable).expand(
            shard=create.output
        )
        download = OpenAIBatchDownloadOperator.partial(task_id="download").expand(shard=wait.output)
        download >> OpenAIBatchReportOperator(task_id="report", job=settings["output_uri"])
    run = run_dag(dag)
    assert run.state == "success", run.states
    assert [row["custom_id"] for row in job.rows()] == ["0", "1", "2", "3"]
    assert openai_server.books.billed["batch"] == 4


def test_a_task_shows_its_batch(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    run = run_dag("openai_batch_one_task", job.conf())
    by_shard = {batch["metadata"]["shard"]: batch["id"] for batch in openai_server.batches()}
    for index in (0, 1):
        link = run.xcom("shard", map_index=index, key="_link_OpenAIBatchLink")
        assert link == f"https://platform.openai.com/batches/{by_shard[str(index)]}"


@needs_airflow_3_2  # before, DAG.test forgets the names of instances
def test_a_task_names_its_shard(run_dag: RunDag, job: Job) -> None:
    run = run_dag("openai_batch_one_task", job.conf())
    for index in (0, 1):
        label = run.labels[("shard", index)]
        assert label.startswith(f"shard {index} · 2 requests · ")
        assert label.endswith(" tokens")


def test_metadata_says_which_task_of_which_run_a_batch_belongs_to(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    run = run_dag("openai_batch", job.conf())
    for batch in openai_server.batches():
        metadata = batch["metadata"]
        assert metadata["dag_id"] == "openai_batch"
        assert metadata["run_id"] == run.run_id
        assert metadata["task_id"] == CREATES
        assert metadata["map_index"] == metadata["shard"]
        assert int(metadata["input_tokens"]) > 0
        assert len(metadata["job_key"]) == 64


def test_only_references_go_through_xcom(run_dag: RunDag, job: Job) -> None:
    run = run_dag("openai_batch", job.conf())
    uri = job.conf()["output_uri"]
    refs = [{"job": uri, "shard": 0}, {"job": uri, "shard": 1}]
    assert run.xcom("split") == refs
    note = run.xcom(CREATES, map_index=1, key="handover")
    assert note["result"] == refs[1]
    assert note.keys() == {"given", "reached", "result", "wait", "link"}
    assert "Good?" not in str(note)


def test_a_finished_run_leaves_an_asset_event_with_counts_and_cost(run_dag: RunDag, job: Job) -> None:
    run = run_dag("openai_batch", job.conf())
    (event,) = run.asset_events()
    assert event["uri"] == f"file://{job.output}"
    assert read_extra(event["extra"])["rows"] == {"ok": 4}
    assert event["extra"]["cost_usd"] > 0


@pytest.mark.long
def test_runs_with_directories_of_their_own_share_one_asset(
    run_dag: RunDag, job: Job, tmp_path: Path
) -> None:
    for _ in range(2):
        run = run_dag("openai_batch", job.conf(output_uri=f"file://{tmp_path}/jobs/{{run_id}}/out"))
        (event,) = run.asset_events()
        assert event["uri"] == f"file://{tmp_path}/jobs"
        assert event["extra"]["job"].startswith(f"file://{tmp_path}/jobs/manual__")


def test_a_run_that_is_not_good_enough_leaves_no_asset_event(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=400, custom_id="1", times=None)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert run.asset_events() == []


def test_defaults_of_a_dag_win_over_those_of_the_operators(job: Job) -> None:
    with DAG("defaults", schedule=None, default_args={"retries": 7}):
        inherited = OpenAIBatchShardOperator(task_id="inherited", shard={"job": "x", "shard": 0})
        own = OpenAIBatchShardOperator(task_id="own", shard={"job": "x", "shard": 0}, retries=1)
    with DAG("no_defaults", schedule=None):
        plain: Any = OpenAIBatchShardOperator(task_id="plain", shard={"job": "x", "shard": 0})
    assert (inherited.retries, own.retries) == (7, 1)
    assert plain.retries > 0
