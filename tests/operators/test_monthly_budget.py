"""monthly_budget_usd of a connection, through whole runs of two jobs that share it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from airflow_openai_batch.costs.monthly_book import MonthlyBook
from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag
    from fixtures.object_store import ObjectStore

SHARD_USD = 0.0015
"""What five requests of up to 1,000 output tokens may cost as a batch, and a little for the input."""


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__BOOKS_ROOT", f"file://{tmp_path}/shared")
    return tmp_path / "shared" / ".books"


@pytest.fixture
def budget(
    openai_server: OpenAIServer, define_connection: Callable[..., str], books: Path
) -> Callable[..., str]:
    """Set what ``openai_default`` may spend in a month."""

    def define(amount_usd: float | None) -> str:
        extra = {} if amount_usd is None else {"monthly_budget_usd": amount_usd}
        return define_connection(
            "openai_default",
            conn_type="openai",
            password="sk-test",
            host=openai_server.base_url,
            extra=json.dumps(extra),
        )

    return define


def make_job(folder: Path, name: str, *, requests: int = 10) -> Job:
    lines = (chat_line(f"{name}/{n}", f"{name} {n}", max_tokens=1_000) for n in range(requests))
    return Job(folder / name).write(lines)


def read_book(books: Path, at: float | None = None) -> tuple[float, float]:
    now = datetime.now(UTC).timestamp() if at is None else at
    spent = MonthlyBook(resolve_plain(str(books / "openai_default"))).read(now)
    return spent.paid_usd, spent.reserved_usd


def test_two_jobs_share_a_budget_and_what_is_over_is_refused_before_it_is_sent(
    run_dag: RunDag, budget: Callable[..., str], books: Path, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    budget(2.5 * SHARD_USD)
    first, second = make_job(tmp_path, "first"), make_job(tmp_path, "second", requests=20)
    good = run_dag("openai_batch", first.conf())
    assert good.state == "success", good.failures
    cost_usd = first.report()["cost"]["actual_usd"]
    assert read_book(books) == (pytest.approx(cost_usd, abs=3e-6), 0)

    budget(cost_usd + 1.5 * SHARD_USD)
    run = run_dag("openai_batch", second.conf())
    assert run.state == "failed"
    # One after another each takes little in the end; the last ones may not fit.
    done = [index for index in range(4) if run.states[("shard.download", index)] == "success"]
    assert done, run.failures
    refused = "\n".join(text for task, _, text in run.failures if task.startswith("shard."))
    budget_text = f"monthly_budget_usd={cost_usd + 1.5 * SHARD_USD:g}"
    month = f"{datetime.now(UTC):%Y-%m}"
    for words in ("may cost up to $0.0015", "Connection 'openai_default' has spent $0.00", f"in {month} (UTC)",
                  budget_text, "Raise monthly_budget_usd in the connection's extra"):  # fmt: skip
        assert words in refused
    sent = len(openai_server.batches())
    spent_usd = sum(read_book(books))
    assert spent_usd <= cost_usd + 1.5 * SHARD_USD

    budget(1)
    again = run_dag("openai_batch", second.conf())
    assert again.state == "success", again.failures
    assert len(openai_server.batches()) == sent + 4 - len(done), "nothing is sent twice"
    both = cost_usd + second.report()["cost"]["actual_usd"]
    assert read_book(books) == (pytest.approx(both, abs=1e-5), 0)


def test_a_split_says_early_that_it_may_not_fit(
    run_dag: RunDag, budget: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    budget(1.5 * SHARD_USD)
    assert split(run_dag, make_job(tmp_path, "early", requests=20)).state == "success"
    text = "".join(capfd.readouterr())
    assert "has spent $0.0000" in text
    assert "so that some of its shards may be refused before they are sent" in text


def split(run_dag: RunDag, job: Job, **options: Any) -> FinishedRun:
    with DAG("only_split_month", schedule=None) as dag:
        OpenAIBatchSplitOperator(
            task_id="split",
            input_uri=str(job.input),
            output_uri=f"file://{job.output}",
            **{"max_requests_per_shard": 5, "send_mode": "batch", **options},
        )
    return run_dag(dag)


def test_what_cannot_be_priced_is_refused_before_anything_is_uploaded(
    run_dag: RunDag, budget: Callable[..., str], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    budget(100)
    job = Job(tmp_path / "priceless").write([chat_line("a", model="unheard-of", max_tokens=5)])
    run = split(run_dag, job)
    assert run.state == "failed"
    assert "monthly_budget_usd=100 cannot be kept: no price is known for unheard-of" in run.errors("split")
    assert split(run_dag, job, plan_only=True).state == "success", "a dry run sends nothing"
    assert openai_server.files() == []
    budget(None)
    assert split(run_dag, job).state == "success"


def test_a_file_whose_requests_are_not_known_is_refused(run_dag: RunDag, budget: Callable[..., str]) -> None:
    budget(100)
    with DAG("bare_create_month", schedule=None) as dag:
        OpenAIBatchCreateOperator(task_id="create", input_file_id="file-x")
    assert "what file-x may cost is not known" in run_dag(dag).errors("create")


@pytest.mark.long
def test_real_time_repair_and_restart_count_too(
    run_dag: RunDag, budget: Callable[..., str], books: Path, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    budget(1)
    job = make_job(tmp_path, "repaired", requests=5)
    rule = openai_server.script(line=400, contains="repaired 3", times=None)
    conf = job.conf(max_failed_fraction=1, mode="realtime")
    assert run_dag("openai_batch", conf).state == "success"
    first = job.report()["cost"]["actual_usd"]
    assert read_book(books) == (pytest.approx(first, abs=3e-6), 0)
    openai_server.unscript(rule)
    assert run_dag("openai_batch", {**conf, "repair": True}).state == "success"
    repaired = job.report()["cost"]["actual_usd"]
    assert repaired > first
    assert read_book(books) == (pytest.approx(repaired, abs=5e-6), 0)
    assert run_dag("openai_batch", {**conf, "on_existing": "restart"}).state == "success"
    assert read_book(books) == (pytest.approx(repaired + job.report()["cost"]["actual_usd"], abs=8e-6), 0)


@pytest.mark.long
def test_a_refused_batch_has_cost_nothing(
    run_dag: RunDag, budget: Callable[..., str], books: Path, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    budget(1)
    openai_server.script(batch="failed", code="model_not_found", times=None)
    run = run_dag("openai_batch", make_job(tmp_path, "refused").conf())
    assert run.state == "failed"
    assert read_book(books) == (0, 0)
    assert list((books / "openai_default").rglob("*.reserved.*")), "it was counted while it was under way"


@pytest.mark.long
def test_only_this_month_counts(
    run_dag: RunDag, budget: Callable[..., str], books: Path, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    book, now = MonthlyBook(resolve_plain(str(books / "openai_default"))), datetime.now(UTC)
    former = (now.replace(day=1) - timedelta(days=1)).timestamp()
    budget(1.2 * SHARD_USD)
    book.settle("a" * 64, 100, former, now.timestamp())
    job = make_job(tmp_path, "month", requests=5)
    assert run_dag("openai_batch", job.conf()).state == "success"
    book.settle("b" * 64, SHARD_USD, now.timestamp(), now.timestamp())  # by another job, anywhere
    sent = len(openai_server.batches())
    assert run_dag("openai_batch", make_job(tmp_path, "over", requests=5).conf()).state == "failed"
    assert len(openai_server.batches()) == sent
    assert run_dag("openai_batch", job.conf()).state == "success", "what has landed needs no budget"


def test_the_book_may_lie_in_a_bucket(
    run_dag: RunDag,
    budget: Callable[..., str],
    s3: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__BOOKS_ROOT", s3.uri("accounts"))
    budget(1)
    assert run_dag("openai_batch", make_job(tmp_path, "bucket", requests=5).conf()).state == "success"
    names = [key.removeprefix("accounts/.books/openai_default/").split(".") for key in s3.keys()]  # noqa: SIM118
    # Right after midnight a zero is written for the day before, too.
    assert sorted(name[1] for name in names if name[1] in ("paid", "reserved") and name[2] != "0") == [
        "paid",
        "reserved",
    ]
