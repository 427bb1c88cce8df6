"""Videos that a batch has begun: how far they are, and what they are once they are made.

The client marks these calls as deprecated, since OpenAI has shut its own down on 2026-09-24; other servers go on.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import DownloadError, TransientError
from airflow_openai_batch.openai_api.client_errors import STREAM_ERRORS, translated
from airflow_openai_batch.openai_api.result_bound import MAX_RESULT_BYTES, ResultBound
from airflow_openai_batch.openai_api.results_check import check_length
from airflow_openai_batch.openai_api.retrying import DOWNLOAD_RETRY, RETRY
from airflow_openai_batch.openai_api.server_objects import is_page, read_object

if TYPE_CHECKING:
    from openai import OpenAI

    from airflow_openai_batch.storage.location import Location

CHUNK_BYTES = 1 << 20


class VideoClient:
    """All methods raise `RemoteError`s.

    :param sdk: a client of the package ``openai``.
    :param max_result_bytes: no video may have more.
    """

    def __init__(self, sdk: OpenAI, max_result_bytes: int = MAX_RESULT_BYTES) -> None:
        self._openai = sdk
        self._max_result_bytes = max_result_bytes

    def fetch(self, video_id: str) -> dict[str, Any]:
        """The job of a video, as the server has it now.

        :raises NotFoundError: if the server does not know it (any more).
        """
        return RETRY(self._fetch, video_id)

    def _fetch(self, video_id: str) -> dict[str, Any]:
        doing = f"looking at {video_id}"
        with translated(doing), _undeprecated():
            answer = self._openai.videos.with_raw_response.retrieve(video_id)
        found = read_object(answer.content, doing, content_type=answer.headers.get("content-type") or "")
        if found.get("id") != video_id:
            raise TransientError(f"{doing}: the answer is about another video, or about none")
        return found

    def download(self, video_id: str, target: Location) -> int:
        """Stream a video that is made into object storage, where it appears whole or not at all.

        :return: its size in bytes.
        :raises NotFoundError: if the server does not have it (any more).
        :raises DownloadError: if it did not arrive whole, five times.
        :raises TooLargeError: if it has more bytes than any may have.
        """
        return DOWNLOAD_RETRY(self._download, video_id, target)

    def _download(self, video_id: str, target: Location) -> int:
        bound, head = ResultBound(video_id, self._max_result_bytes), b""
        try:
            with (
                translated(f"downloading {video_id}"),
                target.open_write() as sink,
                _undeprecated(),
                self._openai.videos.with_streaming_response.download_content(video_id) as response,
            ):
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    bound.count(chunk)
                    sink.write(chunk)
                    head = head or chunk
                check_length(video_id, response.headers, bound.arrived)
                _check_kind(video_id, response.headers.get("content-type") or "", head)
        except STREAM_ERRORS as error:
            cut = f"cut after {bound.arrived:,} bytes ({type(error).__name__})"
            raise DownloadError(f"downloading {video_id}: {cut}") from None
        return bound.arrived


def _check_kind(video_id: str, content_type: str, head: bytes) -> None:
    """:raises DownloadError: for what surely is no video."""
    if not head:
        raise DownloadError(f"downloading {video_id}: nothing arrived")
    if is_page(head, content_type) or "json" in content_type.lower():
        raise DownloadError(f"downloading {video_id}: a web page or an error came in its place")


@contextlib.contextmanager
def _undeprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
