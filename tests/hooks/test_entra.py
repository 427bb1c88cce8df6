"""Azure without a key: tokens of Entra ID, on every way to a client."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError, FatalAccountError, RemoteError, TransientError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from fixtures.entra import ASK, CLIENT, SECRET, TOKEN, name_application, open_entra, read_asked, refuse
from fixtures.gate import Gate, open_gate
from fixtures.paths import PATHS, Ask, ask_for_page, ask_in_task

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [pytest.mark.needs_program("openssl"), pytest.mark.openai_server(server="azure")]


@pytest.fixture
def gate(openai_server: OpenAIServer) -> Iterator[Gate]:
    with open_gate(openai_server.url) as gate:
        yield gate


@pytest.fixture
def entra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    with open_entra(tmp_path, monkeypatch) as entra:
        yield entra


@pytest.fixture
def define(define_connection: Callable[..., str], gate: Gate) -> Callable[..., str]:
    def connect(extra: dict[str, Any], password: str = SECRET) -> str:
        return define_connection("c", conn_type="openai", password=password, host=gate.address, extra=extra)

    return connect


@pytest.mark.parametrize("ask", PATHS)
def test_the_secret_of_an_application_becomes_a_token(
    define: Callable[..., str], gate: Gate, entra: Gate, tmp_path: Path, ask: Ask
) -> None:
    ask(define(name_application(entra)), tmp_path)
    asked = read_asked(entra)
    assert (asked["client_id"], asked["client_secret"]) == (CLIENT, SECRET)
    assert asked["scope"].split()[0] == "https://cognitiveservices.azure.com/.default"
    assert {headers["authorization"] for headers in gate.headers} == {f"Bearer {TOKEN}"}
    assert not any("api-key" in headers for headers in gate.headers)
    assert SECRET not in str(gate.headers)


def test_a_token_is_asked_for_once_and_for_the_scope_that_the_extra_says(
    define: Callable[..., str], entra: Gate
) -> None:
    conn_id = define(name_application(entra, azure_scope="https://ai.azure.com/.default"))
    with OpenAIBatchHook(conn_id).get_batch_client() as client:
        for _ in range(3):
            client.check_key()
    assert entra.calls[ASK] == 1
    assert read_asked(entra)["scope"].split()[0] == "https://ai.azure.com/.default"


def test_without_a_password_the_identity_of_the_environment_asks(
    define: Callable[..., str], gate: Gate, entra: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = name_application(entra)
    monkeypatch.setenv("AZURE_TENANT_ID", extra["tenant_id"])
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    ask_in_task(define({"server": "azure", "azure_authority": entra.address}, password=""), tmp_path)
    assert {headers["authorization"] for headers in gate.headers} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("ask", PATHS)
def test_a_secret_that_is_not_taken_ends_it_and_names_the_keys(
    define: Callable[..., str], gate: Gate, entra: Gate, tmp_path: Path, ask: Ask
) -> None:
    refuse(entra)
    with pytest.raises(TransientError if ask is ask_for_page else FatalAccountError) as caught:
        ask(define(name_application(entra)), tmp_path)
    for word in ("connection 'c': Entra ID gave no token", "AADSTS7000215", "tenant_id"):
        assert word in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not gate.calls


def test_an_authority_that_cannot_be_reached_is_asked_again(
    define: Callable[..., str], gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)  # only the clock
    with open_entra(tmp_path, monkeypatch) as entra:
        extra = name_application(entra)
    with pytest.raises(RemoteError) as caught:
        ask_in_task(define(extra), tmp_path)
    assert isinstance(caught.value, TransientError), caught.value
    assert "Entra ID could not be asked for a token" in str(caught.value)
    assert not gate.calls


@pytest.mark.parametrize("ask", PATHS)
def test_without_the_package_the_extra_to_install_is_named(
    define: Callable[..., str],
    gate: Gate,
    entra: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)  # as if it were not installed
    with pytest.raises((ConfigError, TransientError)) as caught:
        ask(define(name_application(entra)), tmp_path)
    assert "azure-identity is not installed. Install airflow-provider-openai-batch[azure]" in str(
        caught.value
    )
    assert not gate.calls


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"tenant_id": "t"}, "has tenant_id in its extra and no client_id"),
        ({"client_id": "c"}, "has client_id in its extra and no tenant_id"),
        ({"tenant_id": 7, "client_id": "c"}, "tenant_id in its extra must be a text"),
        (
            {"tenant_id": "t", "client_id": "c", "azure_authority": "http://plain.example"},
            "azure-identity refuses what its extra says of Entra ID",
        ),
        (
            {"tenant_id": "no tenant!", "client_id": "c"},
            "azure-identity refuses what its extra says of Entra ID",
        ),
    ],
)
def test_what_is_said_of_an_application_by_half_or_wrongly_is_told(
    define: Callable[..., str], gate: Gate, tmp_path: Path, extra: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ask_in_task(define({"server": "azure", **extra}), tmp_path)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not gate.calls
