"""A connection's key goes to the server of that connection alone, and what servers say brings it nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError, LedgerError, UnreadableInputError
from airflow_openai_batch.job.ledger import ShardLedger
from airflow_openai_batch.storage.location import Location
from airflow_openai_batch.storage.sources import describe_file
from fixtures.airflow_versions import CREATES
from fixtures.gate import Gate, open_gate
from fixtures.job import Job, chat_line
from fixtures.telltale_store import TelltaleFileSystem

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

KEY = "Tough7key/of+a_gateway=that-looks.like.nothing"
HEADER = "another-secret-of-the-extra"


@pytest.fixture
def gate(openai_server: OpenAIServer) -> Iterator[Gate]:
    """Before the emulator, and what the connection ``openai_default`` leads to."""
    with open_gate(openai_server.base_url) as gate:
        yield gate


@pytest.fixture
def conn(gate: Gate, define_connection: Callable[..., str]) -> str:
    kwargs = {"default_headers": {"x-portal": HEADER}}
    return define_connection(
        "openai_default",
        conn_type="openai",
        password=KEY,
        host=gate.base_url,
        extra={"openai_client_kwargs": kwargs},
    )


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path).write(chat_line(str(n)) for n in range(2))


def echo(headers: dict[str, str]) -> dict[str, Any]:
    """What gateways do that are being set up."""
    assert headers["authorization"] == f"Bearer {KEY}"
    said = f"cannot route\r\n{headers}\x1b[2J"
    return {"error": {"message": said, "code": f"no_{KEY}", "type": headers["authorization"]}}


def echo_in_part(headers: dict[str, str]) -> dict[str, Any]:
    """As servers do that mask keys themselves."""
    return {"error": {"message": f"cannot route {headers} for {KEY[:8]}***{KEY[-4:]}"}}


def check_nowhere(run: FinishedRun, job: Job, printed: str, *, but: tuple[str, ...] = ()) -> None:
    """Neither in what a user reads nor in any file of the job."""
    texts = [printed, json.dumps(run.failures)]
    texts += [str(run.xcom(task, map_index=index, key="error")) for task, index in run.states]
    files = [path for path in job.output.rglob("*") if path.is_file() and path.parent.name not in but]
    texts += [path.read_bytes().decode("latin-1") for path in files]
    for text in texts:
        for secret in (KEY, KEY[:8], HEADER):
            assert secret not in text
    assert all(len(text) <= 600 and text.isprintable() for text in _errors(run))


def _errors(run: FinishedRun) -> list[str]:
    found = (run.xcom(task, map_index=index, key="error") for task, index in run.states)
    return [text for text in found if text]


@pytest.mark.parametrize(
    ("call", "task"),
    [
        ("GET /v1/batches", "split"),
        ("POST /v1/files", "shard.upload"),
        ("POST /v1/batches", CREATES),
    ],
)
def test_a_server_that_echoes_what_it_was_sent_brings_the_key_nowhere(
    run_dag: RunDag, gate: Gate, conn: str, job: Job, capfd: pytest.CaptureFixture[str], call: str, task: str
) -> None:
    gate.answer(call, 400, echo if task == "split" else echo_in_part)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert "cannot route {" in run.errors(task, map_index=-1 if task == "split" else 0)
    assert any("400" in text for text in _errors(run))
    check_nowhere(run, job, "".join(capfd.readouterr()))


@pytest.mark.long
def test_nor_does_its_page_with_status_200(
    run_dag: RunDag, gate: Gate, conn: str, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    gate.answer("POST /v1/batches", 200, lambda headers: f"<html>{headers}</html>", content_type="text/html")
    run = run_dag("openai_batch", job.conf())
    assert "a web page came" in run.errors(CREATES, map_index=0)
    check_nowhere(run, job, "".join(capfd.readouterr()))


@pytest.mark.long
def test_nor_do_the_errors_of_a_batch(
    run_dag: RunDag, openai_server: OpenAIServer, conn: str, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    said = f"The file is odd.\nAuthorization: Bearer {KEY} and " + "x" * 1_000
    openai_server.script(batch="failed", code=f"odd_{KEY}", message=said)
    run = run_dag("openai_batch", job.conf())
    assert run.state == "failed"
    assert any("The file is odd. Authorization: ***" in text for _, _, text in run.failures)
    check_nowhere(run, job, "".join(capfd.readouterr()))


def test_nor_do_refusals_of_single_requests(
    run_dag: RunDag, openai_server: OpenAIServer, conn: str, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    openai_server.script(line=400, message=f"no {KEY} here", code=f"c{KEY}", times=None)
    run = run_dag("openai_batch", job.conf(max_failed_fraction=0.0))
    assert run.state == "failed"
    assert {row["error_message"] for row in job.rows()} == {"no *** here"}
    check_nowhere(run, job, "".join(capfd.readouterr()), but=("raw",))


def test_nor_does_what_is_answered_in_real_time(
    run_dag: RunDag, gate: Gate, conn: str, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    gate.answer("POST /v1/chat/completions", 400, echo)
    run = run_dag("openai_batch", job.conf(mode="realtime", keep_response_body=True))
    assert gate.calls["POST /v1/chat/completions"] == 2
    assert all("cannot route" in row["error_message"] for row in job.rows())
    check_nowhere(run, job, "".join(capfd.readouterr()))


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "words"), [(200, "a web page came"), (403, "a web page came"), (302, "leads to")]
)
def test_a_page_in_real_time_is_no_answer_to_a_request(
    run_dag: RunDag, gate: Gate, conn: str, job: Job, status: int, words: str
) -> None:
    headers = {"content_type": "text/html", "location": "https://login.example/"}
    gate.answer("POST /v1/chat/completions", status, "<html>log in</html>", **headers)
    run = run_dag("openai_batch", job.conf(mode="realtime"))
    assert words in " ".join(text for _, _, text in run.failures)
    assert not list(job.output.glob("results/*"))
    assert not list(job.output.glob("raw/*"))


@pytest.mark.parametrize("conn_type", ["aws", "http", "generic", "", None])
def test_the_password_of_another_kind_of_connection_goes_nowhere(
    define_connection: Callable[..., str], gate: Gate, conn_type: str | None
) -> None:
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook

    fields = {"password": KEY, "host": gate.base_url, "extra": {"webhook_secret": "whsec_x", "tier": 3}}
    hook = OpenAIBatchHook(
        define_connection(
            "aws_default", **fields, **({"conn_type": conn_type} if conn_type is not None else {})
        )
    )
    for use in (
        hook.get_conn,
        hook.get_batch_client,
        hook.get_realtime_client,
        hook.get_limits,
        lambda: hook.get_connection("aws_default"),
        lambda: asyncio.run(hook.aget_batch_client()),
    ):
        with pytest.raises(ConfigError, match="connection 'aws_default': has") as caught:
            use()
        assert conn_type is None or conn_type in str(caught.value)
    assert not gate.calls


def test_a_run_that_names_one_fails_before_it_asks_anybody(
    run_dag: RunDag,
    gate: Gate,
    define_connection: Callable[..., str],
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS", "aws_default")
    define_connection("aws_default", conn_type="aws", password=KEY, host=gate.base_url)
    run = run_dag("openai_batch", job.conf(conn_id="aws_default"), retries=2)
    assert run.state == "failed"
    assert "connection 'aws_default': has type 'aws'" in run.errors("split")
    assert [task for task, _, _ in run.failures].count("split") == 1, "no try more: it would end the same"
    assert not gate.calls


def test_nor_does_that_of_any_kind_to_a_catalogue_or_a_vector_store(
    define_connection: Callable[..., str], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_openai_batch.recipes.cds.cd_catalogues import HttpCatalogue
    from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore

    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS", "my_db")
    define_connection("my_db", conn_type="postgres", password=KEY, host=gate.address)
    with pytest.raises(ConfigError, match="connection 'my_db': has type 'postgres'"):
        HttpCatalogue.from_connection("my_db")
    with (
        pytest.raises(ConfigError, match="connection 'my_db': has type 'postgres'"),
        PointStore(conn_id="my_db", collection="c").open() as points,
    ):
        points.exists()
    assert not gate.calls


def test_what_a_storage_says_is_cleaned_of_its_credentials() -> None:
    """Clients of object stores put signed addresses into what they raise."""
    place = Location(TelltaleFileSystem(), "bucket/key", "telltale://bucket/key")
    said = [place.find_write_problem() or ""]
    for use in (lambda: describe_file(place), ShardLedger(place).read):
        with pytest.raises((UnreadableInputError, LedgerError)) as caught:
            use()
        said.append(str(caught.value))
    for text in said:
        assert "403 for https://bucket.example/key?***" in text
        assert "SIGNED" not in text
