"""The raw files of a shard's sends, indexed by custom_id, so that rows can be made in input order.

Lines come in any order. What is held in memory is the ids and where their lines stand (about 200
bytes a line), and, of the first plain answers, what they say: a line that has been read need not be read again.
Files in object storage are copied to a temporary file for random access.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from airflow_openai_batch.openai_api.lenient_json import UnreadableJSONError
from airflow_openai_batch.openai_api.result_line import read_custom_id
from airflow_openai_batch.results.torn_lines import make_out_id

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.plain_answers import PlainAnswer, PlainReader
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

_ANSWER_BYTES = 200
"""Roughly what is kept of a plain answer beside its text or vector."""
READ_BYTES = 2**20
KEPT_BYTES = 40 * 2**20
"""So much of plain answers stays in memory: of a usual shard all, since what is read twice takes a sixth longer."""
_LENGTH_BITS, _OFFSET_BITS = 32, 48
_FILE_SHIFT = _LENGTH_BITS + _OFFSET_BITS
_LENGTH_MASK, _OFFSET_MASK = 2**_LENGTH_BITS - 1, 2**_OFFSET_BITS - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFiles:
    """One sending of a shard's requests, and the files that came back."""

    send: int
    """1, 2, 3 ..."""
    sent_as: Literal["batch", "realtime"]
    """``realtime``: one by one, in real time or through flex, as each line says."""
    batch_id: str | None = None
    completed_at: float | None = None
    """Unix seconds, as OpenAI says for a batch."""
    carried: int | None = None
    """A sample carried only so many of the shard's first requests; ``None``: all that were still open."""
    hurried: bool = False
    """It went out one by one because of a deadline."""
    forgiven: bool = False
    """What had no good answer by then is asked again, whatever the reason and the number of attempts: a repair."""
    ended_as: str = "completed"
    """The batch's last status. In an ``expired``, ``cancelled`` or ``failed`` batch a request without
    a line did not run; in a ``completed`` one it counts as an attempt."""
    gone: tuple[str, ...] = ()
    """Result files that the server did not have any more: ``output``, ``error``."""
    leftover: tuple[Location, ...] | None = None
    """The file of request lines that it carried; ``None``: lines of the shard as they stand in the input; empty: that
    file is not there any more."""
    leftover_sha256: str | None = None
    """Of that file when it was sent; ``None``: not known."""
    files: tuple[Location, ...] = ()
    """Output and error files and segments, those that exist. Order does not matter for different
    requests; of equal lines for one request the first counts."""

    @property
    def completed_at_ms(self) -> int | None:
        return None if self.completed_at is None else int(self.completed_at * 1000)

    @property
    def may_be_plain(self) -> bool:
        """Of a send one by one each line says how it came, and is priced by that; of one with other lines than the
        input's, vectors may have to be put together."""
        return self.sent_as == "batch" and not self.hurried and self.leftover is None


Place = int
"""Where a line stands: file, offset and length in one integer, since 50,000 tuples are what the garbage
collector would walk through again and again."""


Found = int | Sequence[Place]
"""The lines for a request: where the only one stands; a number below zero, where it has been read and kept; or where
several stand, or none."""


class RawAnswers:
    """The lines for each request. A context manager: it holds files open.

    A line that is no JSON stands for the request whose custom_id can be made out in it.

    :param sha256: by send, what its files have to be; of others nothing is taken.
    :param reader: of plain answers.
    """

    def __init__(
        self,
        sends: Sequence[SendFiles],
        sha256: Sequence[str | None] = (),
        *,
        reader: PlainReader | None = None,
    ) -> None:
        from airflow_openai_batch.results.kept_answers import KeptAnswers  # pyarrow, only to land

        self.sends = sends
        self._sha256 = sha256
        self.nameless = 0
        """Lines without a custom_id that is a string."""
        self._files: list[BinaryIO] = []
        self._descriptors: list[int] = []
        self._sends_of_files: list[int] = []
        self.kept = KeptAnswers()
        self._found: dict[str, int | list[Place]] = {}
        self._readers = [reader if send.may_be_plain else None for send in sends]
        self._keep_bytes = KEPT_BYTES

    def __enter__(self) -> RawAnswers:
        try:
            for index, send in enumerate(self.sends):
                for location in send.files:
                    self._add(index, location)
        except BaseException:
            self.__exit__()
            raise
        self.kept.close()
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def take(self, custom_id: str) -> Found:
        """The lines for one request; each request can be taken once."""
        return self._found.pop(custom_id, ())

    def take_all(self, custom_ids: Iterable[str]) -> list[Found]:
        """As `take`."""
        return list(map(self._found.pop, custom_ids, repeat(())))

    def list_places(self, found: Found) -> Sequence[Place]:
        """Where the lines stand, in the order of sends."""
        if not isinstance(found, int):
            return found
        return (found if found >= 0 else self.kept.places[~found],)

    def measure(self, found: Found) -> int:
        """Bytes of the lines for a request; of what has been read and kept, what such answers take in the mean."""
        if isinstance(found, int):
            return found & _LENGTH_MASK if found >= 0 else self.kept.mean_bytes
        return sum(place & _LENGTH_MASK for place in found)

    def read_plain(self, place: Place) -> PlainAnswer | None:
        """What a line says that is the only one for its request, if it is plain."""
        send = self.send_of(place)
        reader = self._readers[send]
        return None if reader is None else reader.read(self.read(place), send)

    def read(self, place: Place) -> bytes:
        file = self._descriptors[place >> _FILE_SHIFT]
        return os.pread(file, place & _LENGTH_MASK, place >> _LENGTH_BITS & _OFFSET_MASK)

    def send_of(self, place: Place) -> int:
        """Index into the sends, not the number of the send."""
        return self._sends_of_files[place >> _FILE_SHIFT]

    @property
    def strays(self) -> int:
        """Lines that no request has taken."""
        return self.nameless + sum(len(self.list_places(found)) for found in self._found.values())

    def _add(self, send: int, location: Location) -> None:
        file = len(self._files)
        self._sends_of_files.append(send)
        with contextlib.ExitStack() as stack:
            if location.is_local:
                source: Any = open(location.path, "rb")  # noqa: PTH123, SIM115 - kept open for `read`
                self._files.append(source)
                copy = None
            else:
                source = stack.enter_context(location.open_read())
                copy = tempfile.TemporaryFile(prefix="openai-batch-")  # noqa: SIM115
                self._files.append(copy)
            self._descriptors.append(self._files[-1].fileno())
            expected = self._sha256[send] if self._sha256 else None
            digest = None if expected is None else hashlib.sha256()
            offset = 0
            for lines in _read_lines(source, copy, digest):
                offset = self._add_lines(lines, file, offset)
            if digest is not None and digest.hexdigest() != expected:
                self._forget(file)
                log.warning(
                    "%s is not what was sent any more: of its answers only whole ones count.", location.uri
                )

    def _add_lines(self, lines: Sequence[bytes], file: int, offset: int) -> int:
        """Returns the offset of what follows them."""
        send = self._sends_of_files[file]
        reader = self._readers[send] if self._keep_bytes > 0 else None
        lengths = list(map(len, lines))
        *begins, end = accumulate(lengths, lambda begin, length: begin + length + 1, initial=offset)
        base = file << _FILE_SHIFT
        places = [
            base | begin << _LENGTH_BITS | length for begin, length in zip(begins, lengths, strict=True)
        ]
        if reader is None:
            for line, place in zip(lines, places, strict=True):
                self._add_odd(line, place)
            return end
        answers = list(map(reader.read, lines, repeat(send)))
        kept = [answer for answer in answers if answer is not None]
        self._keep_bytes -= _ANSWER_BYTES * len(kept) + sum(
            map(reader.measure, [each.value for each in kept])
        )
        if len(kept) == len(lines) and self._keep_all(kept, places):
            return end
        for line, place, found in zip(lines, places, answers, strict=True):
            if found is not None:
                self._remember(found.custom_id, ~self.kept.add([found], [place]))
            else:  # what is known not to be plain stands like one of several, so that nobody tries again
                self._add_odd(line, [place])
        return end

    def _keep_all(self, answers: Sequence[PlainAnswer], places: Sequence[Place]) -> bool:
        """Keep the only lines for as many requests; False, and nothing is kept, where there are others for one."""
        ids = [answer.custom_id for answer in answers]
        first = len(self.kept.places)
        numbers = dict(zip(ids, range(~first, ~first - len(ids), -1), strict=True))
        if len(numbers) < len(ids) or not numbers.keys().isdisjoint(self._found.keys()):
            return False
        self.kept.add(answers, places)
        self._found.update(numbers)
        return True

    def _add_odd(self, line: bytes, place: Place | list[Place]) -> None:
        """A line that is not kept."""
        if (custom_id := _read_id(line)) is not None:
            self._remember(custom_id, place)
        elif line and not line.isspace():
            self.nameless += 1

    def _remember(self, custom_id: str, line: int | list[Place]) -> None:
        known = self._found.setdefault(custom_id, line)
        if known is not line:
            self._found[custom_id] = [*self.list_places(known), *self.list_places(line)]

    def _forget(self, file: int) -> None:
        for custom_id, found in list(self._found.items()):
            places = [place for place in self.list_places(found) if place >> _FILE_SHIFT != file]
            del self._found[custom_id]
            if places:
                self._found[custom_id] = places


def _read_lines(
    source: BinaryIO, copy: BinaryIO | None, digest: hashlib._Hash | None
) -> Iterator[list[bytes]]:
    """All lines, split on b"\n" only, as they come; ``copy`` and ``digest`` get all bytes."""
    rest: list[bytes] = []
    while block := source.read(READ_BYTES):
        if copy is not None:
            copy.write(block)
        if digest is not None:
            digest.update(block)
        lines = block.split(b"\n")
        rest.append(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join(rest)
            rest = [lines.pop()]
            yield lines
    if copy is not None:
        copy.flush()
    if line := b"".join(rest):
        yield [line]


def _read_id(line: bytes) -> str | None:
    try:
        return read_custom_id(line)
    except UnreadableJSONError:
        return make_out_id(line)
