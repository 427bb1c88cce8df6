"""The main DAG through LiteLLM's proxy: splitting, a full queue, expiry, replies lost before it and behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.sending.policy import Policy
from fixtures.gate import open_gate
from fixtures.reviews import REVIEWS, check_reviews, check_rows

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag
    from fixtures.job import Job
    from foreign_servers.foreign_server import ForeignServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

however_named = pytest.mark.parametrize(
    "extra", [{"server": "litellm"}, {"server": "generic"}, {}], ids=["litellm", "generic", "unnamed"]
)


@however_named
def test_whatever_happens_every_request_ends_in_one_row(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    litellm: ForeignServer,
    job: Job,
    connect: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, Any],
) -> None:
    connect(f"{litellm.address}/v1", **extra)
    openai_server.script(batch="failed", code="token_limit_exceeded", limit=30_000, nth=1)
    openai_server.script(batch="expired", done=2, total=5, nth=2)
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "queue_wait_s", 0.1)  # waits of a minute otherwise
    check_reviews(run_dag("openai_batch", job.conf(), retries=2), job, openai_server)
    assert openai_server.files() == []  # all that was uploaded, and all results, are deleted again


@however_named
def test_a_reply_that_the_proxy_did_not_get_across_is_found_again(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    litellm: ForeignServer,
    job: Job,
    connect: Callable[..., str],
    extra: dict[str, Any],
) -> None:
    with open_gate(litellm.address) as gate:
        connect(gate.base_url, **extra)
        gate.lose("POST /v1/batches", times=2)
        check_reviews(run_dag("openai_batch", job.conf(), retries=3), job, openai_server)
    assert len(openai_server.batches()) == 2


@pytest.mark.openai_server(in_progress_s=10.0)
def test_a_second_batch_that_the_proxy_creates_by_itself_is_cancelled(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    litellm: ForeignServer,
    job: Job,
    connect: Callable[..., str],
) -> None:
    """It asks again where the reply to it is lost. What the second has answered by then is paid."""
    connect(f"{litellm.address}/v1", server="litellm")
    litellm.backend.lose("POST /v1/batches")
    check_rows(run_dag("openai_batch_one_task", job.conf()), job)
    states = sorted(batch["status"] for batch in openai_server.batches())
    assert states == ["cancelled", "completed", "completed"]
    assert REVIEWS <= openai_server.books.billed["batch"] < 1.5 * REVIEWS
