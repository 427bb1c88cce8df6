"""Files below a prefix and their text, one at a time, each within limits of size, time and memory."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, EmptyInputError, OutOfBoundsError
from airflow_openai_batch.operators.task.asset_event import make_asset_uri
from airflow_openai_batch.processes.limited_process import LimitedProcess, Overrun, WorkLimits
from airflow_openai_batch.recipes.qdrant.document_texts import MAX_TEXT_CHARS, DocumentText, Page
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.storage.sources import SourceFile, explained, version_of
from airflow_openai_batch.tables.reading.read_objects import list_objects
from airflow_openai_batch.tables.writing.formulas import guard_formulas

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 64 * 2**20
LIMITS = WorkLimits(cpu_s=60, memory_bytes=2 * 2**30)
"""Of one document: a book of 1,000 pages takes some 5 s."""
_PLAIN = (".txt", ".md", ".markdown")


class ReadFile(NamedTuple):
    """A document and what came of it."""

    uri: str
    name: str
    """Below the prefix."""
    pages: list[Page]
    problem: str = ""
    """Why it was not read; an empty document has none."""


def find_documents(source: str) -> tuple[Location, list[SourceFile]]:
    """The prefix and the objects below it, hidden ones left out; or one object and where it lies.

    :raises EmptyInputError: if there is none.
    """
    uri = source.strip()
    if not uri:
        raise ConfigError("documents is empty: name a prefix that ends in /, or one document.")
    place = open_place(uri, "input", find_giver_of(uri, "documents"))
    files: list[SourceFile]
    with explained(uri):
        info = None if uri.endswith("/") else place.fs.info(place.path)
    if info is None or info.get("type") == "directory":
        files = list_objects(place)
    else:
        files = [SourceFile(place, int(info.get("size") or 0), version_of(info), None)]
        place = place.at(place.path.rpartition("/")[0], place.uri.rpartition("/")[0])
    if not files:
        raise EmptyInputError(f"{uri}: there is no document below it.")
    return place, files


def read_files(prefix: Location, files: list[SourceFile]) -> Iterator[ReadFile]:
    """Each file, with a line in the log where it cannot be read. What breaks the process is told, and the next file
    gets another one."""
    start = len(prefix.uri.rstrip("/")) + 1
    with contextlib.closing(
        LimitedProcess("recipes.qdrant.document_texts:open_extraction", limits=LIMITS)
    ) as process:
        for file in files:
            name = file.uri[start:]
            data, problem = _read_bytes(file)
            found = DocumentText(problem=problem) if problem else _read_text(process, name, data)
            if found.problem:
                log.warning("%s: %s; its chunks stay as they are.", file.uri, found.problem)
            elif found.notice:
                log.warning("%s: %s. Look at it where letters are wrong.", file.uri, found.notice)
            yield ReadFile(make_asset_uri(file.uri), name, found.pages, found.problem)


class UnreadList:
    """``unread.csv``: what could not be read, and why. Held in memory, at most some 500 bytes a file."""

    def __init__(self) -> None:
        self._text = io.StringIO(newline="")
        self._rows = csv.writer(self._text)
        self._rows.writerow(["document", "name", "reason"])

    def add(self, file: ReadFile) -> None:
        self._rows.writerow(map(guard_formulas, (file.uri, file.name, file.problem)))

    def write(self, place: Location) -> None:
        place.write_bytes(self._text.getvalue().encode("utf-8-sig"))


def _read_bytes(file: SourceFile) -> tuple[bytes, str]:
    """The bytes, or what is wrong with the file."""
    if file.size > MAX_DOCUMENT_BYTES:
        return b"", f"has {file.size:,} bytes, limit {MAX_DOCUMENT_BYTES:,}"
    try:
        data = file.location.read_at_most(MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        return b"", "is not there any more"
    except OutOfBoundsError:
        return b"", "is a link that leads outside"
    except PermissionError as error:
        return b"", f"may not be read ({describe_error(error)})"
    if len(data) > MAX_DOCUMENT_BYTES:
        return b"", f"has more than {MAX_DOCUMENT_BYTES:,} bytes, the limit"
    return data, ""


def _read_text(process: LimitedProcess, name: str, data: bytes) -> DocumentText:
    if (plain := _read_plain(name, data)) is not None:
        return plain
    item = msgspec.msgpack.encode((name, data))
    with contextlib.closing(process.map([item])) as replies:
        reply = next(replies)
    if isinstance(reply, Overrun):
        return DocumentText(problem=str(reply))
    return msgspec.msgpack.decode(reply, type=DocumentText)


def _read_plain(name: str, data: bytes) -> DocumentText | None:
    """UTF-8 that is named as text wants no process."""
    if not name.lower().endswith(_PLAIN) or len(data) > MAX_TEXT_CHARS or b"\0" in data:
        return None
    if data.startswith((b"PK\x03\x04", b"%PDF-", b"\xff\xfe", b"\xfe\xff")):
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return DocumentText([Page(None, text)] if text else [])
