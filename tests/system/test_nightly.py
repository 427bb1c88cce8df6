"""Three nights of reviews in a row by a real scheduler, one of them failing and cleared, and the DAG on their asset."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset
import pytest

from demo.api import Run

if TYPE_CHECKING:
    from airflow_openai_batch.testing.server import OpenAIServer
    from demo.standalone import LocalAirflow

# The first test that uses it also waits for Airflow to start.
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]

NIGHTLY = "reviews_sentiment_nightly"
FOLLOWUP = "reviews_sentiment_followup"
NIGHTS = ["2025-06-02", "2025-06-03", "2025-06-04"]


@pytest.fixture(autouse=True)
def _forget_scripts(shared_openai_server: OpenAIServer) -> Iterator[None]:
    yield
    shared_openai_server.unscript()


def start_nights(airflow: LocalAirflow, conf: dict[str, Any]) -> list[Run]:
    """One run for the data interval that begins on each day; they queue up, since one at a time may run.

    (Airflow refuses to create backfills on SQLite while its scheduler works on it.)
    """
    for dag_id in (NIGHTLY, FOLLOWUP):
        airflow.wait_for_dag(dag_id, timeout_s=240)
    airflow.request("PATCH", f"/api/v2/dags/{NIGHTLY}", json={"is_paused": False})
    runs = []
    for day in map(date.fromisoformat, NIGHTS):
        begin, end = (f"{at}T02:00:00Z" for at in (day, day + timedelta(days=1)))  # four o'clock in Berlin
        body = {
            "dag_run_id": f"night_of_{day}",
            "logical_date": begin,
            "data_interval_start": begin,
            "data_interval_end": end,
            "conf": conf,
        }
        airflow.request("POST", f"/api/v2/dags/{NIGHTLY}/dagRuns", json=body)
        runs.append(Run(NIGHTLY, body["dag_run_id"]))
    return runs


def wait_for(path: Path, *, timeout_s: float = 120) -> Path:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.5)
    return path


def read_followup(folder: Path, day: str) -> list[str]:
    with wait_for(folder / "followup" / f"{day}.csv").open(encoding="utf-8-sig", newline="") as file:
        return [row["review_id"] for row in csv.DictReader(file)]


def test_three_data_intervals_in_a_row_of_which_one_fails_and_is_cleared(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    folder = tmp_path / "nights"
    rule = shared_openai_server.script(
        batch="failed", code="model_not_found", metadata={"run_id": f"night_of_{NIGHTS[1]}"}, times=None
    )
    conf = {"output_uri": str(folder), "mode": "batch", "poll_interval": 1}
    first, second, third = start_nights(local_airflow, conf)
    assert local_airflow.wait(first, timeout_s=240) == "success", local_airflow.explain(first)
    assert local_airflow.wait(second, timeout_s=120) == "failed"
    assert local_airflow.wait(third, timeout_s=120) == "success", local_airflow.explain(third)
    assert "Row 1: Positive" in local_airflow.logs(third, "report")
    assert read_followup(folder, NIGHTS[0]) == ["R-1002", "R-1005", "R-1010"]
    assert read_followup(folder, NIGHTS[2]) == ["R-1022", "R-1023", "R-1026"]
    assert not (folder / "followup" / f"{NIGHTS[1]}.csv").exists(), "nobody is told of a night that failed"

    shared_openai_server.unscript(rule)
    assert ("ask.shard", 0) in local_airflow.clear_failed(second)
    assert local_airflow.wait(second, timeout_s=120) == "failed", (
        "its table is older than its shards, and it says so"
    )
    body = {"dry_run": False, "only_failed": False, "include_downstream": True, "task_ids": ["join"]}
    place = f"/api/v2/dags/{NIGHTLY}/clearTaskInstances"
    local_airflow.request("POST", place, json={**body, "dag_run_id": second.run_id})
    assert local_airflow.wait(second, timeout_s=120) == "success", local_airflow.explain(second)
    assert read_followup(folder, NIGHTS[1]) == ["R-1011", "R-1013", "R-1018"]
    table = pyarrow.dataset.dataset(folder / "table", partitioning="hive").to_table(
        columns=["day", "sentiment"]
    )
    days = table["day"].to_pylist()
    assert [days.count(day) for day in NIGHTS] == [10, 9, 10]
    assert table["sentiment"].null_count == 1, "the row without a text"
    trend = (folder / "days" / NIGHTS[2] / "report.md").read_text()
    assert "| 2025-06-03 | 8 | 8 (100.0%) |" in trend, "as it stood when the third night was reported"
