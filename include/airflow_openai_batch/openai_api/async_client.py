"""The asynchronous half of the client, for the triggerer: it looks, and cancels what a user gave up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai

from airflow_openai_batch.openai_api.batch import LIST_PAGE, BatchPage, BatchView
from airflow_openai_batch.openai_api.client_errors import translated
from airflow_openai_batch.openai_api.server_answers import read_batch, read_batches, read_content
from airflow_openai_batch.openai_api.servers.choice import DEFAULT_SERVER

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from airflow_openai_batch.openai_api.servers.profile import ServerProfile

WATCH_TIMEOUT_S = 60.0


def _shorten(timeout: Any, most_s: float) -> float:
    """A client's time-out for answers, in seconds, but so many at most."""
    own_s = timeout.read if isinstance(timeout, openai.Timeout) else timeout
    return most_s if own_s is None else min(own_s, most_s)


class AsyncBatchClient:
    """Answers are read without the client's models: a page of 100 batches would hold up the event loop for longer
    than all the rest of a cycle.
    """

    def __init__(self, sdk: AsyncOpenAI, *, server: ServerProfile = DEFAULT_SERVER) -> None:
        self._server = server
        # The watcher has its own patience; a call that hangs would keep it from a thousand others.
        self._openai = sdk.with_options(max_retries=0, timeout=_shorten(sdk.timeout, WATCH_TIMEOUT_S))

    async def fetch(self, batch_id: str) -> BatchView:
        """:raises NotFoundError: if OpenAI does not know it."""
        with translated(f"fetching {batch_id}"):
            answer = await self._openai.batches.with_raw_response.retrieve(batch_id)
        return read_batch(answer, f"fetching {batch_id}", self._server)

    async def list_page(self, after: str | None) -> BatchPage:
        """Up to 100 batches, newest first, that come after the one named."""
        asked = self._server.list_arguments(limit=LIST_PAGE, after=after or openai.omit)
        with translated("listing batches"):
            answer = await self._openai.batches.with_raw_response.list(**asked)
        return read_batches(answer, "listing batches", self._server)

    async def cancel(self, batch_id: str) -> None:
        """As `BatchClient.cancel`."""
        doing = f"cancelling {batch_id}"
        with translated(doing):
            try:
                answer = await self._openai.batches.with_raw_response.cancel(batch_id)
            except openai.APIStatusError as error:
                if error.status_code != 409:
                    raise
                return
        read_content(answer, doing)

    async def close(self) -> None:
        await self._openai.close()
