"""What this package asks of OpenAI, on the `openai` client: upload, create, find, fetch, cancel, download."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import openai
import orjson
import tenacity

from airflow_openai_batch.core.batch_view import LIST_MARGIN_S, LIST_PAGE, BatchView
from airflow_openai_batch.core.errors import DownloadError, NotFoundError, TransientError
from airflow_openai_batch.core.policy import DEFAULT_POLICY
from airflow_openai_batch.remote_errors import STREAM_ERRORS, translated

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    from airflow_openai_batch.core.storage import Location

log = logging.getLogger(__name__)

PAGE = LIST_PAGE
FILES_PAGE = 10_000
FILE_EXPIRY_S = 2_592_000
"""30 days, the most OpenAI allows: a second net under the clean-up."""
UPLOAD_TIMEOUT_S = 1_800.0
CREATE_TIMEOUT_S = DEFAULT_POLICY.create_timeout_s / 2
"""Whoever waits for our intent to create to run out must not create while our call is still under way."""
WATCH_TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 20

_RETRY = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(TransientError),
    wait=tenacity.wait_exponential_jitter(initial=1, max=20),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)
"""For calls that may be repeated without harm. A task's own retries come after these."""


class BatchClient:
    """The synchronous half, for workers. All methods raise `RemoteError`s. Leaving the block closes it."""

    def __init__(self, sdk: OpenAI, *, conn_id: str = "") -> None:
        self._with = f" with connection {conn_id!r}" if conn_id else ""
        self._openai = sdk.with_options(
            max_retries=0
        )  # `_RETRY` has the patience, where a repeat is harmless

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._openai.close()

    def check_key(self) -> None:
        """One cheap call that needs the same rights as the rest.

        :raises FatalAccountError: if the key is wrong or may not use batches.
        """
        _RETRY(self._check_key)

    def _check_key(self) -> None:
        with translated("checking the key"):
            self._openai.batches.list(limit=1)

    def upload(self, name: str, file: BinaryIO) -> str:
        """Stream ``file`` (read, seek, tell) to OpenAI and return the file's id.

        Sent once: a repeated upload would leave an orphan, and the next run of the task does it anyway.
        """
        with translated(f"uploading {name}"):
            uploaded = self._openai.files.create(
                file=(name, file, "application/jsonl"),
                purpose="batch",
                expires_after={"anchor": "created_at", "seconds": FILE_EXPIRY_S},
                timeout=UPLOAD_TIMEOUT_S,
            )
        return uploaded.id

    def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> BatchView:
        """Create a batch, once: without an idempotency header, a repeated POST could create two."""
        with translated(f"creating the batch for {input_file_id}"):
            batch = self._openai.batches.create(
                input_file_id=input_file_id,
                endpoint=endpoint,  # type: ignore[arg-type]  # checked against the plan's endpoints
                completion_window="24h",
                metadata=metadata,
                output_expires_after={"anchor": "created_at", "seconds": FILE_EXPIRY_S},
                timeout=CREATE_TIMEOUT_S,
            )
        return BatchView.from_dict(batch.to_dict())

    def fetch(self, batch_id: str) -> BatchView:
        """:raises NotFoundError: if OpenAI does not know it."""
        return _RETRY(self._fetch, batch_id)

    def _fetch(self, batch_id: str) -> BatchView:
        with translated(f"fetching {batch_id}{self._with}"):
            return BatchView.from_dict(self._openai.batches.retrieve(batch_id).to_dict())

    def find(self, job_key: str, since: float) -> tuple[BatchView, ...]:
        """All batches with this job_key that were created after ``since`` (Unix seconds, less a margin).

        OpenAI has no filter on metadata: pages of 100, newest first, one call each.
        """
        return tuple(batch for batch in self.iter_batches(since) if batch.job_key == job_key)

    def iter_batches(self, since: float) -> Iterator[BatchView]:
        after: str | None = None
        while True:
            page = _RETRY(self._list, after)
            for batch in page:
                if batch.created_at < since - LIST_MARGIN_S:
                    return
                yield batch
            if len(page) < PAGE:
                return
            after = page[-1].id

    def _list(self, after: str | None) -> list[BatchView]:
        with translated("listing batches"):
            page = self._openai.batches.list(limit=PAGE, after=after or openai.omit)
            return [BatchView.from_dict(batch.to_dict()) for batch in page.data]

    def cancel(self, batch_id: str) -> None:
        """Ask for cancellation; a batch that is final already (409) is left as it is."""
        with translated(f"cancelling {batch_id}"):
            try:
                self._openai.batches.cancel(batch_id)
            except Exception as error:
                if getattr(error, "status_code", None) != 409:
                    raise

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; false for one that OpenAI does not know (any more)."""
        try:
            _RETRY(self._delete_file, file_id)
        except NotFoundError:
            return False
        return True

    def _delete_file(self, file_id: str) -> None:
        with translated(f"deleting {file_id}"):
            self._openai.files.delete(file_id)

    def iter_files(self, *, purpose: str) -> Iterator[tuple[str, str]]:
        """Id and name of all files of a purpose, newest first, one call per 10,000."""
        after: str | None = None
        while True:
            page = _RETRY(self._list_files, purpose, after)
            yield from page
            if len(page) < FILES_PAGE:
                return
            after = page[-1][0]

    def _list_files(self, purpose: str, after: str | None) -> list[tuple[str, str]]:
        with translated("listing files"):
            page = self._openai.files.list(purpose=purpose, limit=FILES_PAGE, after=after or openai.omit)
            return [(file.id, file.filename) for file in page.data]

    def download(self, file_id: str, target: Location) -> int:
        """Stream a file into object storage and return its bytes; a cut connection is done anew.

        The target appears whole or not at all. Lines are JSON objects, so a file that ends in the middle of
        one is short.

        :raises DownloadError: if it did not arrive whole, five times.
        :raises NotFoundError: if OpenAI does not know the file (yet).
        """
        return int(_DOWNLOAD_RETRY(self._download, file_id, target))

    def _download(self, file_id: str, target: Location) -> int:
        received, last = 0, b""
        try:
            with (
                translated(f"downloading {file_id}"),
                target.open_write() as sink,
                self._openai.files.with_streaming_response.content(file_id) as response,
            ):
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    sink.write(chunk)
                    received += len(chunk)
                    last = chunk[-1:] or last
                _check_whole(file_id, response.headers, received, last)
        except STREAM_ERRORS as error:
            kind = type(error).__name__
            raise DownloadError(f"downloading {file_id}: cut after {received:,} bytes ({kind})") from None
        return received


_DOWNLOAD_RETRY = _RETRY.copy(retry=tenacity.retry_if_exception_type((TransientError, DownloadError)))


def _check_whole(file_id: str, headers: Mapping[str, str], received: int, last: bytes) -> None:
    announced = headers.get("content-length")
    if announced is not None and not headers.get("content-encoding") and int(announced) != received:
        raise DownloadError(
            f"downloading {file_id}: {received:,} bytes arrived, {int(announced):,} were announced"
        )
    if received and last not in (b"\n", b"}"):
        raise DownloadError(
            f"downloading {file_id}: the last of {received:,} bytes is in the middle of a line"
        )


class AsyncBatchClient:
    """The asynchronous half, for the triggerer: it looks, and cancels what a user gave up.

    Answers are read without the client's models: a page of 100 batches would hold up the event loop for longer
    than all the rest of a cycle.
    """

    def __init__(self, sdk: AsyncOpenAI) -> None:
        # The watcher has its own patience; a call that hangs would keep it from a thousand others.
        self._openai = sdk.with_options(max_retries=0, timeout=WATCH_TIMEOUT_S)

    async def fetch(self, batch_id: str) -> BatchView:
        """:raises NotFoundError: if OpenAI does not know it."""
        with translated(f"fetching {batch_id}"):
            answer = await self._openai.batches.with_raw_response.retrieve(batch_id)
        return BatchView.from_dict(_read_json(answer.content, f"fetching {batch_id}"))

    async def list_page(self, after: str | None) -> list[BatchView]:
        """Up to 100 batches, newest first, that come after the one named."""
        with translated("listing batches"):
            answer = await self._openai.batches.with_raw_response.list(limit=PAGE, after=after or openai.omit)
        page = _read_json(answer.content, "listing batches")
        return [BatchView.from_dict(batch) for batch in page.get("data") or ()]

    async def cancel(self, batch_id: str) -> None:
        """As `BatchClient.cancel`."""
        with translated(f"cancelling {batch_id}"):
            try:
                await self._openai.batches.cancel(batch_id)
            except openai.APIStatusError as error:
                if error.status_code != 409:
                    raise

    async def close(self) -> None:
        await self._openai.close()


def _read_json(content: bytes, doing: str) -> dict[str, Any]:
    """:raises TransientError: for what a proxy sends in OpenAI's place."""
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(content)
        if isinstance(found, dict):
            return found
    raise TransientError(f"{doing}: the answer is no JSON object.")
