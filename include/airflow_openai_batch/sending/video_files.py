"""The videos that a batch has begun: looked at once it has ended, and fetched into ``media/`` as they are made.

What became of each is written down beside the raw files, so that landing stays a function of these.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import DownloadError, NotFoundError, TooLargeError, UnprovenError
from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_videos import COMPLETED, FAILED, STORED, find_video_id
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.result_line import (
    ResultLine,
    ResultResponse,
    read_result_line,
    write_result_line,
)
from airflow_openai_batch.openai_api.results_check import VIDEOS_UNFINISHED
from airflow_openai_batch.requests.answer_format import read_asked
from airflow_openai_batch.results.media_files import name_video
from airflow_openai_batch.sending.realtime.segments import Segments

if TYPE_CHECKING:
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.openai_api.video_client import VideoClient
    from airflow_openai_batch.results.raw_index import SendFiles
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

LINE = "video_look_"
"""How the id begins of a line that says what became of a video."""
_WRITTEN_AT_ONCE = 20
"""What is fetched and not written down yet is fetched again after a kill."""


def open_video_segments(output: Location, shard: int, send: int) -> Segments:
    """Where it is written down what became of the videos of a send."""
    return Segments(output, shard, send, directory.raw_videos)


@dataclass(frozen=True, kw_only=True)
class VideoCollector:
    """Looks at the videos of one shard.

    :param output: the job directory.
    """

    output: Location
    shard: int
    client: VideoClient

    def collect(self, send: SendFiles, requests: Iterable[RequestLine]) -> int:
        """Fetch what is made by now of the videos that a send has begun, and was not fetched before.

        :param requests: of the shard; read only where something may be to fetch.
        :return: how many are still to come.
        """
        segments = open_video_segments(self.output, self.shard, send.send)
        known = dict(_read_jobs(segments.places()))
        begun = {
            custom_id: video_id
            for custom_id, job in _read_jobs(send.files)
            if (video_id := find_video_id(job.get("id"))) is not None
            and known.get(custom_id, {}).get("status") != FAILED
        }
        if not begun:
            return 0
        sizes = self.output.child(directory.media_folder(self.shard)).sizes()
        left = 0
        lines: list[bytes] = []
        try:
            for custom_id, position in _find_positions(begun, requests):
                name = name_video(position, send.send)
                stored = known.get(custom_id, {}).get(STORED)
                if stored is not None and sizes.get(name) == stored:
                    continue
                line = self._look_at(begun[custom_id], custom_id, name)
                left += line is None
                lines += [] if line is None else [line]
                if len(lines) >= _WRITTEN_AT_ONCE:
                    segments.append(lines)
                    lines = []
        finally:  # what was fetched is not fetched again
            if lines:
                segments.append(lines)
        return left

    def _look_at(self, video_id: str, custom_id: str, name: str) -> bytes | None:
        """The line that says what became of it; None where that is still to come."""
        try:
            job = self.client.fetch(video_id)
            if job.get("status") == COMPLETED:
                place = self.output.child(f"{directory.media_folder(self.shard)}/{name}")
                job[STORED] = self.client.download(video_id, place)
            elif job.get("status") != FAILED:
                return None
        except (NotFoundError, DownloadError, TooLargeError) as error:  # of this one; the others go on
            log.warning("%s", error)
            return None
        response = ResultResponse(200, None, msgspec.Raw(lenient_json.encode(job).encode()))
        return write_result_line(ResultLine(f"{LINE}{video_id}", custom_id, response))


def _find_positions(begun: Collection[str], requests: Iterable[RequestLine]) -> Iterator[tuple[str, int]]:
    """Custom_id and position of those that have begun."""
    for request in requests:
        custom_id = read_asked(request, Endpoint.VIDEOS).custom_id
        if custom_id in begun:
            yield custom_id, request.position


def _read_jobs(files: Iterable[Location]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Custom_id and job of each line that has both."""
    for place in files:
        with place.open_read() as file:
            for line in file:
                try:
                    found = read_result_line(line)
                    job = lenient_json.decode(bytes(found.response.body)) if found.response else None
                except lenient_json.UnreadableJSONError:
                    continue
                if isinstance(found.custom_id, str) and isinstance(job, dict):
                    yield found.custom_id, job


def check_collected(left: Mapping[int, int]) -> None:
    """:param left: videos that are still to come, by send.
    :raises UnprovenError: if there are any.
    """
    if count := sum(left.values()):
        sends = ", ".join(str(send) for send, videos in left.items() if videos)
        raise UnprovenError(
            f"{count:,} {'video' if count == 1 else 'videos'} of send {sends} {'is' if count == 1 else 'are'} not made "
            "yet",
            code=VIDEOS_UNFINISHED,
        )
