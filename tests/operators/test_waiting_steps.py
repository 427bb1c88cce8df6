"""A job of many shards in many steps keeps Airflow's scheduler busy, and says so before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.operators.task.waiting_steps import MANY_SHARDS
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.mark.parametrize(
    ("dag_id", "shards", "warns"),
    [
        ("openai_batch", MANY_SHARDS, True),
        ("openai_batch", MANY_SHARDS - 1, False),
        ("openai_batch_one_task", MANY_SHARDS, False),
    ],
)
def test_a_split_into_many_shards_of_many_tasks_names_the_dag_with_one(
    run_dag: RunDag,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    dag_id: str,
    shards: int,
    warns: bool,
) -> None:
    job = Job(tmp_path).write(chat_line(str(number)) for number in range(shards))
    assert run_dag(dag_id, job.conf(max_requests_per_shard=1, dry_run=True)).states["split", -1] == "success"
    assert (f"{shards} shards of 5 tasks each" in "".join(capfd.readouterr())) is warns
