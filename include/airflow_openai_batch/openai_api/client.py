"""What this package asks of OpenAI, on the `openai` client: upload, create, find, fetch, cancel, download."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

import openai

from airflow_openai_batch.errors import (
    DownloadError,
    FatalAccountError,
    NotFoundError,
    RemoteError,
    RequestRefusedError,
)
from airflow_openai_batch.openai_api.batch import (
    CREATE_TIMEOUT_S,
    LIST_MARGIN_S,
    LIST_PAGE,
    BatchPage,
    BatchView,
)
from airflow_openai_batch.openai_api.client_errors import STREAM_ERRORS, NoRouteError, translated
from airflow_openai_batch.openai_api.paging import ListWalk
from airflow_openai_batch.openai_api.redirects import describe_redirect
from airflow_openai_batch.openai_api.result_bound import MAX_RESULT_BYTES, ResultBound
from airflow_openai_batch.openai_api.results_check import Received, ResultCheck, ResultMeter, check_length
from airflow_openai_batch.openai_api.retrying import DESCRIBE_RETRY, DOWNLOAD_RETRY, RETRY
from airflow_openai_batch.openai_api.server_answers import (
    read_batch,
    read_batches,
    read_content,
    read_files,
    read_made,
    read_shown,
    read_view,
)
from airflow_openai_batch.openai_api.server_objects import FileView, read_vectors
from airflow_openai_batch.openai_api.servers.choice import DEFAULT_SERVER
from airflow_openai_batch.openai_api.video_client import VideoClient

if TYPE_CHECKING:
    from openai import OpenAI

    from airflow_openai_batch.openai_api.servers.profile import ServerProfile
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

PAGE = LIST_PAGE
FILES_PAGE = 10_000
FILE_EXPIRY_S = 2_592_000
"""30 days, the most OpenAI allows: a second net under the clean-up."""
UPLOAD_TIMEOUT_S = 1_800.0
CHUNK_BYTES = 1 << 20
_FAILED_FILES = frozenset({"error", "failed", "deleted", "deleting", "expired"})


class BatchClient:
    """The synchronous half, for workers. All methods raise `RemoteError`s. Leaving the block closes it."""

    def __init__(
        self,
        sdk: OpenAI,
        *,
        conn_id: str = "",
        server: ServerProfile = DEFAULT_SERVER,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """:param max_result_bytes: no result file and no video may have more."""
        self._with = f" with connection {conn_id!r}" if conn_id else ""
        self._server = server
        self.keeps_metadata = server.keeps_metadata
        """Else a batch is known by its input's file alone."""
        self._max_result_bytes = max_result_bytes
        self._openai = sdk.with_options(max_retries=0)  # `RETRY` has the patience, where a repeat is harmless

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._openai.close()

    def check_key(self) -> None:
        """One cheap call that needs the same rights as the rest.

        :raises FatalAccountError: if the key is wrong or may not use batches.
        :raises RequestRefusedError: if the connection's host is not that of the API, as far as that can be told.
        """
        try:
            RETRY(self._check_key)
        except (
            NoRouteError
        ) as error:  # nothing worked yet: a wrong host, and no server that is down for a while
            raise RequestRefusedError(str(error), status_code=error.status_code, code=error.code) from None

    def _check_key(self) -> None:
        doing = "checking the key"
        with translated(doing):
            answer = self._openai.batches.with_raw_response.list(**self._server.list_arguments(limit=1))
        if former := getattr(answer.http_response, "history", ()):
            target = str(answer.http_response.request.url)
            raise RequestRefusedError(f"{doing}: {describe_redirect(former[0], target)}")
        read_batches(answer, doing, self._server)

    def upload(self, name: str, file: BinaryIO) -> FileView:
        """Stream ``file`` (read, seek, tell) to OpenAI.

        Sent once: a repeated upload would leave an orphan, and the next run of the task does it anyway.
        """
        doing = f"uploading {name}"
        with translated(doing):
            answer = self._openai.files.with_raw_response.create(
                file=(name, file, "application/jsonl"),
                timeout=UPLOAD_TIMEOUT_S,
                **self._server.upload_arguments(FILE_EXPIRY_S),
            )
        return read_made(answer, doing, "the file", self._read_file)

    def _read_file(self, file: Any) -> FileView:
        return FileView.from_dict(self._server.read_file(file))

    def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> BatchView:
        """Create a batch, once: without an idempotency header, a repeated POST could create two.

        :raises RequestRefusedError: before anything is sent, if the server has no such batches, or the file is not
            processed yet where it has to be.
        """
        doing = f"creating the batch for {input_file_id}"
        server = self._server
        if (problem := server.find_endpoint_problem(endpoint)) is not None:
            raise RequestRefusedError(f"{doing}: {problem}")
        if server.processes_files:
            self._check_processed(input_file_id, doing)
        with translated(doing):
            answer = self._openai.batches.with_raw_response.create(
                input_file_id=input_file_id,
                endpoint=endpoint,  # type: ignore[arg-type]  # checked against the plan's endpoints
                timeout=CREATE_TIMEOUT_S,
                **server.creation_arguments(metadata, FILE_EXPIRY_S),
            )
        return read_made(answer, doing, "the batch", lambda found: read_view(server.read_made(found), server))

    def _check_processed(self, file_id: str, doing: str) -> None:
        """The words are those of servers, by which the same refusal of theirs is known (`is_file_not_ready`)."""
        file = self.describe_file(file_id)
        if file is None or file.status in ("", "processed"):
            return
        if file.status in _FAILED_FILES:
            raise RequestRefusedError(
                f"{doing}: {self._server.title} could not process it (status {file.status}). Look at what it says of "
                "the file; the input may be too large, or not in its form."
            )
        raise RequestRefusedError(
            f"{doing}: the file is not processed yet (status {file.status})", status_code=400
        )

    def fetch(self, batch_id: str) -> BatchView:
        """:raises NotFoundError: if OpenAI does not know it."""
        return RETRY(self._fetch, batch_id)

    def _fetch(self, batch_id: str) -> BatchView:
        doing = f"fetching {batch_id}{self._with}"
        with translated(doing):
            answer = self._openai.batches.with_raw_response.retrieve(batch_id)
        return read_batch(answer, doing, self._server)

    def find(
        self, job_key: str, since: float, *, files: Collection[str] = (), former: Collection[str] = ()
    ) -> tuple[BatchView, ...]:
        """All batches of a send that were created after ``since``, see `iter_batches` and `BatchView.is_of`.

        OpenAI has no filter on metadata: pages of 100, newest first, one call each.
        """
        return tuple(
            batch for batch in self.iter_batches(since) if batch.is_of(job_key, files=files, former=former)
        )

    def iter_batches(self, since: float) -> Iterator[BatchView]:
        """Newest first, back to ``since`` (Unix seconds of the server's clock, less a margin).

        :raises ListError: if the list cannot be read that far.
        """
        walk = ListWalk(what="batches", limit=PAGE)
        oldest, lowest = since - LIST_MARGIN_S, math.inf
        unordered: list[BatchView] | None = None
        more = True
        while more:
            page = RETRY(self._list, walk.after)
            new = [batch for batch in page.batches if walk.is_new(batch.id)]
            for batch in new:
                if batch.created_at > lowest + LIST_MARGIN_S and unordered is None:
                    unordered = []  # a server with lists in another order: the first that is old ends nothing
                lowest = min(lowest, batch.created_at)
            if unordered is not None:
                unordered += (batch for batch in new if batch.created_at >= oldest)
            else:
                yield from (batch for batch in new if batch.created_at >= oldest)
                if lowest < oldest:
                    return
            more = walk.advance([batch.id for batch in page.batches], page.has_more)
        yield from sorted(unordered or (), key=lambda batch: batch.created_at, reverse=True)

    def _list(self, after: str | None) -> BatchPage:
        asked = self._server.list_arguments(limit=PAGE, after=after or openai.omit)
        with translated("listing batches"):
            answer = self._openai.batches.with_raw_response.list(**asked)
        return read_batches(answer, "listing batches", self._server)

    def cancel(self, batch_id: str) -> None:
        """Ask for cancellation; a batch that is final already (409) is left as it is."""
        doing = f"cancelling {batch_id}"
        with translated(doing):
            try:
                answer = self._openai.batches.with_raw_response.cancel(batch_id)
            except openai.APIStatusError as error:
                if error.status_code != 409:
                    raise
                return
        read_content(answer, doing)

    def cancel_if_possible(self, batch_id: str) -> None:
        """As `cancel`; but a batch that the server does not cancel goes on, and is waited for.

        Many refuse it for what is nearly or already over, in other words than OpenAI's.
        """
        try:
            self.cancel(batch_id)
        except RequestRefusedError as error:
            log.warning("%s goes on to its end: %s", batch_id, error)

    def embed(self, texts: list[str], **parameters: Any) -> list[list[float]]:
        """A vector for each text, in one call in real time.

        :param parameters: ``model``, ``dimensions``.
        """
        doing = f"embedding {len(texts):,} texts"
        with translated(doing):
            answer = self._openai.embeddings.with_raw_response.create(
                input=texts, **{**parameters, "encoding_format": "float"}
            )
        return read_shown(answer, doing, "the list", lambda found: read_vectors(found, len(texts)))

    @property
    def videos(self) -> VideoClient:
        """What is asked of a video that a batch has begun."""
        return VideoClient(self._openai, self._max_result_bytes)

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; false for one that OpenAI does not know (any more)."""
        try:
            RETRY(self._delete_file, file_id)
        except NotFoundError:
            return False
        return True

    def _delete_file(self, file_id: str) -> None:
        doing = f"deleting {file_id}"
        with translated(doing):
            answer = self._openai.files.with_raw_response.delete(file_id)
        read_content(answer, doing)

    def iter_files(self, kind: Literal["input", "result"]) -> Iterator[tuple[str, str]]:
        """Id and name of all files of batches, newest first, one call per 10,000; of others too, where a server does
        not tell them apart.

        :raises ListError: if the list cannot be read to its end.
        """
        walk = ListWalk(what="files", limit=FILES_PAGE)
        while True:
            page, has_more = RETRY(self._list_files, kind, walk.after)
            yield from (file for file in page if walk.is_new(file[0]))
            if not walk.advance([file_id for file_id, _ in page], has_more):
                return

    def _list_files(
        self, kind: Literal["input", "result"], after: str | None
    ) -> tuple[list[tuple[str, str]], bool | None]:
        doing, server = "listing files", self._server
        purpose = server.upload_purpose if kind == "input" else server.result_purpose
        asked = server.list_arguments(purpose=purpose, limit=FILES_PAGE, after=after or openai.omit)
        with translated(doing):
            answer = self._openai.files.with_raw_response.list(**asked)
        files, has_more = read_shown(
            answer, doing, "the list", lambda page: read_files(page, server), bare_list=server.bare_lists
        )
        return files, has_more if server.has_pages else False

    def describe_file(self, file_id: str) -> FileView | None:
        """What the server says of a file; ``None`` where it says nothing: not every one knows file objects."""
        try:
            return DESCRIBE_RETRY(self._describe_file, file_id)
        except FatalAccountError as error:
            if error.status_code == 401:
                raise
            return None  # a key may be allowed to read contents alone
        except RemoteError as error:
            log.debug("The server does not describe %s: %s", file_id, error)
            return None

    def _describe_file(self, file_id: str) -> FileView:
        doing = f"looking at {file_id}"
        with translated(doing):
            answer = self._openai.files.with_raw_response.retrieve(file_id)
        return read_shown(answer, doing, "the file", self._read_file)

    def download(
        self,
        file_id: str,
        target: Location,
        *,
        lines_at_least: int = 0,
        believe_all: bool = False,
        most_bytes: int | None = None,
    ) -> Received:
        """Stream a result file into object storage; what is cut, or not what it should be, is fetched anew.

        The target appears whole or not at all, and only what was checked: bytes against the file object's, lines
        against the batch's counts, and that there are lines with ids at all.

        :param lines_at_least: what the batch's counts promise of this file.
        :param believe_all: take whatever comes; somebody has decided so.
        :param most_bytes: more than these are not taken, whatever the server has said of the file. None: as many as
            the client takes of any.
        :raises DownloadError: if it did not arrive whole, or as what it should be, five times.
        :raises NotFoundError: if OpenAI does not know the file (yet).
        :raises TooLargeError: if it has more.
        """
        check = None if believe_all else ResultCheck(name=file_id, lines_at_least=lines_at_least, twice=True)
        received = DOWNLOAD_RETRY(self._download, file_id, target, check, most_bytes)
        if check is not None and check.note:
            log.warning("%s is taken as it is, twice the same came: %s.", file_id, check.note)
        return received

    def _download(
        self, file_id: str, target: Location, check: ResultCheck | None, most_bytes: int | None
    ) -> Received:
        meter, bound = ResultMeter(), ResultBound(file_id, self._max_result_bytes, most_bytes)
        if check is not None and check.told_bytes is None:  # a file's object may show later than its content
            told = self.describe_file(file_id)
            check.told_bytes = None if told is None else told.bytes
        try:
            with (
                translated(f"downloading {file_id}"),
                target.open_write() as sink,
                self._openai.files.with_streaming_response.content(file_id) as response,
            ):
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    bound.count(chunk)
                    sink.write(chunk)
                    meter.feed(chunk)
                received = meter.end()
                if check is not None:
                    check_length(file_id, response.headers, received.bytes)
                    check.judge(received)
        except STREAM_ERRORS as error:
            cut = f"cut after {bound.arrived:,} bytes ({type(error).__name__})"
            raise DownloadError(f"downloading {file_id}: {cut}") from None
        return received
