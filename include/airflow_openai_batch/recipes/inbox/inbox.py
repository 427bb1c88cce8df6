"""A directory that request files are dropped into, and the names of what this package puts there.

::

    inbox/
      shard-000-of-002.jsonl           dropped by a person or a program; .jsonl.gz and .jsonl.zst as well, in any case
      shard-000-of-002.output.jsonl    the answers, as gpt-batch-manager names them; see `delivery`
      shard-000-of-002.error.jsonl     what was not answered, if anything
      _batch/<sha256>/                 the job of every file with this content
      _batch/<sha256>.files.json       the names of these files
      _batch/delivered/<name>.json     which content the output beside the file is for
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from airflow.sdk import get_current_context

from airflow_openai_batch.access.givers import Giver, find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.errors import JobError
from airflow_openai_batch.operators.task.ownership import check_folder
from airflow_openai_batch.storage.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.storage.sources import SourceFile

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
OUTPUT_SUFFIX = ".output.jsonl"
ERROR_SUFFIX = ".error.jsonl"
WORK = "_batch"
MOST_OUTPUT_BYTES = 218
"""Of an output's name on a disk: file systems take 255 bytes, and `Location` makes names longer while it writes."""
_ID_DIGITS = 16
_MANY = re.compile(r"[*?\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""In an ``input_uri`` a pattern, or the end of a line, after which another input stands: whoever drops files would have
others read and paid by a name, also from where the worker runs."""
_JOB_NAME = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}")


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What ``delivered/<name>.json`` holds: the file as it was when its output was written.

    :param size: bytes.
    :param version: of the object as the store tells it; where only that differs, the content decides.
    """

    size: int
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Inbox:
    """The directory. All names below it are made here."""

    place: Location

    def names(self) -> list[str]:
        """Of the request files, sorted; those directly in the directory.

        Of several that would have one output (``a.jsonl``, ``a.JSONL.gz``) the first: plain before compressed.

        :raises InputError: if it cannot be read.
        """
        with explained(self.place.uri):
            names = self.place.names()
        found: dict[str, str] = {}
        for name in sorted(filter(_is_request_file, names), key=_rank):
            if _MANY.search(name):
                log.warning("%r: its name could stand for several files. It is left alone; rename it.", name)
                continue
            if (other := found.setdefault(_stem_of(name), name)) != name:
                log.warning("%s is left alone: %s has the same output. Rename one.", name, other)
        return sorted(found.values())

    def output(self, name: str) -> Location:
        """``shard-000-of-002.jsonl`` to ``shard-000-of-002.output.jsonl``."""
        return self.place.child(_stem_of(name) + OUTPUT_SUFFIX)

    def error(self, name: str) -> Location:
        return self.place.child(_stem_of(name) + ERROR_SUFFIX)

    def can_deliver(self, name: str) -> bool:
        """Whether the name leaves room for those of its answers."""
        longest = _stem_of(name) + OUTPUT_SUFFIX
        return not self.place.is_local or len(longest.encode()) <= MOST_OUTPUT_BYTES

    def job(self, sha256: str) -> Location:
        return self.place.child(f"{WORK}/{sha256[:_ID_DIGITS]}")

    def open_job(self, uri: str) -> Location:
        """:raises JobError: if it is no job of this inbox."""
        start = f"{self.place.uri}/{WORK}/"
        name = uri.removeprefix(start)
        if not uri.startswith(start) or not _JOB_NAME.fullmatch(name):
            raise JobError(
                f"{uri}: is no job of the inbox {self.place.uri}. Clear the task that finds the files."
            )
        return self.place.child(f"{WORK}/{name}")

    def read_names(self, job: Location) -> list[str]:
        """The files that a job's answers are for, the one that it was planned for first."""
        try:
            names = msgspec.json.decode(_names_note(job).read_bytes(), type=list[str])
        except (FileNotFoundError, msgspec.DecodeError):
            return []
        return [name for name in names if _is_request_file(name)]  # they become paths

    def write_names(self, job: Location, names: Iterable[str]) -> None:
        _names_note(job).write_bytes(msgspec.json.encode(list(names)))

    def read_delivered(self, name: str) -> Delivered | None:
        try:
            return msgspec.json.decode(self._delivered_note(name).read_bytes(), type=Delivered)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def note_begun(self, name: str) -> None:
        """Note that what lies beside the file from now on is ours, and is to be written again until it is complete."""
        note = Delivered(size=0, version="", sha256="")
        self._delivered_note(name).write_bytes(msgspec.json.encode(note))

    def write_delivered(self, name: str, file: SourceFile, sha256: str) -> None:
        """Note that the output beside the file is complete, and for which content."""
        note = Delivered(size=file.size, version=file.etag, sha256=sha256)
        self._delivered_note(name).write_bytes(msgspec.json.encode(note))

    def _delivered_note(self, name: str) -> Location:
        return self.place.child(f"{WORK}/delivered/{name}.json")


def _is_request_file(name: str) -> bool:
    """Directly in the directory, and no answers."""
    stem = _stem_of(name).lower()
    return "/" not in name and stem != name.lower() and not stem.endswith((".output", ".error"))


def _stem_of(name: str) -> str:
    """Without the ending of a request file; the whole name where it has none."""
    ending = next((each for each in SUFFIXES if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)]


def _rank(name: str) -> tuple[int, bool, str]:
    return len(name), name != name.lower(), name


def open_inbox(uri: str) -> Inbox:
    """:raises ConfigError: if it may not be read or written."""
    uri = uri.strip().rstrip("/")
    giver = find_giver_of(uri, "inbox")
    check_uri(uri, "input", giver)
    place = open_place(uri, "output", giver)
    if giver is Giver.FORM:
        check_folder(place, get_current_context()["ti"].dag_id, giver)
    return Inbox(place)


def seed_inbox(inbox: Inbox, samples: Path) -> int:
    """Copy the sample files into an inbox that has none. Returns how many were copied."""
    if inbox.names():
        return 0
    files = sorted(samples.glob("*.jsonl"))
    for file in files:
        inbox.place.child(file.name).write_bytes(file.read_bytes())
    return len(files)


def _names_note(job: Location) -> Location:
    return job.at(f"{job.path}.files.json", f"{job.uri}.files.json")
