"""What a sample says that all would cost, held against what all have cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.mark.parametrize(
    ("requests", "shard", "form"),
    [
        (12, 50, {}),  # the sample in real time, and so are the few that are left
        pytest.param(30, 50, {}, marks=pytest.mark.long),  # the rest as a batch
        pytest.param(
            14, 12, {"realtime_threshold": 3}, marks=pytest.mark.long
        ),  # a batch, and a shard in real time
    ],
)
def test_the_forecast_of_a_sample_holds_where_part_goes_through_real_time(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    tmp_path: Path,
    requests: int,
    shard: int,
    form: dict[str, Any],
) -> None:
    texts = [f"Review {n}: lovely. " * 60 * (1 + n % 3) for n in range(requests)]
    job = Job(tmp_path, {"mode": "auto", "max_requests_per_shard": shard, **form})
    job.write(chat_line(f"review/{n}", text) for n, text in enumerate(texts))
    sample = run_dag("openai_batch", job.conf(sample_requests=5))
    assert sample.state == "success", sample.failures
    outlook = sample.xcom("publish")["extrapolation"]
    said = re.search(rf"all {requests} requests would cost about \$([\d.]+)", outlook)
    assert said is not None, outlook
    whole = run_dag("openai_batch", job.conf())
    assert whole.state == "success", whole.failures
    cost_usd = job.report()["cost"]["actual_usd"]
    assert openai_server.books.billed["realtime"], "some of it at the full price"
    assert float(said[1]) == pytest.approx(cost_usd, rel=0.2), outlook
