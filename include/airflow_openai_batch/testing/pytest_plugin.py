"""The fixture ``openai_server``, registered under pytest's entry point: light until it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_openai_batch.testing.server import OpenAIServer


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    """An OpenAI-compatible server of this test's own; see `airflow_openai_batch.testing`."""
    from airflow_openai_batch.testing.server import OpenAIServer

    with OpenAIServer() as server:
        yield server
