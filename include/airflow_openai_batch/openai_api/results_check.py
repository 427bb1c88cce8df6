"""Whether what came from a server is what its batch promises; only then is it believed.

A proxy that gave up ends a file in good order after any line, a gateway answers 200 with an error or a login page, a
file is named or shown some time after its batch has ended, or was deleted by somebody. Each of these looks like lines
that are missing, and lines that are missing are sent, and paid, again.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_openai_batch.storage.location import Location

RESULTS_UNPROVEN = "results_unproven"
"""There may be paid answers that have not arrived: nothing is sent again for them."""
ERRORS_UNPROVEN = "errors_unproven"
"""What has not arrived is about requests that failed, which cost nothing."""
RESULT_FILE_GONE = "result_file_gone"
"""The server does not have a result file (any more)."""
VIDEOS_UNFINISHED = "videos_unfinished"
"""A batch of videos has ended, and some that it began are not made yet."""


_HEAD_BYTES = 1 << 16
_ID = b'"custom_id"'
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a result file holds, as far as can be told without reading its lines."""

    bytes: int
    lines: int
    """Lines with a custom_id."""
    fault: str | None = None
    """Why it is no result file at all."""
    cut: bool = False
    """Whether it ends in the middle of a line."""


@dataclass(slots=True)
class ResultMeter:
    """Counts what a result file holds while it goes by."""

    _bytes: int = 0
    _ends: int = 0
    _named: int = 0
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytes = b""

    def feed(self, chunk: bytes) -> None:
        if not chunk:
            return
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[: _HEAD_BYTES - len(self._head)]
        self._bytes += len(chunk)
        self._ends += chunk.count(b"\n")
        edge = self._tail[1 - len(_ID) :]  # the name may lie across two chunks, never within the edge alone
        self._named += (edge + chunk).count(_ID)
        self._tail = (edge + chunk)[-len(_ID) :]

    def end(self) -> Received:
        """Call it once, after the last chunk."""
        unended = self._bytes > 0 and not self._tail.endswith(b"\n")
        lines = self._ends + int(unended)
        fault = None if self._named or not self._bytes else _describe_kind(bytes(self._head))
        cut = self._bytes > 0 and self._tail[-1:] not in (b"\n", b"}")
        return Received(bytes=self._bytes, lines=min(lines, self._named), fault=fault, cut=cut)


def measure_file(place: Location) -> Received:
    """What a file that was fetched before holds."""
    meter = ResultMeter()
    with place.open_read() as file:
        while chunk := file.read(READ_BYTES):
            meter.feed(chunk)
    return meter.end()


def check_length(name: str, headers: Mapping[str, str], received: int) -> None:
    """:raises DownloadError: if fewer or more bytes came than the server announced."""
    announced = headers.get("content-length")
    if announced is not None and not headers.get("content-encoding") and int(announced) != received:
        raise DownloadError(
            f"downloading {name}: {received:,} bytes arrived, {int(announced):,} were announced"
        )


def _describe_kind(head: bytes) -> str | None:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        return None
    if text.startswith(b"<"):
        return "an HTML page came in its place, as a proxy or a login sends it"
    if text.startswith(b"{") and b'"error"' in text:
        return "a JSON error came in its place, with status 200"
    return "what came holds no line with a custom_id"


@dataclass(slots=True, kw_only=True)
class ResultCheck:
    """Judges what arrived of one file, try by try.

    :param told_bytes: what the file object says; ``None`` where the server does not tell.
    :param lines_at_least: what the batch's counts promise of this file; 0 where they say nothing.
    :param twice: where neither of the two says anything, only what arrives twice alike is believed. A file that ends in
        good order may have been cut by a proxy all the same.
    """

    name: str
    told_bytes: int | None = None
    lines_at_least: int = 0
    twice: bool = False
    note: str = ""
    """What was believed although it is odd; for the log."""
    _tries: int = 0
    _last: Received | None = None

    def judge(self, received: Received) -> None:
        """:raises DownloadError: if it is not to be believed, or not yet."""
        self._tries += 1
        self.note = ""
        if received.fault:
            raise DownloadError(f"downloading {self.name}: {received.fault}")
        if received.cut:
            raise DownloadError(
                f"downloading {self.name}: the last of {received.bytes:,} bytes is in the middle of a line"
            )
        former, self._last = self._last, received
        if self.twice and self.told_bytes is None and not self.lines_at_least and received != former:
            raise DownloadError(
                f"downloading {self.name}: nothing says how large it is, so it has to arrive twice alike"
            )
        whole = None if self.told_bytes is None else received.bytes == self.told_bytes
        enough = received.lines >= self.lines_at_least
        if whole is False:
            self._doubt(
                f"{received.bytes:,} bytes arrived, and the server says that the file has {self.told_bytes:,}",
                believable=enough and self.lines_at_least > 0,
            )
        if not enough:
            self._doubt(
                f"{received.lines:,} lines arrived, where the batch's counts promise {self.lines_at_least:,}",
                believable=whole is True,
            )

    def _doubt(self, text: str, *, believable: bool) -> None:
        """Twice the same is believed where bytes or lines speak for it."""
        if not (believable and self._tries > 1):
            raise DownloadError(f"downloading {self.name}: {text}")
        self.note = text
