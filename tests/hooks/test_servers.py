"""A connection to another server holds on every way to a client: task, triggerer, page, real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError, RemoteError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from fixtures.gate import Gate, open_gate
from fixtures.paths import PATHS, Ask, ask_for_page, ask_in_task

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

KEY = "key-of-mine"


@pytest.fixture
def gate(openai_server: OpenAIServer) -> Iterator[Gate]:
    with open_gate(openai_server.url) as gate:
        yield gate


@pytest.fixture
def define(define_connection: Callable[..., str], gate: Gate) -> Callable[..., str]:
    def connect(host: str = "", password: str = KEY, **extra: Any) -> str:
        return define_connection(
            "c", conn_type="openai", password=password, host=host or gate.address, extra=extra
        )

    return connect


@pytest.mark.openai_server(server="azure")
@pytest.mark.parametrize("ask", PATHS)
def test_azure_gets_the_key_in_its_own_header_and_at_its_own_path(
    define: Callable[..., str], gate: Gate, tmp_path: Path, ask: Ask
) -> None:
    ask(define(server="azure"), tmp_path)
    assert {headers.get("api-key") for headers in gate.headers} == {KEY}
    assert not any("authorization" in headers for headers in gate.headers)
    assert all(" /openai/v1/" in call for call in gate.calls)


@pytest.mark.openai_server(server="azure")
def test_a_redirect_does_not_carry_the_key_to_another_host(define: Callable[..., str], gate: Gate) -> None:
    with open_gate() as other:
        gate.answer("GET /openai/v1/batches", 302, location=f"{other.address}/v1/batches")
        other.answer("GET /v1/batches", 200, {"data": []})
        with (
            OpenAIBatchHook(define(server="azure")).get_batch_client() as client,
            pytest.raises(RemoteError, match="leads to"),
        ):
            client.check_key()
        assert other.headers
        assert KEY not in str(other.headers)


@pytest.mark.openai_server(server="groq")
@pytest.mark.parametrize("ask", PATHS)
def test_a_server_with_another_path_is_found_at_it(
    define: Callable[..., str], gate: Gate, tmp_path: Path, ask: Ask
) -> None:
    ask(define(server="groq"), tmp_path)
    assert {headers["authorization"] for headers in gate.headers} == {f"Bearer {KEY}"}
    assert all(" /openai/v1/" in call for call in gate.calls)


@pytest.mark.parametrize("ask", PATHS)
def test_a_server_that_is_not_known_is_said_on_every_way(
    define: Callable[..., str], gate: Gate, tmp_path: Path, ask: Ask
) -> None:
    with pytest.raises((ConfigError, RemoteError)) as caught:
        ask(define(server="azur"), tmp_path)
    assert "server='azur' in its extra is not known. Known are openai, azure, groq, together, litellm" in str(
        caught.value
    )
    assert ask is ask_for_page or isinstance(caught.value, ConfigError)
    assert not gate.calls


def test_a_key_in_the_environment_goes_where_its_host_says(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The default connection does not exist; of a host that is nobody's nothing changes."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", gate.base_url)
    ask_in_task("openai_default", tmp_path)
    assert {headers["authorization"] for headers in gate.headers} == {f"Bearer {KEY}"}
