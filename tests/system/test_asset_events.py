"""Tasks that end at the same moment with the first event of one asset: PostgreSQL, since SQLite takes one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.openai_side import OpenAISide
from demo.standalone import LocalAirflow, allow_forms
from fixtures.job import chat_line
from fixtures.postgres import run_postgres

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from demo.api import Run

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(420),
    pytest.mark.needs_program("initdb"),
]
FILES = 8


@pytest.fixture(scope="module")
def airflow(
    shared_openai_server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    folder = tmp_path_factory.mktemp("asset-events")
    side = OpenAISide(shared_openai_server.base_url, "sk-test", emulated=True)
    env = side.connection() | allow_forms(tmp_path_factory.getbasetemp())
    with run_postgres() as address:
        env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"postgresql+psycopg2://airflow@{address}/airflow"
        with LocalAirflow(folder / "airflow", env=env, parallelism=FILES) as airflow:
            yield airflow


def list_events(airflow: LocalAirflow, run: Run) -> list[str]:
    events = airflow.get("/api/v2/assets/events", source_dag_id=run.dag_id, source_run_id=run.run_id)
    return [str(event["uri"]) for event in events["asset_events"]]


def test_files_of_an_inbox_that_is_drained_for_the_first_time(airflow: LocalAirflow, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(FILES):
        (inbox / f"{number}.jsonl").write_text(chat_line(f"inbox {number}", "Lovely.") + "\n")
    run = airflow.trigger(
        "drain_request_files", {"inbox": f"file://{inbox}", "mode": "batch", "poll_interval": 1, "min_age": 0}
    )
    assert airflow.wait(run) == "success", airflow.states(run)
    assert list_events(airflow, run) == [f"file://{inbox}"] * FILES
