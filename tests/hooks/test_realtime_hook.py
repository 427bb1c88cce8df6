"""From a connection to a real-time send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits
from airflow_openai_batch.sending.realtime.send import send_realtime
from fixtures.realtime import ENDPOINT, make_requests, open_segments

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer


def test_a_connection_is_enough(
    openai_server: OpenAIServer, define_connection: Callable[..., str], tmp_path: Path
) -> None:
    openai_server.configure(api_keys=frozenset({"sk-right"}))
    extra = {"openai_client_kwargs": {"timeout": 7.0, "max_retries": 9}}
    define_connection("c", conn_type="openai", password="sk-right", host=openai_server.base_url, extra=extra)
    client = OpenAIBatchHook("c").get_realtime_client()
    assert (client.timeout, client.max_retries) == (7.0, 0)
    done = send_realtime(
        make_requests(3),
        open_client=lambda: client,
        endpoint=ENDPOINT,
        segments=open_segments(tmp_path),
        limits=RealtimeLimits(),
    )
    assert done.answered == 3


def test_a_connection_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="'nowhere' does not exist"):
        OpenAIBatchHook("nowhere").get_realtime_client()
