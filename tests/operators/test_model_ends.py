"""A model that is gone is refused before anything is sent, one that ends soon is warned of: log and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.job.plan import Plan, ShardLimits
from airflow_openai_batch.job.plan_layout import encode_plan
from airflow_openai_batch.openai_api.model_ends import ModelEnds
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

GONE = "gpt-4.1-nano"
NOVEMBER = datetime(2026, 11, 29, tzinfo=UTC).timestamp()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(str(n), model=GONE) for n in range(2))


def test_a_plan_for_a_model_that_is_gone_fails_at_openai_alone(
    run_dag: RunDag, job: Job, define_connection: Callable[..., str], openai_server: OpenAIServer
) -> None:
    define_connection("openai_default", conn_type="openai", password="sk-test")
    run = run_dag("openai_batch", job.conf(dry_run=True))
    assert run.state == "failed"
    assert "asks for gpt-4.1-nano (shut down on 2026-10-23); nothing was sent." in run.errors("split")
    assert "Ask for gpt-6-luna instead, for instance." in run.errors("split")
    assert not job.output.exists() or list(job.output.iterdir()) == []
    define_connection(
        "openai_default", conn_type="openai", password="sk-test", extra={"model_ends": {GONE: None}}
    )
    assert run_dag("openai_batch", job.conf(dry_run=True)).state == "success"
    define_connection("openai_default", conn_type="openai", password="sk-test", host=openai_server.base_url)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "success", run.failures


def test_one_that_ends_soon_is_told_of_in_the_log_and_the_report(
    run_dag: RunDag,
    job: Job,
    define_connection: Callable[..., str],
    openai_server: OpenAIServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    end = datetime.now(UTC).date() + timedelta(days=30)
    told = f"{GONE} ends in 30 days, on {end}."
    define_connection(
        "openai_default",
        conn_type="openai",
        password="sk-test",
        host=openai_server.base_url,
        extra={"model_ends": {GONE: str(end)}},
    )
    run = run_dag("openai_batch", job.conf())
    assert run.state == "success", run.failures
    assert told in "".join(capfd.readouterr())
    assert any(note.startswith(told) for note in job.report()["notes"])
    assert told in (job.output / "report.md").read_text()


def plan(job: Job, *, now: float, **ends: Any) -> Plan:
    return split_job(
        [str(job.input)],
        resolve_plain(str(job.output)),
        resolve=resolve_plain,
        limits=ShardLimits(),
        now=now,
        model_ends=ModelEnds(is_openai=True, **ends),
    ).plan


def test_a_job_that_was_planned_in_time_and_not_begun_is_refused_once_its_model_is_gone(
    tmp_path: Path,
) -> None:
    job = Job(tmp_path).write([chat_line("a", model="gpt-5")])
    made = plan(job, now=NOVEMBER)
    assert [(end.model, str(end.ends_on), end.successor) for end in made.model_ends] == [
        ("gpt-5", "2026-12-11", "gpt-6.1-sol")
    ]
    december = NOVEMBER + 20 * 86_400
    with pytest.raises(InputError, match=r"asks for gpt-5 \(shut down on 2026-12-11\)"):
        plan(job, now=december)
    place = job.output / "state" / "00000" / "0001-uploaded.json"
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    assert plan(job, now=december) == made  # begun: what is there goes on to its report


def test_a_plan_without_ends_is_one_of_an_older_release(tmp_path: Path) -> None:
    job = Job(tmp_path).write([chat_line("a", model="gpt-5")])
    content = json.loads(encode_plan(plan(job, now=NOVEMBER)))
    del content["model_ends"]
    assert Plan.from_json(json.dumps(content).encode()).model_ends == ()
