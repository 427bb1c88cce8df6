"""A small shard that lands in the triggerer: the same rows, and a worker for whatever is not plain."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import Asset
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.server_objects import FileView
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.plugin.webhooks.trigger_probe import ask_trigger
from airflow_openai_batch.requests import schema_check
from airflow_openai_batch.results.reconcile import Settler
from airflow_openai_batch.triggers.first_of import make_trigger, read_members
from airflow_openai_batch.triggers.landing import MOST_BYTES, MOST_WAITING, _thread
from fixtures.airflow_versions import needs_airflow_3_3
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [pytest.mark.usefixtures("openai_conn"), needs_airflow_3_3]

FINISHED = {"status": "completed"}


def split(folder: Path, lines: Iterable[str], *, shards: int = 1) -> Job:
    job = Job(folder).write(lines)
    requests = len(job.input.read_text().splitlines())
    split_job(
        str(job.input),
        resolve_location(job.uri),
        resolve=resolve_location,
        limits=ShardLimits(max_requests=-(-requests // shards)),
        now=datetime.now(tz=UTC).timestamp(),
    )
    return job


def restart(job: Job) -> None:
    split_job(
        str(job.input),
        resolve_location(job.uri),
        resolve=resolve_location,
        limits=ShardLimits(max_requests=2),
        now=datetime.now(tz=UTC).timestamp(),
        on_existing="restart",
    )


def ask_for(custom_id: str, schema: dict[str, Any]) -> str:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", **schema}}}
    return chat_line(custom_id, response_format=wanted)


class ShardTask:
    """A shard's task as worker and triggerer see it in turn."""

    def __init__(
        self,
        job: Job,
        *,
        shard: int = 0,
        kind: type[OpenAIBatchShardOperator] = OpenAIBatchShardOperator,
        **options: Any,
    ) -> None:
        self.returned: dict[str, Any] = {}
        ti: Any = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=shard, try_number=1)
        ti.xcom_push = self.returned.__setitem__
        started = SimpleNamespace(start_date=datetime.now(tz=UTC), conf={})
        self.context: Any = {"ti": ti, "dag_run": started, "dag": None}
        self._make = lambda: kind(
            task_id="t",
            shard={"job": job.uri, "shard": shard},
            send_mode="batch",
            poll_interval=0.1,
            **options,
        )

    def begin(self) -> TaskDeferred:
        """What the worker that sends defers with."""
        operator = self._make()
        with pytest.raises(TaskDeferred) as deferred:
            inspect.unwrap(type(operator).execute)(operator, self.context)
        return deferred.value

    def resume(self) -> Any:
        """In a worker."""
        return self._make().resume(self.context, FINISHED)


async def fire(deferred: TaskDeferred) -> TriggerEvent:
    """What a triggerer sees the trigger say."""
    path, arguments = deferred.trigger.serialize()
    trigger = make_trigger(path, json.loads(json.dumps(arguments)))
    trigger.holds = False  # type: ignore[attr-defined]  # there is no process that lingers
    trigger.task_instance = SimpleNamespace(task_id="t", dag_id="d", run_id="r", map_index=0)  # type: ignore[assignment]
    events = trigger.run()
    try:
        return await asyncio.wait_for(anext(events), 30)
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def lands_there(deferred: TaskDeferred) -> bool:
    event = asyncio.run(fire(deferred))
    assert isinstance(event, TaskSuccessEvent) or event.payload["status"] == "completed"
    return isinstance(event, TaskSuccessEvent)


def test_a_small_shard_lands_where_it_is_waited_for(tmp_path: Path, openai_server: OpenAIServer) -> None:
    job = split(tmp_path, [chat_line("a"), chat_line("b", "No?")])
    task = ShardTask(job)
    assert lands_there(task.begin())
    assert task.returned == {"return_value": {"job": job.uri, "shard": 0}}
    assert [(row["custom_id"], row["status"]) for row in job.rows()] == [("a", "ok"), ("b", "ok")]
    assert openai_server.files() == [], "they are deleted once the rows are there"
    before = [dict(row) for row in job.rows()]
    assert task.resume() == {"job": job.uri, "shard": 0}, "cleared, it finds all done"
    assert job.rows() == before
    assert openai_server.books.calls_of("POST /v1/batches") == 1


class Own(OpenAIBatchShardOperator):
    """Somebody's own, which may do more than ours."""


@pytest.mark.parametrize(
    "options",
    [
        {"outlets": [Asset("s3://mine/x")]},
        {"on_success_callback": print},
        {"post_execute": print},
        {"kind": Own},
        {"run_as_user": "somebody"},  # whose files they are
    ],
)
def test_where_a_worker_has_more_to_do_it_lands_there(
    tmp_path: Path, openai_server: OpenAIServer, options: dict[str, Any]
) -> None:
    job = split(tmp_path, [chat_line("a")])
    task = ShardTask(job, **options)
    assert not lands_there(task.begin())
    assert not job.rows()
    task.resume()
    assert len(job.rows()) == 1


def test_the_configuration_can_say_no(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__LAND_IN_TRIGGERER", "False")
    assert not lands_there(ShardTask(split(tmp_path, [chat_line("a")])).begin())


def test_the_configuration_of_the_triggerer_counts_too(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    deferred = ShardTask(split(tmp_path, [chat_line("a")])).begin()
    assert deferred.trigger.serialize()[1]["landing"]
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__LAND_IN_TRIGGERER", "False")
    assert not lands_there(deferred)


def test_the_book_of_a_monthly_budget_is_kept_by_workers(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"monthly_budget_usd": 100}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", openai_server.airflow_connection(**extra))
    job = split(tmp_path, [chat_line("a", max_completion_tokens=5)])
    assert ShardTask(job).begin().trigger.serialize()[1]["landing"] is None


def test_a_shard_of_a_task_for_many_is_not_landed_alone(tmp_path: Path, openai_server: OpenAIServer) -> None:
    """What the task waits on is kept in Airflow's database, and must not grow with its shards."""
    openai_server.configure(in_progress_s=3600)
    job = Job(tmp_path).write(chat_line(str(number)) for number in range(3))
    operator = OpenAIBatchJobOperator(
        task_id="t", input_uri=str(job.input), output_uri=job.uri, max_requests_per_shard=1, send_mode="batch"
    )
    task = ShardTask(job)
    with pytest.raises(TaskDeferred) as deferred:
        inspect.unwrap(type(operator).execute)(operator, task.context)
    _, arguments = deferred.value.trigger.serialize()
    waits = [kwargs for _, kwargs in read_members(arguments).values()]
    assert [wait["landing"] for wait in waits] == [None] * 3
    assert "return_value" not in task.returned


def test_many_bytes_of_requests_are_for_a_worker(tmp_path: Path, openai_server: OpenAIServer) -> None:
    job = split(tmp_path, [chat_line(str(number), "word " * (MOST_BYTES // 250)) for number in range(50)])
    assert ShardTask(job).begin().trigger.serialize()[1]["landing"] is None


def test_many_bytes_of_answers_are_for_a_worker(tmp_path: Path, openai_server: OpenAIServer) -> None:
    openai_server.answer = lambda _: "word " * (MOST_BYTES // 5)
    job = split(tmp_path, [chat_line("a")])
    task = ShardTask(job)
    assert not lands_there(task.begin())
    assert not (job.output / "raw").exists(), "nothing was fetched"
    task.resume()
    assert len(job.rows()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"http": "GET /files/*", "status": 404, "times": None},  # a server that knows no file objects
        {"http": "GET /files/*/content", "status": 401, "times": 1},
        {"http": "GET /files/*/content", "status": 400, "times": 1},
    ],
)
def test_what_goes_wrong_is_for_a_worker(
    tmp_path: Path, openai_server: OpenAIServer, fault: dict[str, Any]
) -> None:
    job = split(tmp_path, [chat_line("a"), chat_line("b")])
    openai_server.script(**fault)
    task = ShardTask(job)
    assert not lands_there(task.begin())
    openai_server.unscript()
    task.resume()
    assert [(row["custom_id"], row["status"]) for row in job.rows()] == [("a", "ok"), ("b", "ok")]


def test_what_is_left_over_is_sent_again_by_a_worker(tmp_path: Path, openai_server: OpenAIServer) -> None:
    job = split(tmp_path, [chat_line("a"), chat_line("b")])
    openai_server.script(line=500, custom_id="b", times=1)
    task = ShardTask(job)
    assert not lands_there(task.begin())
    assert not job.rows(), "errors may be about the account, which a worker has the words for"
    with pytest.raises(TaskDeferred) as again:
        task.resume()
    assert [batch["request_counts"]["total"] for batch in openai_server.batches()] == [2, 1]
    assert not lands_there(again.value), "only a first send"
    task.resume()
    assert [(row["custom_id"], row["status"]) for row in job.rows()] == [("a", "ok"), ("b", "ok")]


@pytest.mark.parametrize("lost", ["plan.json", "in/requests.jsonl"])
def test_a_triggerer_that_does_not_see_the_files_leaves_it_to_a_worker(
    tmp_path: Path, openai_server: OpenAIServer, lost: str
) -> None:
    job = split(tmp_path, [chat_line("a")])
    task = ShardTask(job)
    deferred = task.begin()
    place = job.output / lost if lost == "plan.json" else tmp_path / lost
    away = place.rename(f"{place}.away")
    assert not lands_there(deferred)
    away.rename(place)
    task.resume()
    assert len(job.rows()) == 1


def test_another_job_at_the_same_place_is_not_taken_for_this_one(
    tmp_path: Path, openai_server: OpenAIServer
) -> None:
    """On a triggerer's own disk, where paths and ``file://`` lead to one disk for each machine."""
    done = split(tmp_path / "there", [chat_line("a")])
    ShardTask(done).begin()
    ShardTask(done).resume()
    deferred = ShardTask(split(tmp_path / "here", [chat_line("a")])).begin()
    deferred.trigger.landing["job"] = done.uri  # type: ignore[attr-defined]
    assert not lands_there(deferred)


def test_an_order_of_another_release_is_left_to_a_worker(tmp_path: Path, openai_server: OpenAIServer) -> None:
    job = split(tmp_path, [chat_line("a")])
    deferred = ShardTask(job).begin()
    deferred.trigger.landing = {"job": job.uri, "how": "otherwise"}  # type: ignore[attr-defined]
    assert not lands_there(deferred)


def test_a_webhook_lands_nothing_in_the_api_server(tmp_path: Path, openai_server: OpenAIServer) -> None:
    job = split(tmp_path, [chat_line("a")])
    path, arguments = ShardTask(job).begin().trigger.serialize()
    event = asyncio.run(ask_trigger(path, arguments, arguments["batch_id"]))
    assert event is not None
    assert event.payload["status"] == "completed"
    assert not job.rows()


def test_a_worker_that_lands_at_the_same_time_makes_the_same_rows(
    tmp_path: Path, openai_server: OpenAIServer
) -> None:
    """The task was cleared, or woken by a webhook, while the triggerer was at it."""
    job = split(tmp_path, [chat_line(str(number)) for number in range(50)])
    task = ShardTask(job)
    deferred = task.begin()
    worker = threading.Thread(target=task.resume)
    worker.start()
    asyncio.run(fire(deferred))
    worker.join()
    task.resume()
    assert [row["custom_id"] for row in job.rows()] == [str(number) for number in range(50)]
    assert {row["status"] for row in job.rows()} == {"ok"}


def test_a_server_that_hangs_holds_up_nobody_for_long(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.triggers.landing.PATIENCE_S", 1.0)
    openai_server.script(http="GET /files/*/content", delay_s=4.0, times=1)
    job = split(tmp_path, [chat_line(str(number)) for number in range(3)], shards=3)
    waiting = [ShardTask(job, shard=number) for number in range(3)]
    deferred = [task.begin() for task in waiting]

    async def fire_all() -> list[TriggerEvent]:
        return await asyncio.gather(*map(fire, deferred))

    began = time.monotonic()
    asyncio.run(fire_all())
    assert time.monotonic() - began < 3.5
    for task in waiting:
        task.resume()
    assert len(job.rows()) == 3


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent anew", "after"])
def test_what_was_given_up_writes_nothing_into_a_job_that_was_restarted(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    monkeypatch.setattr("airflow_openai_batch.triggers.landing.PATIENCE_S", 0.5)
    job = split(tmp_path, [chat_line("a"), chat_line("b")])
    deferred = ShardTask(job).begin()
    openai_server.script(http="GET /files/*/content", delay_s=1.5, times=1)
    asyncio.run(fire(deferred))
    openai_server.answer = lambda _: "A new answer."
    restart(job)
    again = ShardTask(job)
    if sent:
        again.begin()
    _thread().submit(int).result(timeout=30)  # what hung has ended
    if not sent:
        again.begin()
    again.resume()
    assert [row["content"] for row in job.rows()] == ["A new answer."] * 2


def test_what_was_given_up_judges_no_more_answers(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them may take seconds, and whoever lands next waits for the only thread."""
    monkeypatch.setattr("airflow_openai_batch.triggers.landing.PATIENCE_S", 0.5)
    judged, settle = [], Settler.settle

    def settle_slowly(*arguments: Any) -> Any:
        judged.append(time.sleep(0.3))
        return settle(*arguments)

    monkeypatch.setattr(Settler, "settle", settle_slowly)
    openai_server.script(line="refusal", times=None)
    job = split(tmp_path, [chat_line(str(number)) for number in range(20)])
    assert not lands_there(ShardTask(job).begin())
    _thread().submit(int).result(timeout=30)
    assert len(judged) < 6


def test_a_server_that_says_less_than_it_sends_fills_no_triggerer(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai_server.answer = lambda _: "word " * MOST_BYTES
    told = FileView(id="file-x", bytes=10)
    monkeypatch.setattr(BatchClient, "describe_file", lambda *_: told)
    job = split(tmp_path, [chat_line("a")])
    task = ShardTask(job)
    assert not lands_there(task.begin())
    assert not list(job.output.glob("raw/*"))
    task.resume()
    assert [row["status"] for row in job.rows()] == ["ok"], "a worker believes what comes twice"


def test_what_another_shard_has_overrun_lets_no_answer_pass(
    tmp_path: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer lives on, and lands for everybody."""
    (tmp_path / "jsonschema_rs.py").write_text("raise ImportError\n")  # as without the extra `fast`
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(schema_check.ChecksApart, "_own", None)
    monkeypatch.setattr(schema_check, "MAX_OVERRUNS", 1)
    openai_server.answer = lambda _: json.dumps({"a" * 50 + "b": "x"})
    lines = [ask_for(name, {"patternProperties": {"^(a+)+$": {"type": "integer"}}}) for name in "ab"]
    other = split(tmp_path / "other", lines)
    assert lands_there(ShardTask(other, retry_codes=[]).begin())
    assert [row["status"] for row in other.rows()] == ["invalid_output", "ok"], (
        "the second one is not checked"
    )
    openai_server.answer = lambda _: json.dumps({"tags": ["x", "x"]})
    job = split(tmp_path / "job", [ask_for("a", {"properties": {"tags": {"uniqueItems": True}}})])
    assert lands_there(ShardTask(job, retry_codes=[]).begin())
    assert [row["status"] for row in job.rows()] == ["invalid_output"]


def test_a_crowd_is_shared_with_the_workers(tmp_path: Path, openai_server: OpenAIServer) -> None:
    count = MOST_WAITING + 10
    job = split(tmp_path, [chat_line(str(number)) for number in range(count)], shards=count)
    waiting = [ShardTask(job, shard=number).begin() for number in range(count)]

    async def fire_all() -> list[TriggerEvent]:
        return await asyncio.gather(*map(fire, waiting))

    ended = [isinstance(event, TaskSuccessEvent) for event in asyncio.run(fire_all())]
    assert MOST_WAITING <= sum(ended) == len(job.rows())


def test_what_only_lands_is_not_ordered(tmp_path: Path, openai_server: OpenAIServer) -> None:
    """A task that hands over, or skips what comes after it, is a worker's."""
    job = split(tmp_path, [chat_line("a")])
    openai_server.configure(in_progress_s=3600)
    task = ShardTask(job, kind=OpenAIBatchDownloadOperator)  # type: ignore[arg-type]
    assert task.begin().trigger.serialize()[1]["landing"] is None
