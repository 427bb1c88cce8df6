"""The answers of a real-time send on disk: ``raw/00000.2.output.0001.jsonl`` and on, in the format of OpenAI's files.

A real-time answer exists nowhere else: what is not written is lost, and would be paid for again. So answers are
written every few seconds, in segments that appear whole or not at all and are never touched again.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api.lenient_json import UnreadableJSONError
from airflow_openai_batch.openai_api.result_line import read_custom_id

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

FLUSH_S = 2.0
FLUSH_ANSWERS = 100
FLUSH_BYTES = 8 * 2**20
"""An answer of embeddings can have tens of MB: so many bytes are written at once, however few answers they are."""

_TRIES = 100


class Segments:
    """The segments of one send of one shard.

    :param output: the job directory.
    :param send: 1, 2, 3 ...
    :param name: how they are called, by shard, send and part.
    """

    def __init__(
        self,
        output: Location,
        shard: int,
        send: int,
        name: Callable[[int, int, int | None], str] = directory.raw_output,
    ) -> None:
        self._name = name
        self._output = output
        self._shard = shard
        self._send = send
        self._last: int | None = None
        """The newest part that is known of."""

    def places(self) -> tuple[Location, ...]:
        """The segments that are there, in the order they were written. One listing."""
        parts = self._list()
        self._last = parts[-1] if parts else 0
        return tuple(self._place(part) for part in parts)

    def read_answered(self) -> Iterator[str]:
        """The custom_ids of all lines that are there, whatever the lines say.

        :raises JobError: if a segment cannot be read or has a line that was cut. That is not the same as absent:
            going on without it would pay twice.
        """
        for place in self.places():
            yield from _read_ids(place)

    def append(self, lines: Sequence[bytes]) -> Location:
        """Write lines, without their ends, as the next segment; it appears whole or not at all.

        :raises JobError: if the place is contended beyond reason.
        """
        if self._last is None:
            self.places()
        data = b"".join(line + b"\n" for line in lines)
        last = self._last or 0
        for part in range(last + 1, last + _TRIES):
            place = self._place(part)
            if place.create_exclusive(data):
                self._last = part
                return place
        raise JobError(f"{self._place(last + 1).uri}: {_TRIES} others write these segments; clear the task.")

    def _place(self, part: int) -> Location:
        return self._output.child(self._name(self._shard, self._send, part))

    def _list(self) -> list[int]:
        folder, _, prefix = self._name(self._shard, self._send, None).removesuffix("jsonl").rpartition("/")
        name = re.compile(re.escape(prefix) + r"(\d{4,})\.jsonl")
        found = (name.fullmatch(file) for file in self._output.child(folder).names(prefix=prefix))
        return sorted(int(match[1]) for match in found if match)


def _read_ids(place: Location) -> Iterator[str]:
    """:raises JobError: if a line has no custom_id."""
    try:
        *lines, rest = place.read_bytes().split(b"\n")
    except OSError as error:
        raise JobError(
            f"{place.uri}: answers are there but cannot be read ({type(error).__name__}). Nothing was sent. "
            "Restore the access to the file, then clear the task."
        ) from error
    if rest or not lines:
        raise _spoiled(place, len(lines) + 1)
    for number, line in enumerate(lines, 1):
        try:
            custom_id = read_custom_id(line)
        except UnreadableJSONError:
            custom_id = None
        if custom_id is None:
            raise _spoiled(place, number)
        yield custom_id


def _spoiled(place: Location, number: int) -> JobError:
    return JobError(
        f"{place.uri}:{number}: the line is cut or is no answer; the file was changed. Nothing was sent. Restore it, "
        "or remove it to ask its requests again, which pays for them again. Then clear the task."
    )


class SegmentBuffer:
    """Answers on their way to disk. One thread may add while another one writes."""

    def __init__(self, segments: Segments, clock: Callable[[], float] = time.monotonic) -> None:
        self._segments = segments
        self._clock = clock
        self._writing = threading.Lock()
        self._adding = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._oldest_at = 0.0
        self.written = 0
        """Segments."""

    def add(self, line: bytes) -> None:
        with self._adding:
            if not self._lines:
                self._oldest_at = self._clock()
            self._lines.append(line)
            self._bytes += len(line)

    @property
    def is_due(self) -> bool:
        """Whether something is there that should be written now."""
        return bool(self._lines) and (
            len(self._lines) >= FLUSH_ANSWERS
            or self._bytes >= FLUSH_BYTES
            or self._clock() - self._oldest_at >= FLUSH_S
        )

    def flush(self) -> None:
        """Write what is there, if there is anything. What could not be written stays for the next time."""
        with self._writing:
            with self._adding:
                lines = self._lines[:]
            if not lines:
                return
            self._segments.append(lines)
            self.written += 1
            with self._adding:
                del self._lines[: len(lines)]
                self._bytes = sum(map(len, self._lines))
                self._oldest_at = self._clock()
