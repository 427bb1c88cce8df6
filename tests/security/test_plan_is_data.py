"""``plan.json`` and its like are data: whoever can write one reaches no file by it that they could not read anyway."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from airflow.sdk import DAG

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.job import directory as names
from airflow_openai_batch.job.ledger import Event, ShardLedger
from airflow_openai_batch.job.plan import Plan, ShardLimits
from airflow_openai_batch.job.plan_layout import encode_plan
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.recipes.inbox.inbox import open_inbox
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.preparation.manifest import read_manifest
from fixtures.job import Job, chat_line
from fixtures.prepared_job import PreparedJob

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path / "own").write(chat_line(f"review/{n}", f"Review {n}: lovely.") for n in range(3))
    split_job(
        [f"file://{made.input}"],
        resolve_plain(made.uri),
        resolve=resolve_plain,
        limits=ShardLimits(),
        run_key="sender/manual__1",
        now=1_800_000_000.0,
    )
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Requests of somebody else, as many bytes as ours."""
    file = tmp_path / "victim" / "requests.jsonl"
    file.parent.mkdir()
    file.write_text("".join(chat_line(f"secret/{n}", f"Secret {n}: stolen.") + "\n" for n in range(3)))
    return file


def change_plan(job: Job, change: Change) -> None:
    file = job.output / "plan.json"
    plan = json.loads(file.read_bytes())
    change(plan)
    file.write_text(json.dumps(plan))


def send(run_dag: RunDag, job: Job) -> str:
    """What a run says that takes the shard of the plan to its end."""
    with DAG("sender", schedule=None) as sender:
        OpenAIBatchShardOperator(
            task_id="send", shard={"job": job.uri, "shard": 0}, send_mode="batch", poll_interval=0.1
        )
    run = run_dag(sender)
    assert run.state == "failed"
    return run.errors("send")


def test_a_copy_in_another_directory_is_not_sent(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, victim: Path
) -> None:
    """As the review did it, but with the right size and hash, so that the check of the bytes finds nothing."""
    data = victim.read_bytes()

    def steal(plan: dict[str, Any]) -> None:
        plan["shards"][0] |= {
            "staged": "../../victim/requests.jsonl",
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }

    change_plan(job, steal)
    assert "staged" in send(run_dag, job)
    assert_nothing_left(openai_server)


def test_a_source_is_held_to_the_allowed_roots_when_it_is_read(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_INPUT_ROOTS", f"file://{job.folder}")
    data = victim.read_bytes()

    def steal(plan: dict[str, Any]) -> None:
        source = {"uri": f"file://{victim}", "size": len(data), "etag": "x", "lines": 3}
        plan["sources"] = [source]
        plan["shards"][0] |= {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "segments": [[0, 0, len(data), 1, 0, 3]],
        }

    change_plan(job, steal)
    assert "not below an allowed input root" in send(run_dag, job)
    assert_nothing_left(openai_server)


def test_no_byte_leaves_where_the_hash_is_another(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    """Version and size as planned, content not: 3 of 3 requests were on the way before the end told."""
    data = job.input.read_bytes().replace(b"lovely", b"stolen")
    change_plan(job, lambda plan: plan["shards"][0].update(sha256=hashlib.sha256(data).hexdigest()))
    assert "size or SHA-256 differs" in send(run_dag, job)
    assert_nothing_left(openai_server)


def assert_nothing_left(server: OpenAIServer) -> None:
    """Not even the beginning of an upload."""
    assert [call for call in server.books.calls if call.startswith("POST")] == []


NAMES: dict[str, Change] = {
    "staged outside": lambda plan: plan["shards"][0].update(staged="../../victim/requests.jsonl"),
    "staged of another shard": lambda plan: plan["shards"][0].update(staged="staged/00001.jsonl"),
    "staged is another of ours": lambda plan: plan["shards"][0].update(staged="raw/00000.1.output.jsonl"),
    "segments outside": lambda plan: plan["shards"][0].update(segments_file="../x.json", segments=[]),
    "another number": lambda plan: plan["shards"][0].update(shard=7),
    "no such source": lambda plan: plan["shards"][0].update(segments=[[9, 0, 1, 1, 0, 1]]),
    "a source before the first": lambda plan: plan["shards"][0].update(segments=[[-1, 0, 1, 1, 0, 1]]),
    "a range that goes back": lambda plan: plan["shards"][0].update(segments=[[0, 9, 1, 1, 0, 1]]),
    "an endpoint that gets the key": lambda plan: plan["shards"][0].update(
        endpoint="https://evil.example/v1"
    ),
    "a generation that is none": lambda plan: plan.update(generation=-1),
}


@pytest.mark.parametrize("change", NAMES.values(), ids=NAMES)
def test_a_plan_with_what_we_never_write_is_no_plan(job: Job, change: Change) -> None:
    change_plan(job, change)
    with pytest.raises(JobError, match=r"plan\.json: is there but is no plan of this package"):
        names.read_plan(resolve_plain(job.uri))


def test_segments_in_a_file_of_their_own_are_looked_at_as_well(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    segments = job.output / "staged" / "00000.segments.json"
    segments.parent.mkdir()
    segments.write_text("[[3, 0, 100, 1, 0, 3]]")
    change_plan(
        job, lambda plan: plan["shards"][0].update(segments=[], segments_file="staged/00000.segments.json")
    )
    assert "missing or damaged" in send(run_dag, job)
    assert_nothing_left(openai_server)


def test_an_id_in_the_ledger_leads_nowhere_else(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    plan = names.read_plan(resolve_plain(job.uri))
    assert plan is not None
    event = Event(kind="created", send=1, at=1.8e9, plan=plan.name, batch_id="x/../../files/file-1/content?")
    ShardLedger(resolve_plain(f"{job.uri}/state/00000")).append(event)
    assert "by an id that is none" in send(run_dag, job)
    assert not openai_server.books.calls


def test_answers_are_delivered_beside_request_files_only(tmp_path: Path) -> None:
    inbox = open_inbox(f"file://{tmp_path}/inbox")
    job = inbox.job("a" * 64)
    inbox.write_names(
        job, ["good.jsonl", "../../victim/requests.jsonl", "sub/x.jsonl", "good.output.jsonl", "plan"]
    )
    assert inbox.read_names(job) == ["good.jsonl"]


@pytest.mark.parametrize(
    "name", ["../../victim/rows.parquet", "rows/../x", "rows/part-0.parquet", "/etc/passwd"]
)
def test_a_manifest_names_only_files_that_a_preparation_writes(tmp_path: Path, name: str) -> None:
    prepared = PreparedJob(tmp_path, {"review": ["good"]}).write().prepared
    manifest = read_manifest(prepared)
    assert manifest is not None
    row = msgspec.structs.replace(manifest.rows[0], name=name)
    prepared.child("manifest.json").write_bytes(msgspec.structs.replace(manifest, rows=(row,)).to_json())
    with pytest.raises(JobError, match=r"manifest\.json: is there but is no manifest of this package"):
        read_manifest(prepared)


def test_what_we_write_is_a_plan(job: Job) -> None:
    plan = names.read_plan(resolve_plain(job.uri))
    assert plan is not None
    assert Plan.from_json(encode_plan(plan)) == plan
