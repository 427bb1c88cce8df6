"""By which certificates a server is known: as ever, and read once a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.hooks.certificates import read_certificates
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from fixtures.gate import make_certificate, open_gate

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = pytest.mark.needs_program("openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed by nobody."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_what_the_environment_names_counts_and_nothing_else(
    certificate: Path,
    openai_server: OpenAIServer,
    define_connection: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_gate(openai_server.base_url, certificate=certificate) as gate:
        define_connection("c", conn_type="openai", password="sk-any", host=gate.base_url)
        with (
            OpenAIBatchHook("c").get_batch_client() as client,
            pytest.raises(OpenAIBatchError, match="not trusted"),
        ):
            list(client.iter_batches(0))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with OpenAIBatchHook("c").get_batch_client() as client:
            assert list(client.iter_batches(0)) == []


def test_they_are_read_once_for_each_place(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = read_certificates()
    assert read_certificates() is usual
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert read_certificates() is not usual
