"""What shards reserve and pay, by their ledgers and drivers: across deadlines, repairs and lost files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from airflow_openai_batch.costs.budget import Budget
from airflow_openai_batch.costs.monthly_book import MonthlyBook
from airflow_openai_batch.costs.monthly_budget import MonthlyBudget
from airflow_openai_batch.costs.spending import read_spending, to_micro
from airflow_openai_batch.errors import BudgetError
from airflow_openai_batch.job.open_plan import OpenPlan
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.report.job_status import describe_failure, describe_waiting
from airflow_openai_batch.report.repair import find_repair, reopen_shards
from airflow_openai_batch.sending.caller import Caller
from airflow_openai_batch.sending.driver import ShardDriver
from airflow_openai_batch.sending.machine import Goal
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.sending.shard_files import LandingRules, open_shard
from airflow_openai_batch.sending.steps import Wait
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.testing import OpenAIServer
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location

HOUR_S = 3_600.0


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """Batches take an hour, and time moves where a test says so."""
    with OpenAIServer(speed=0, in_progress_s=HOUR_S) as server:
        yield server


@pytest.fixture
def job(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path / "job"))


@pytest.fixture
def plan(server: OpenAIServer, job: Location, tmp_path: Path) -> Plan:
    """Two shards of two requests, each of which may cost up to $0.0003 as a batch."""
    lines = [request_line(str(number), max_tokens=1_000) for number in range(4)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    return split(source, job, max_requests=2, now=server.clock.now()).plan


class Shards:
    """Drives the shards of the job, as tasks do; counts what they count."""

    def __init__(self, server: OpenAIServer, job: Location, plan: Plan) -> None:
        self._server, self._job, self._plan = server, job, plan
        self.counted: Counter[str] = Counter()
        self._repairs = 0

    def finish(self, shard: int, **options: Any) -> None:
        """Batches are over as soon as somebody waits for them."""
        while self.go_on(shard, **options):
            self._server.clock.advance(HOUR_S)

    def go_on(
        self,
        shard: int,
        *,
        max_cost_usd: float | None = None,
        month: MonthlyBudget | None = None,
        **policy: Any,
    ) -> bool:
        """Whether there is a batch to wait for."""
        files = open_shard(self._job, shard, resolve_plain, LandingRules())
        driver = ShardDriver(
            files=files,
            connect=lambda: BatchClient(openai.OpenAI(base_url=self._server.base_url, api_key="sk-test")),
            caller=Caller(dag_id="d", run_id="r", task_id="t", map_index=shard, run_started_at=0.0),
            policy=Policy(**policy),
            check_budget=self._make_check(shard, max_cost_usd),
            monthly_budget=lambda: month,
            count=self._count,
            clock=self._server.clock.now,
        )
        with driver:
            return isinstance(driver.drive(Goal.DONE, admitted=True), Wait)

    def _make_check(self, shard: int, max_cost_usd: float | None) -> Callable[..., None] | None:
        if max_cost_usd is None:
            return None
        budget = Budget(output=self._job, plan=OpenPlan.of(self._plan), max_cost_usd=max_cost_usd)
        return lambda state, in_realtime: budget.check_state(self._plan.shards[shard], state, in_realtime)

    def _count(self, name: str, value: int = 1, **tags: str) -> None:
        self.counted[name] += value

    def reopen(self) -> None:
        self._repairs += 1
        run = f"d/repair_{self._repairs}"
        repair = find_repair(self._plan, self._job, run)
        reopen_shards(self._plan, self._job, repair, by=f"{run}/split#1", now=self._server.clock.now())


@pytest.fixture
def shards(server: OpenAIServer, job: Location, plan: Plan) -> Shards:
    return Shards(server, job, plan)


def publish_at_deadline(server: OpenAIServer, shards: Shards) -> None:
    """One request of each shard is answered; the other is left over, and the time is up."""
    server.script(batch="expired", done=1, total=2, times=2)
    for shard in (0, 1):
        deadline_at = server.clock.now() + HOUR_S / 2
        shards.finish(shard, max_cost_usd=1, on_deadline="publish", deadline_at=deadline_at)


def test_a_repair_after_a_deadline_keeps_the_budget_side_by_side(
    server: OpenAIServer, job: Location, shards: Shards
) -> None:
    publish_at_deadline(server, shards)
    paid_usd = read_spending(job).paid_usd
    assert (paid_usd > 0, read_spending(job).reserved_usd) == (True, 0)
    shards.reopen()
    room_for_one = paid_usd + 0.0004
    assert shards.go_on(0, max_cost_usd=room_for_one)
    with pytest.raises(BudgetError):
        shards.go_on(1, max_cost_usd=room_for_one)


def test_a_shard_that_was_never_sent_leaves_its_first_send_to_the_repair(
    server: OpenAIServer, job: Location, shards: Shards
) -> None:
    for shard in (0, 1):
        shards.finish(shard, on_deadline="publish", deadline_at=server.clock.now())
    shards.reopen()
    assert shards.go_on(0, max_cost_usd=0.0008)
    with pytest.raises(BudgetError):
        shards.go_on(1, max_cost_usd=0.0008)


def test_a_repair_counts_only_what_it_pays_for(server: OpenAIServer, job: Location, shards: Shards) -> None:
    server.script(line=400, custom_id="1", times=2)
    for _ in range(3):
        shards.finish(0)
        assert shards.counted["cost_micro_usd"] == to_micro(read_spending(job).paid_usd) > 0
        shards.reopen()
    assert shards.counted["rows"] == 3, "two of the first run, one that became better"


def test_what_a_deadline_publishes_is_counted_once(
    server: OpenAIServer, job: Location, shards: Shards
) -> None:
    publish_at_deadline(server, shards)
    assert shards.counted["cost_micro_usd"] == pytest.approx(to_micro(read_spending(job).paid_usd), abs=1)


def test_an_alert_about_a_repair_does_not_say_that_all_has_landed(
    server: OpenAIServer, job: Location, shards: Shards
) -> None:
    publish_at_deadline(server, shards)
    shards.reopen()
    assert shards.go_on(0)
    now = server.clock.now() + HOUR_S
    waiting, failed = describe_waiting(job, now=now), describe_failure(job, since=now)
    assert waiting is not None
    assert failed is not None
    assert "2 of 2 shards are not done" in waiting.what
    assert "of shard 0, was sent 60 min ago" in waiting.what
    assert "for the 2 requests left" in waiting.cost
    assert "2 of 2 shards are not done" in failed.what


def test_a_call_that_created_nothing_holds_nothing_of_the_month(
    server: OpenAIServer, tmp_path: Path, shards: Shards
) -> None:
    """The server does not know the file yet: it is waited for."""
    book = MonthlyBook(resolve_plain(str(tmp_path / "book")))
    month = MonthlyBudget(book=book, conn_id="c", monthly_budget_usd=1)
    rule = server.script(http="POST /batches", status=404, code="not_found", times=None)
    shards.go_on(0, month=month)
    assert server.books.calls_of("POST /v1/batches") == 1
    assert book.read(server.clock.now()).reserved_usd == 0
    server.unscript(rule)
    server.clock.advance(60)
    assert shards.go_on(0, month=month)
    assert book.read(server.clock.now()).reserved_usd > 0
