"""What the split says of costs, and what it refuses before anything is uploaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG
from fsspec.implementations.local import LocalFileSystem

from airflow_openai_batch.costs.spending import record_spending
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.task.parameters import read_mode
from airflow_openai_batch.results.landing_summary import LandingSummary, Spending, Tokens
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.job import Job, chat_line
from fixtures.shard_on_disk import answer, chat_body

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Twelve requests of up to 1,000 output tokens: as batch $0.0003 each, and a little for the input."""
    return Job(tmp_path).write(chat_line(str(n), max_tokens=1_000) for n in range(12))


@pytest.fixture
def split(run_dag: RunDag, job: Job, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a DAG that only splits, five requests a shard, and may go on with the job of the one-task DAG."""
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__RENAMED_DAGS", "only_split=openai_batch_one_task")

    def run(**options: Any) -> FinishedRun:
        with DAG("only_split", schedule=None) as dag:
            OpenAIBatchSplitOperator(
                task_id="split",
                output_uri=f"file://{job.output}",
                **{"input_uri": str(job.input), "max_requests_per_shard": 5, "send_mode": "batch", **options},
            )
        return run_dag(dag)

    return run


def printed(capfd: pytest.CaptureFixture[str]) -> str:
    """Airflow's logs."""
    return "".join(capfd.readouterr())


def test_a_model_with_a_sign_that_airflows_database_refuses_is_told_without_it(
    run_dag: RunDag, tmp_path: Path
) -> None:
    """PostgreSQL takes no NUL in an XCom: the split failed at each try, and nothing said what it was about."""
    job = Job(tmp_path).write([chat_line("1", model="gpt\0-9"), chat_line("2", model="gpt\0-9")])
    with DAG("odd_model", schedule=None) as dag:
        OpenAIBatchSplitOperator(
            task_id="split", input_uri=str(job.input), output_uri=f"file://{job.output}", send_mode="batch"
        )
    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert run.xcom("split", key="estimate")["unpriced_models"] == ["gpt -9"]
    assert r"\x00" not in str(run.xcom("split", key="estimate"))


def test_a_budget_that_is_large_enough_lets_it_through(split: Any) -> None:
    run = split(max_cost_usd=0.0040)
    assert run.state == "success", run.errors("split")
    assert [ref["shard"] for ref in run.xcom("split")] == [0, 1, 2]
    estimate = run.xcom("split", key="estimate")
    assert estimate["most_output_tokens"] == 12_000
    assert estimate["cost_usd"] < 0.0036 < estimate["most_cost_usd"] < 0.0040


def test_a_budget_that_is_too_small_stops_it_before_anything_is_uploaded(
    split: Any, openai_server: OpenAIServer
) -> None:
    run = split(max_cost_usd="0.0030")
    assert run.state == "failed"
    assert "over max_cost_usd=0.003" in run.errors("split")
    assert "Raise max_cost_usd" in run.errors("split")
    assert openai_server.files() == []
    assert split(max_cost_usd=0.01).state == "success"  # goes on with the plan that is there


def test_in_real_time_the_same_budget_is_too_small(split: Any) -> None:
    assert split(max_cost_usd=0.0040, send_mode="realtime").state == "failed"


@pytest.mark.parametrize(("threshold", "state"), [(4, "success"), (5, "failed")])
def test_what_auto_would_send_in_real_time_costs_as_much(split: Any, threshold: int, state: str) -> None:
    run = split(max_cost_usd=0.0045, send_mode="auto", realtime_threshold=threshold)  # shards of 5, 5 and 2
    assert run.state == state


def test_a_dry_run_only_says_so(split: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run = split(max_cost_usd=0.0030, plan_only=True)
    assert run.state == "success"
    assert "over max_cost_usd=0.003" in printed(capfd)


def test_the_log_says_what_it_costs_at_most_and_what_sets_no_bound(
    split: Any, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    job.write([chat_line("a"), chat_line("b", max_tokens=100)])
    assert split().state == "success"
    text = printed(capfd)
    assert "With all outputs as long as they may be, 16,484 tokens: at most $0.00" in text
    assert "1 request for gpt-4o-mini has no bound on the output" in text


def test_a_sample_gets_refs_for_its_shards_alone(
    split: Any, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    run = split(sample_requests="7", max_cost_usd=0.0025)  # all twelve would be refused
    assert run.state == "success", run.errors("split")
    first, second = run.xcom("split")
    assert first == {"job": f"file://{job.output}", "shard": 0}
    assert second == {"job": f"file://{job.output}", "shard": 1, "first": 2}
    assert run.xcom("split", key="estimate")["sample_requests"] == 7
    assert "A sample: only the first 7 requests" in printed(capfd)


def test_what_the_sample_measured_decides_on_the_rest(
    split: Any, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    """Requests without a bound are refused until their length was measured."""
    job.write(chat_line(str(n)) for n in range(12))
    refused = split(max_cost_usd=0.01)
    assert "the most that the model can write, 16,384 tokens" in refused.errors("split")
    tokens = Tokens(input=40, output=400)
    spending = Spending(answers=5, tokens=tokens, cost_usd=0.001)
    landed = LandingSummary(requests=5, rows={"ok": 5}, spending=spending)
    record_spending(resolve_plain(str(job.output)), 0, 1, landed)
    run = split(max_cost_usd=0.01)
    assert run.state == "success", run.errors("split")
    text = printed(capfd)
    assert "mean measured so far, 80 tokens" in text
    assert "By 5 answers, which cost $0.0010, all 12 requests would cost about" in text
    assert run.xcom("split", key="estimate")["left_requests"] == 7
    spent = split(max_cost_usd=0.001)
    assert "$0.0010 spent so far" in spent.errors("split")


def test_a_repair_that_may_cost_too_much_is_refused_before_anything_is_reopened(
    split: Any, run_dag: RunDag, job: Job, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__RENAMED_DAGS", "only_split=openai_batch_one_task")
    openai_server.script(line=400, custom_id="7")
    assert run_dag("openai_batch_one_task", job.conf(max_failed_fraction=1)).state == "success"
    spent_usd = job.report()["cost"]["actual_usd"]
    refused = split(repair=True, max_cost_usd=spent_usd + 0.0002)
    assert "for 1 requests that are still to be answered" in refused.errors("split")
    assert not list((job.output / "state").rglob("*-reopened.json"))
    for _ in range(2):  # what an earlier try has reopened counts as well
        run = split(repair=True, max_cost_usd=spent_usd + 0.0004)
        assert run.state == "success", run.errors("split")
        assert run.xcom("split", key="estimate")["left_requests"] == 1
        assert [ref["shard"] for ref in run.xcom("split")] == [1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"send_mode": "fast"}, "mode='fast': must be one of auto, batch, flex, realtime"),
        ({"max_cost_usd": "cheap"}, "max_cost_usd='cheap': must be a number"),
        ({"max_cost_usd": -1}, "max_cost_usd=-1: must be at least 0"),
        ({"sample_requests": 0}, "sample_requests=0: must be at least 1"),
        ({"realtime_threshold": -1}, "realtime_threshold=-1: must be at least 0"),
        ({"realtime_threshold": 1.5}, "realtime_threshold=1.5: must be a whole number"),
        ({"count_images": "pixels"}, "count_images='pixels': must be one of formula, text"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(job: Job, options: dict[str, Any], words: str) -> None:
    task = OpenAIBatchSplitOperator(
        task_id="split", input_uri=str(job.input), output_uri=str(job.output), **options
    )
    ti = SimpleNamespace(run_id="r", dag_id="d")
    with pytest.raises(AirflowFailException, match=re.escape(words)):
        task.execute({"ti": ti})  # type: ignore[typeddict-item]
    assert not (job.output / "plan.json").exists()


def test_the_environment_says_how_to_send_where_nothing_else_does(
    split: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USE_BATCH_PROCESSING", "false")
    estimate = split(send_mode="None").xcom("split", key="estimate")
    assert estimate["most_cost_usd"] == pytest.approx(estimate["standard_cost_usd"] + 12_000 * 0.6 / 1e6)


@pytest.mark.parametrize(
    ("setting", "mode"),
    [("true", "batch"), ("False", "realtime"), ("auto", "auto"), ("", "auto"), (None, "auto")],
)
def test_what_the_environment_may_say(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, mode: str
) -> None:
    monkeypatch.delenv("USE_BATCH_PROCESSING", raising=False)
    if setting is not None:
        monkeypatch.setenv("USE_BATCH_PROCESSING", setting)
    assert [read_mode(value) for value in (None, "None", "")] == [mode] * 3
    assert read_mode("batch") == "batch"


def test_an_environment_that_says_something_else_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USE_BATCH_PROCESSING", "maybe")
    with pytest.raises(ConfigError, match="USE_BATCH_PROCESSING='maybe'"):
        read_mode(None)


def test_the_input_is_listed_once(
    split: Any,
    job: Job,
    openai_server: OpenAIServer,
    define_connection: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where the limits of shards follow from the models of the input: a glob over a bucket takes minutes."""
    listed: list[str] = []
    glob = LocalFileSystem.glob

    def count(self: Any, path: str, **options: Any) -> Any:
        listed.append(path)
        return glob(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "glob", count)
    extra = {"enqueued_token_limit": {"gpt-4o-mini": 1_000_000}}
    define_connection(
        "openai_default", conn_type="openai", password="sk-test", host=openai_server.base_url, extra=extra
    )
    pattern = f"{job.input.parent}/*{job.input.suffix}"
    run = split(input_uri=pattern)
    assert run.state == "success", run.errors("split")
    assert "since the batch queue holds 1,000,000" in printed(capfd)
    assert listed == [pattern]


@pytest.mark.parametrize("limit", ["max_cost_usd", "monthly_budget_usd"])
def test_answers_that_do_not_say_what_they_used_count_with_the_most_that_they_may_have_cost(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    tmp_path: Path,
    say: Any,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    """Some servers leave the usage away: each try counted as free, and so no budget ever ended them."""
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__BOOKS_ROOT", str(tmp_path / "books"))
    as_json = {"response_format": {"type": "json_object"}, "max_tokens": 1_000}
    job = Job(tmp_path).write(chat_line(str(n), "As JSON?", **as_json) for n in range(3))
    lines = [answer(str(n), {**chat_body("no"), "usage": None}).decode() for n in range(3)]
    openai_server.script(
        http="GET /v1/files/*/content", page="".join(f"{line}\n" for line in lines), times=None
    )
    say(**({limit: 0.0015} if limit == "monthly_budget_usd" else {}))
    asked = {limit: 0.0015} if limit == "max_cost_usd" else {}
    run = run_dag("openai_batch_one_task", job.conf(**asked))
    assert run.state == "failed"
    assert "may cost up to $0.0009" in run.errors("shard", map_index=0)
    assert len(openai_server.batches()) == 1
