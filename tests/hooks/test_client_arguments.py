"""What a connection's extra says of the client holds on every way to it; what is wrong of it is named."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from airflow_openai_batch.errors import ConfigError, TransientError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from airflow_openai_batch.triggers.connect import connect
from fixtures.gate import Gate, open_gate
from fixtures.paths import PATHS, Ask

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

needs_regions = pytest.mark.skipif(
    "data_residency" not in inspect.signature(openai.OpenAI.__init__).parameters,
    reason="openai before 3 has no regions",
)
ARGUMENTS: dict[str, Any] = {
    "timeout": 7.0,
    "max_retries": 9,
    "organization": "org-of-mine",
    "project": "proj-of-mine",
    "default_headers": {"x-team": "search"},
    "default_query": {"api-version": "preview"},
}


@pytest.fixture
def gate(openai_server: OpenAIServer) -> Iterator[Gate]:
    with open_gate(openai_server.url) as gate:
        yield gate


@pytest.mark.parametrize("ask", PATHS)
def test_arguments_of_the_client_arrive_with_each_request(
    define_connection: Callable[..., str], gate: Gate, tmp_path: Path, ask: Ask
) -> None:
    extra = {"openai_client_kwargs": ARGUMENTS}
    define_connection("c", conn_type="openai", password="sk-right", host=gate.base_url, extra=extra)
    ask("c", tmp_path)
    assert gate.headers
    for headers in gate.headers:
        assert headers["openai-organization"] == "org-of-mine"
        assert headers["openai-project"] == "proj-of-mine"
        assert headers["x-team"] == "search"
        assert headers["authorization"] == "Bearer sk-right"
        assert float(headers["x-stainless-read-timeout"]) == 7.0


def test_a_batch_is_created_once_whatever_the_client_would_retry(
    define_connection: Callable[..., str], gate: Gate
) -> None:
    gate.answer("POST /v1/batches", 500, {"error": {"message": "oh"}})
    extra = {"openai_client_kwargs": {"max_retries": 9}}
    define_connection("c", conn_type="openai", password="sk-right", host=gate.base_url, extra=extra)
    with OpenAIBatchHook("c").get_batch_client() as client, pytest.raises(TransientError):
        client.create(input_file_id="file-1", endpoint="/v1/responses", metadata={})
    assert gate.calls["POST /v1/batches"] == 1


@needs_regions
def test_a_region_is_asked(define_connection: Callable[..., str]) -> None:
    extra = {"openai_client_kwargs": {"data_residency": "eu"}}
    define_connection("c", conn_type="openai", password="sk-right", extra=extra)
    hook = OpenAIBatchHook("c")
    for client in (hook.get_conn(), hook.get_realtime_client(), asyncio.run(hook.aget_conn())):
        assert str(client.base_url) == "https://eu.api.openai.com/v1/"
    assert hook.get_model_ends().is_openai


IDENTITY = {
    "auth_type": "workload_identity",
    "workload_identity_provider": "kubernetes",
    "identity_provider_id": "idp_1",
    "service_account_id": "sa_1",
}
WRONG: list[Any] = [
    ({"openai_client_kwargs": ["x"]}, ("openai_client_kwargs", "a list", "object")),
    ({"openai_client_kwargs": {"time_out": 7}}, ("'time_out'", "openai_client_kwargs", "timeout")),
    ({"openai_client_kwargs": {"http_client": "x"}}, ("'http_client'", "cannot be set there")),
    ({"openai_client_kwargs": {"workload_identity": {}}}, ("'workload_identity'", '"auth_type"')),
    ({"openai_client_kwargs": {"timeout": "7"}}, ("'timeout'", "a text", "number of seconds")),
    ({"openai_client_kwargs": {"timeout": 0}}, ("'timeout'", "above 0")),
    ({"openai_client_kwargs": {"timeout": {"read": 7}}}, ("'timeout'", "an object")),
    ({"openai_client_kwargs": {"max_retries": "2"}}, ("'max_retries'", "whole number")),
    ({"openai_client_kwargs": {"organization": 7}}, ("'organization'", "Write a text")),
    ({"openai_client_kwargs": {"project": ["p"]}}, ("'project'", "Write a text")),
    ({"openai_client_kwargs": {"default_headers": {"x-team": 7}}}, ("'default_headers'", "texts")),
    ({"openai_client_kwargs": {"default_query": "a=b"}}, ("'default_query'", "object")),
    ({"openai_client_kwargs": {"base_url": 7}}, ("'base_url'", "Write a text")),
    pytest.param(
        {"openai_client_kwargs": {"data_residency": "mars"}}, ("data_residency", "'eu'"), marks=needs_regions
    ),
    ({"auth_type": "magic"}, ("auth_type", "'magic'", "workload_identity")),
    ({**IDENTITY, "service_account_id": 7}, ("'service_account_id'", "Write a text")),
    (
        {"auth_type": "workload_identity", "identity_provider_id": "idp_1"},
        ("'service_account_id'", "Missing"),
    ),
    (
        {**IDENTITY, "workload_identity_provider": "aws"},
        ("workload_identity_provider", "'aws'", "kubernetes"),
    ),
    ({**IDENTITY, "workload_identity_provider": "custom"}, ("'token_provider'", "Missing")),
    (
        {**IDENTITY, "workload_identity_provider": "custom", "token_provider": "nowhere.at.all"},
        ("'token_provider'", "cannot be imported"),
    ),
    (
        {**IDENTITY, "workload_identity_provider": "custom", "token_provider": "os.sep"},
        ("'token_provider'", "no function"),
    ),
    ({**IDENTITY, "refresh_buffer_seconds": "60"}, ("'refresh_buffer_seconds'", "seconds")),
    ({**IDENTITY, "token_type": "saml"}, ("'token_type'", '"jwt" or "id"')),
]


@pytest.mark.parametrize(("extra", "words"), WRONG)
def test_a_wrong_key_is_named_on_every_way_to_a_client(
    define_connection: Callable[..., str], extra: dict[str, Any], words: tuple[str, ...]
) -> None:
    define_connection("odd", conn_type="openai", password="sk-right", extra=extra)
    hook = OpenAIBatchHook("odd")
    ways = (
        hook.get_batch_client,
        hook.get_realtime_client,
        lambda: asyncio.run(connect("odd")),  # type: ignore[arg-type]
        lambda: asyncio.run(hook.aget_conn()),
    )
    for open_it in ways:
        with pytest.raises(ConfigError) as caught:
            open_it()
        assert "connection 'odd'" in str(caught.value)
        for word in words:
            assert word in str(caught.value)


def test_an_unknown_way_to_log_in_is_named_where_a_model_is_looked_up(
    define_connection: Callable[..., str],
) -> None:
    define_connection("odd", conn_type="openai", password="sk-right", extra={"auth_type": "magic"})
    with pytest.raises(ConfigError, match="auth_type"):
        OpenAIBatchHook("odd").get_model_ends()


@needs_regions
def test_a_region_and_a_host_at_once_are_told(define_connection: Callable[..., str]) -> None:
    extra = {"openai_client_kwargs": {"data_residency": "eu"}}
    host = "https://gateway.example/v1"
    define_connection("odd", conn_type="openai", password="sk-right", host=host, extra=extra)
    with pytest.raises(ConfigError, match=r"'data_residency'.* and a host"):
        OpenAIBatchHook("odd").get_batch_client()
