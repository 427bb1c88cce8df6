"""``@task.openai_batch`` in real Airflow: a function yields, the task asks, another task reads."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from airflow.sdk import DAG, task
from pydantic import BaseModel, field_validator

from airflow_openai_batch.answers import Answer, iter_answers
from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.tables.reading.row_table import BLOCK_ROWS

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

DAY = datetime(2026, 1, 31, tzinfo=UTC)
CLEARED = {"logical_date": DAY, "run_after": DAY}
"""A run of the same moment again is the same run, cleared."""
_numbers = itertools.count()
QUICK: dict[str, Any] = {"model": "gpt-4o-mini", "poll_interval": 0.1, "send_mode": "batch"}


class Verdict(BaseModel):
    """What the answers must look like."""

    mood: Literal["good", "bad"]
    stars: int


@pytest.fixture(autouse=True)
def output_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where job directories lie by default."""
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT", f"file://{tmp_path}/root")
    return tmp_path / "root"


def make_dag(function: Callable[..., Any], load: Callable[..., Any] | None = None, **options: Any) -> DAG:
    """A DAG with one such task, ``ask``, and where wanted one that reads what came of it."""
    with DAG(f"composed_{next(_numbers)}", schedule=None) as dag:
        asked = task.openai_batch(task_id="ask", **{**QUICK, **options})(function)()
        if load is not None:
            task(task_id="load")(load)(asked)
    return dag


class Source:
    """A function that counts how often it is called."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.calls = 0

    def make(self) -> Callable[[], Iterator[Any]]:
        def reviews() -> Iterator[Any]:
            self.calls += 1
            yield from self.items

        return reviews


class Sink:
    """A task that keeps the answers it reads."""

    def __init__(self, **how: Any) -> None:
        self.how = how
        self.answers: list[Answer] = []

    def make(self) -> Callable[[dict[str, Any]], None]:
        def load(job: dict[str, Any]) -> None:
            self.answers = list(iter_answers(job, **self.how))

        return load


def test_prompts_go_in_and_typed_answers_come_out(
    run_dag: RunDag, openai_server: OpenAIServer, output_root: Path
) -> None:
    asked: list[list[dict[str, str]]] = []

    def answer(body: dict[str, Any]) -> str:
        asked.append(body["messages"])
        return json.dumps({"mood": "good", "stars": len(body["messages"][-1]["content"])})

    openai_server.answer = answer
    sink = Sink(output_type=Verdict)
    source = Source("fine", "", "very {{ good }}")
    run = run_dag(make_dag(source.make(), sink.make(), output_type=Verdict, system="You judge."))
    assert run.state == "success", run.failures
    assert [(each.row, each.value) for each in sink.answers] == [
        ({"prompt": "fine"}, Verdict(mood="good", stars=4)),
        ({"prompt": "very {{ good }}"}, Verdict(mood="good", stars=15)),
    ]
    assert asked[0][0] == {"role": "system", "content": "You judge."}
    found = run.xcom("ask")
    assert (found["requests"], found["rows"]) == (2, {"ok": 2})
    assert found["cost_usd"] > 0
    assert Path(found["results"].removeprefix("file://")).is_dir()
    assert Path(found["report"].removeprefix("file://")).is_file()
    assert found["job"].startswith(f"file://{output_root}/{run.dag_id}/manual__")
    assert len(json.dumps(found)) < 1_500
    assert run.asset_events()[0]["uri"] == f"file://{output_root}/{run.dag_id}"


@pytest.mark.long
def test_rows_many_shards_and_an_expired_batch(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    openai_server.script(batch="expired", done=1, total=2, shard=1)
    rows = [{"id": n, "text": f"text {n % 6}", "day": DAY} for n in range(8)]
    sink = Sink()
    run = run_dag(
        make_dag(
            Source(*rows).make(),
            sink.make(),
            user="Good? {{ text }}",
            dedupe=True,
            max_requests_per_shard=2,
        )
    )
    assert run.state == "success", run.failures
    assert [each.row for each in sink.answers] == rows
    assert all(isinstance(each.value, str) and each.value for each in sink.answers)
    assert sink.answers[6].custom_id == sink.answers[0].custom_id, "equal requests are asked once"
    assert openai_server.books.billed["batch"] == 6
    assert len(openai_server.batches()) == 4
    assert max(openai_server.books.good_by_custom_id.values()) == 1


def test_a_retry_neither_calls_the_function_nor_pays_again(
    run_dag: RunDag, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed when both batches have been created, and a reply was lost before."""
    from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator

    openai_server.script(http="POST /batches", drop="after", times=1)
    kills = [MemoryError("killed")]
    wait = OpenAIBatchJobOperator._defer

    def killed_once(*arguments: Any) -> None:
        if kills:
            raise kills.pop()
        wait(*arguments)

    monkeypatch.setattr(OpenAIBatchJobOperator, "_defer", killed_once)
    source = Source(*(f"text {n}" for n in range(4)))
    run = run_dag(make_dag(source.make(), max_requests_per_shard=2), retries=3)
    assert run.state == "success", run.failures
    assert not kills
    assert source.calls == 1
    assert len(openai_server.batches()) == 2
    assert openai_server.books.billed["batch"] == 4


def test_what_a_function_yielded_before_it_failed_is_not_sent(
    run_dag: RunDag, openai_server: OpenAIServer
) -> None:
    tries: list[int] = []

    def reviews() -> Iterator[str]:
        tries.append(1)
        for n in range(3):
            yield f"try {len(tries)}, text {n}"
        if len(tries) == 1:
            raise ConnectionError("the source went away")

    sink = Sink()
    run = run_dag(make_dag(reviews, sink.make()), retries=1)
    assert run.state == "success", run.failures
    assert "the source went away" in run.errors("ask")
    assert [each.row["prompt"] for each in sink.answers if each.row] == [f"try 2, text {n}" for n in range(3)]
    assert openai_server.books.billed["batch"] == 3


def test_clearing_pays_nothing_again_and_goes_on_with_a_failed_shard(
    run_dag: RunDag, openai_server: OpenAIServer
) -> None:
    openai_server.script(batch="failed", code="model_not_found", shard=1, times=None)
    source = Source(*(f"text {n}" for n in range(6)))
    dag = make_dag(source.make(), max_requests_per_shard=2)
    run = run_dag(dag, **CLEARED, retries=2)
    assert run.state == "failed"
    text = run.errors("ask")
    assert "Shard 1 of 3 failed: " in text
    assert "model_not_found" in text
    assert "1 of 3 shards are not done (1)" in text
    assert len(run.failures) == 1, "what is permanent is not tried again"
    assert openai_server.books.billed["batch"] == 4, "the other shards have landed"

    openai_server.unscript()
    for _ in range(2):
        again = run_dag(dag, **CLEARED)
        assert again.state == "success", again.failures
        assert again.run_id == run.run_id
    assert source.calls == 1
    assert openai_server.books.billed["batch"] == 6


@pytest.mark.long
def test_another_run_does_not_take_over_the_rows_of_this_one(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daily DAG whose directory is always the same would answer yesterday's rows for ever."""
    source = Source("a", "b")
    dag = make_dag(source.make(), output_uri=f"file://{tmp_path}/job")
    assert run_dag(dag).state == "success"
    run = run_dag(dag)
    assert f"{tmp_path}/job/prepared: was prepared by {run.dag_id}.ask in run manual__" in run.errors("ask")
    assert "Put {run_id}" in run.errors("ask")
    assert (source.calls, openai_server.books.billed["batch"]) == (1, 2)
    again = make_dag(source.make(), output_uri=f"file://{tmp_path}/job", on_existing="restart")
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__RENAMED_DAGS", f"{again.dag_id}={dag.dag_id}")
    for _ in range(2):
        assert run_dag(again, **CLEARED).state == "success"
    assert (source.calls, openai_server.books.billed["batch"]) == (2, 4), "once for a run, not for each try"


class Text(str):
    """A value of a row whose end can be seen."""


def test_the_stream_is_never_held_as_a_whole(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    alive: weakref.WeakSet[Text] = weakref.WeakSet()
    most = [0]

    def reviews() -> Iterator[dict[str, Any]]:
        for n in range(20_000):
            text = Text(f"text {n}")
            alive.add(text)
            most[0] = max(most[0], len(alive))
            yield {"text": text}

    run = run_dag(make_dag(reviews, user="{{ text }}", plan_only=True))
    assert run.state == "success", run.failures
    assert run.xcom("ask", key="estimate")["requests"] == 20_000
    assert BLOCK_ROWS <= most[0] <= 2 * BLOCK_ROWS
    assert len(json.dumps([run.xcom("ask"), run.xcom("ask", key="counts")])) < 500
    assert openai_server.files() == []


def test_what_can_be_wrong_without_the_rows_is_said_before_they_are_asked_for(
    run_dag: RunDag, openai_server: OpenAIServer, define_connection: Callable[..., str]
) -> None:
    define_connection("refused", conn_type="openai", password="", host=openai_server.base_url)
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "template": ({"user": "{{ text"}, "user: no valid template in line 1"),
        "model": ({"model": None}, "model is empty"),
        "schema": ({"output_type": {"type": "array"}}, "response_schema must describe an object"),
        "kind": ({"output_type": int}, "must be a JSON Schema or a Pydantic model"),
        "budget": ({"max_cost_usd": "cheap"}, "max_cost_usd='cheap': must be a number"),
        "mode": ({"send_mode": "quick"}, "mode='quick': must be one of auto, batch, flex, realtime"),
        "codes": ({"max_attempts": 0}, "max_attempts=0: must be at least 1"),
        "fraction": ({"max_failed_fraction": "few"}, "max_failed_fraction='few': must be a number"),
        "conn": ({"conn_id": "none_such"}, "'none_such'"),
        "place": ({"output_uri": "file:///proc/none/job"}, "cannot be written"),
        "waiting": ({"deferrable": False}, "deferrable=False: a whole job waits in the triggerer only"),
    }
    source = Source("text")
    with DAG("wrong", schedule=None) as dag:
        for name, (options, _) in cases.items():
            task.openai_batch(task_id=name, **{**QUICK, **options})(source.make())()
    run = run_dag(dag, retries=1)
    for name, (_, message) in cases.items():
        assert message in run.errors(name), name
    assert source.calls == 0
    assert openai_server.files() == []


def test_what_a_function_may_not_give_is_named(run_dag: RunDag) -> None:
    async def asynchronous() -> AsyncIterator[str]:
        yield "text"

    async def coroutine() -> list[str]:
        return ["text"]

    cases: dict[str, tuple[Callable[[], Any], str]] = {
        "number": (lambda: iter(["text", 17]), "Item 1 is a int: each must be a prompt (str) or a row (dict"),
        "keys": (lambda: [{1: "text"}], "Item 0 is a mapping with keys that are no texts"),
        "text": (lambda: "text", "The function returned a str: it must yield prompts"),
        "nothing": (lambda: None, "The function returned nothing"),
        "stream": (asynchronous, "The function returned a coroutine or an async generator"),
        "coroutine": (coroutine, "The function returned a coroutine or an async generator"),
        "column": (lambda: [{"text": "a"}], "user: needs the column 'prompt', which the table does not have"),
        "empty": (list, "has no rows"),
    }
    with DAG("wrong_items", schedule=None) as dag:
        for name, (function, _) in cases.items():
            task.openai_batch(task_id=name, **QUICK)(function)()
    run = run_dag(dag, retries=1)
    for name, (_, message) in cases.items():
        assert message in run.errors(name), name
        assert len([task_id for task_id, _, _ in run.failures if task_id == name]) == 1, "not tried again"


def test_a_quiet_night_a_preview_and_a_sample(
    run_dag: RunDag, openai_server: OpenAIServer, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = Sink()
    run = run_dag(make_dag(Source().make(), sink.make(), on_empty="skip"))
    assert (run.state, run.states[("load", -1)]) == ("success", "skipped")
    run = run_dag(make_dag(Source("Boils fast", "b", "c").make(), sink.make(), preview=1))
    assert (run.state, run.states[("load", -1)]) == ("success", "skipped")
    assert "Boils fast" in "".join(capfd.readouterr())
    assert openai_server.files() == []
    sink = Sink(unfinished=True)
    source = Source("a", "b", "c")
    dag = make_dag(source.make(), sink.make(), sample_requests=2)
    assert run_dag(dag, **CLEARED).state == "success"
    assert [each.row for each in sink.answers] == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.long
def test_a_mapped_task_has_a_directory_for_each(run_dag: RunDag) -> None:
    found: list[list[Any]] = []
    with DAG("mapped", schedule=None) as dag:

        @task.openai_batch(**QUICK)
        def ask(day: str, n: int, ti: Any = None) -> Iterator[str]:
            for at in range(n):
                yield f"{day} {at} {ti.map_index}"

        @task
        def load(jobs: Any) -> None:
            found.extend([each.row["prompt"] for each in iter_answers(job) if each.row] for job in jobs)

        load(ask.partial(n=2).expand(day=["monday", "tuesday"]))
    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert found == [
        [f"{day} {at} {index}" for at in range(2)] for index, day in enumerate(["monday", "tuesday"])
    ]


class Strict(BaseModel):
    """More than a schema can say."""

    stars: int

    @field_validator("stars")
    @classmethod
    def check_stars(cls, stars: int) -> int:
        """Nobody gives more than five."""
        if stars > 5:
            raise ValueError(f"{stars} is too many")
        return stars


def test_answers_that_are_none_are_left_out_or_say_why(
    run_dag: RunDag, openai_server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    openai_server.answer = lambda body: json.dumps({"stars": int(body["messages"][-1]["content"])})
    openai_server.script(line=400, code="invalid_request_error", custom_id="row-2", times=None)
    rows = [{"stars": "4"}, {"stars": "987654"}, {"stars": "3"}, {"stars": None}]
    run = run_dag(
        make_dag(Source(*rows).make(), output_type=Strict, user="{{ stars }}", max_failed_fraction=0.5)
    )
    assert run.state == "success", run.failures
    job = run.xcom("ask")
    assert [each.value for each in iter_answers(job, output_type=Strict)] == [Strict(stars=4)]
    assert "left out 1 failed, 1 invalid_output, 1 rejected" in caplog.text
    every = list(iter_answers(job["job"], output_type=Strict, only_good=False))
    assert [each.status for each in every] == ["ok", "invalid_output", "failed", "rejected"]
    assert every[1].error == "output_type: stars: value_error"
    assert "column 'stars' is empty" in (every[3].error or "")
    assert [each.value for each in iter_answers(job)] == [{"stars": 4}, {"stars": 987654}]
    assert "987654" not in caplog.text


@pytest.mark.long
def test_answers_of_a_job_that_nothing_prepared(run_dag: RunDag, output_root: Path) -> None:
    from fixtures.job import Job, chat_line

    job = Job(output_root).write(chat_line(f"r{n}", f"text {n}") for n in range(5))
    with pytest.raises(ConfigError, match=r"there is no plan\.json"):
        next(iter_answers(f"file://{job.output}"))
    with pytest.raises(ConfigError, match="job is empty"):
        next(iter_answers({"job": None}))
    assert list(iter_answers({"job": None, "requests": 0})) == [], "a mapped task that had nothing to send"
    assert run_dag("openai_batch_one_task", job.conf(max_requests_per_shard=2)).state == "success"
    found = list(iter_answers(f"file://{job.output}"))
    assert [(each.custom_id, each.row) for each in found] == [(f"r{n}", None) for n in range(5)]
    assert [each.value for each in found] == [row["content"] for row in job.rows()]
    done = next((job.output / "state" / "00001").glob("*done*"))
    done.unlink()
    with pytest.raises(JobError, match=r"1 of 3 shards are not done \(1\)"):
        next(iter_answers(f"file://{job.output}"))


def test_airflow_can_store_it_and_parsing_does_not_import_the_openai_client(tmp_path: Path) -> None:
    code = """
import sys
from airflow.sdk import DAG, task
from fixtures.airflow_versions import DagSerialization
from pydantic import BaseModel

class Verdict(BaseModel):
    mood: str

with DAG("composed", schedule=None) as dag:
    @task.openai_batch(model="gpt-4o-mini", output_type=Verdict, output_uri="s3://bucket/jobs/{run_id}")
    def ask(day):
        "Asks."
        yield day

    ask("monday")
    ask.override(task_id="each").expand(day=["monday", "tuesday"])

stored = DagSerialization.to_dict(dag)
assert {each["__var"]["task_id"] for each in stored["dag"]["tasks"]} == {"ask", "each"}
assert dag.get_task("ask").doc_md == "Asks."
print("openai" in sys.modules)
"""
    (tmp_path / "composed.py").write_text(code)  # Airflow looks into the source of what it stores
    done = subprocess.run(
        [sys.executable, str(tmp_path / "composed.py")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False"
