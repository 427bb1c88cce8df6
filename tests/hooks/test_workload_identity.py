"""A connection without a key: a token of the platform is exchanged for one of OpenAI, on every way to a client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import FatalAccountError, RemoteError, TransientError
from fixtures.gate import Gate, open_gate
from fixtures.paths import PATHS, Ask, ask_for_page
from fixtures.token_exchange import EXCHANGE, open_token_exchange

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = pytest.mark.needs_program("openssl")
TOKEN = {"access_token": "token-of-openai", "expires_in": 3_600}


@pytest.fixture
def gate(openai_server: OpenAIServer) -> Iterator[Gate]:
    with open_gate(openai_server.url) as gate:
        yield gate


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    with open_token_exchange(tmp_path, monkeypatch) as exchange:
        exchange.answer(EXCHANGE, 200, TOKEN)
        yield exchange


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("token-of-the-platform\n")
    return file


@pytest.fixture
def conn(define_connection: Callable[..., str], gate: Gate, token_file: Path) -> str:
    extra: dict[str, Any] = {
        "auth_type": "workload_identity",
        "workload_identity_provider": "kubernetes",
        "identity_provider_id": "idp_1",
        "service_account_id": "sa_1",
        "token_file_path": str(token_file),
        "openai_client_kwargs": {"project": "proj-of-mine"},
    }
    return define_connection("c", conn_type="openai", password="sk-unused", host=gate.base_url, extra=extra)


@pytest.mark.parametrize("ask", PATHS)
def test_the_platforms_token_becomes_one_of_openai(
    conn: str, gate: Gate, exchange: Gate, tmp_path: Path, ask: Ask
) -> None:
    ask(conn, tmp_path)
    asked = json.loads(exchange.bodies[0])
    assert asked["subject_token"] == "token-of-the-platform"
    assert (asked["identity_provider_id"], asked["service_account_id"]) == ("idp_1", "sa_1")
    assert {headers["authorization"] for headers in gate.headers} == {"Bearer token-of-openai"}
    assert {headers["openai-project"] for headers in gate.headers} == {"proj-of-mine"}


@pytest.mark.parametrize("ask", PATHS)
def test_a_token_that_is_not_taken_ends_it_and_names_the_keys(
    conn: str, gate: Gate, exchange: Gate, tmp_path: Path, ask: Ask
) -> None:
    refusal = {"error": "invalid_grant", "error_description": "The service account is not bound."}
    exchange.answer(EXCHANGE, 401, refusal)
    with pytest.raises(TransientError if ask is ask_for_page else FatalAccountError) as caught:
        ask(conn, tmp_path)
    for word in ("401 invalid_grant", "The service account is not bound", "identity_provider_id"):
        assert word in str(caught.value)
    assert not gate.calls


@pytest.mark.parametrize("ask", PATHS)
def test_a_token_that_is_not_there_is_waited_for_and_its_file_named(
    conn: str,
    gate: Gate,
    exchange: Gate,
    token_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    token_file.unlink()
    with pytest.raises(RemoteError) as caught:
        ask(conn, tmp_path)
    assert isinstance(caught.value, TransientError)
    assert "Failed to read the token file" in str(caught.value)
    assert "workload_identity_provider" in str(caught.value)
    assert ask is ask_for_page or str(token_file) in str(caught.value)  # the page has 300 characters
    assert not gate.calls
    assert not exchange.calls
