"""The files that answers brought, below ``media/``: pictures, sound, videos.

A name says the position of its request, the send that brought it and its number in the answer, so that landing again
finds what it would write, whoever wrote it, and writes only what is not there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_openai_batch.job import directory
from airflow_openai_batch.storage.first_bytes import find_media_type

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.answer_parts import Media
    from airflow_openai_batch.storage.location import Location

_EXTENSIONS = {
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "image/gif": "gif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/webm": "webm",
}
_NAME = re.compile(r"\d+\.(\d+)-\d+\.")
_TOLD = {"image/svg": "image/svg+xml", "image/jpg": "image/jpeg"}
UNKNOWN_TYPE = "application/octet-stream"


class MediaFile(NamedTuple):
    """What the row says of one file, in the order of the column's fields."""

    path: str | None
    """Below the job directory; None of what has only an address."""
    bytes: int | None
    media_type: str | None
    revised_prompt: str | None
    url: str | None


class MediaCount(msgspec.Struct, frozen=True, kw_only=True):
    """Files that rows name."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: MediaCount) -> MediaCount:
        return MediaCount(files=self.files + other.files, bytes=self.bytes + other.bytes)


class MediaWriter:
    """Writes the files of one shard's answers, while its rows are written.

    :param job: the job directory.
    """

    def __init__(self, job: Location, shard: int) -> None:
        self._job = job
        self._folder = directory.media_folder(shard)
        self._there: dict[str, int] | None = None
        """Sizes by name, of what lay there before; looked at when the first file comes."""
        self._named: set[str] = set()
        self._bytes = 0

    def write(self, position: int, send: int, media: Sequence[Media]) -> list[MediaFile]:
        """What the row says of them. The bytes are let go of.

        :param send: that brought them: 1, 2, 3 ...
        """
        return [self._write(position, send, number, each) for number, each in enumerate(media, start=1)]

    def _write(self, position: int, send: int, number: int, media: Media) -> MediaFile:
        data, media.data = media.data, None
        if media.stored_bytes is not None:
            return self._name(name_video(position, send), media.stored_bytes, "video/mp4", media)
        if data is None:
            return MediaFile(None, None, None, media.revised_prompt, media.url)
        media_type = find_media_type(data) or _read_told(media.told_type)
        name = f"{position:09d}.{send}-{number}.{_EXTENSIONS.get(media_type, 'bin')}"
        if self._list().get(name) != len(data):
            self._job.child(f"{self._folder}/{name}").write_bytes(data)
        return self._name(name, len(data), media_type, media)

    def _name(self, name: str, size: int, media_type: str, media: Media) -> MediaFile:
        self._named.add(name)
        self._bytes += size
        return MediaFile(f"{self._folder}/{name}", size, media_type, media.revised_prompt, media.url)

    def _list(self) -> dict[str, int]:
        if self._there is None:
            self._there = self._job.child(self._folder).sizes()
        return self._there

    def count(self) -> MediaCount:
        return MediaCount(files=len(self._named), bytes=self._bytes)

    def remove_others(self, last_send: int) -> None:
        """What an earlier landing wrote and no row names any more, since a later send has brought something better.

        :param last_send: of those that have landed now; what later ones have brought is another landing's.
        """
        if self._there is None and not self._named:
            return
        for name in set(self._list()) - self._named:
            found = _NAME.match(name)
            if found is None or int(found[1]) > last_send:
                continue
            self._job.child(f"{self._folder}/{name}").remove()


def name_video(position: int, send: int) -> str:
    """Where the video of a request lies in the folder of its shard."""
    return f"{position:09d}.{send}-1.mp4"


def _read_told(told: str | None) -> str:
    told = _TOLD.get(told or "", told or "")
    return told if told in _EXTENSIONS else UNKNOWN_TYPE
