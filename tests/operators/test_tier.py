"""A connection that says only its tier: shards are cut to the queue of the input's own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag


@pytest.mark.parametrize(("model", "max_tokens"), [("gpt-4o", 85_500), ("gpt-4o-mini", 1_900_000)])
def test_shards_are_cut_to_the_queue_of_the_model(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    define_connection: Callable[..., str],
    tmp_path: Path,
    model: str,
    max_tokens: int,
) -> None:
    define_connection(
        "openai_default",
        conn_type="openai",
        password="sk-test",
        host=openai_server.base_url,
        extra={"tier": "tier 1"},
    )
    job = Job(tmp_path).write(chat_line(str(n)).replace("gpt-4o-mini", model) for n in range(3))
    assert run_dag("openai_batch", job.conf(plan_only=True)).state == "success"
    assert json.loads((job.output / "plan.json").read_bytes())["limits"]["max_tokens"] == max_tokens
