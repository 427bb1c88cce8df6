"""The fixture ``openai_server``, registered under pytest's entry point: light until it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_openai_batch.testing.server import OpenAIServer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "openai_server(**options): how the fixture openai_server is set up, for instance in_progress_s=60, speed=0",
    )


@pytest.fixture
def openai_server(request: pytest.FixtureRequest) -> Iterator[OpenAIServer]:
    """An OpenAI-compatible server of this test's own; see `airflow_openai_batch.testing`.

    Set it up with ``@pytest.mark.openai_server(in_progress_s=60, speed=0)``, or later with
    ``openai_server.configure(...)``.
    """
    from airflow_openai_batch.testing.server import OpenAIServer

    mark = request.node.get_closest_marker("openai_server")
    with OpenAIServer(**(mark.kwargs if mark is not None else {})) as server:
        yield server
