"""A directory that request files are dropped into: which of them are still to be drained, and as which job.

::

    inbox/
      shard-000-of-002.jsonl           dropped by a person or a program
      shard-000-of-002.output.jsonl    the answers, as gpt-batch-manager names them; see `delivery`
      _batch/<sha256>/                 the job of every file with this content
      _batch/<sha256>.files.json       the names of these files
      _batch/delivered/<name>.json     which content the output beside the file is for
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.core import job
from airflow_openai_batch.core.compression import BLOCK_BYTES
from airflow_openai_batch.core.plurals import number_of
from airflow_openai_batch.core.report import Report
from airflow_openai_batch.core.sources import SourceFile, describe_file, explained
from airflow_openai_batch.locations import check_uri, resolve_location

if TYPE_CHECKING:
    from airflow_openai_batch.core.storage import Location

log = logging.getLogger(__name__)

SUFFIX = ".jsonl"
OWN_SUFFIXES = (".output.jsonl", ".error.jsonl")
WORK = "_batch"
_ID_DIGITS = 16


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What ``delivered/<name>.json`` holds: the file as it was when its output was written.

    :param version: of the object as the store tells it; where only that differs, the content decides.
    """

    size: int
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """Files of one content that are not drained yet.

    :param uri: the job directory.
    :param landed: every request was answered before, so that there is nothing to send.
    """

    names: list[str]
    input_uri: str
    uri: str
    landed: bool


@dataclass(frozen=True, slots=True)
class Inbox:
    """The directory. All names below it are made here."""

    place: Location

    def output(self, name: str) -> Location:
        """``shard-000-of-002.jsonl`` to ``shard-000-of-002.output.jsonl``."""
        return self.place.child(name.removesuffix(SUFFIX) + OWN_SUFFIXES[0])

    def error(self, name: str) -> Location:
        return self.place.child(name.removesuffix(SUFFIX) + OWN_SUFFIXES[1])

    def job(self, sha256: str) -> Location:
        return self.place.child(f"{WORK}/{sha256[:_ID_DIGITS]}")

    def names_note(self, job_id: str) -> Location:
        return self.place.child(f"{WORK}/{job_id}.files.json")

    def delivered_note(self, name: str) -> Location:
        return self.place.child(f"{WORK}/delivered/{name}.json")

    def read_delivered(self, name: str) -> Delivered | None:
        found: Delivered | None = _read(self.delivered_note(name), Delivered)
        return found

    def read_names(self, job_id: str) -> list[str]:
        """The files that a job's answers are for."""
        return _read(self.names_note(job_id), list[str]) or []


def open_inbox(uri: str) -> Inbox:
    """:raises ConfigError: if it may not be read or written."""
    uri = uri.strip().rstrip("/")
    check_uri(uri, "input")
    check_uri(uri, "output")
    return Inbox(resolve_location(uri))


def find_jobs(inbox: Inbox, *, max_files: int, min_age_s: float) -> list[FoundJob]:
    """One job for each content that is not drained yet.

    A file whose output is there already is left alone, also one that another tool wrote. A file that has changed since
    is drained again; one that was only touched, moved or copied gets the answers that are there.

    :param max_files: the rest waits for the next run.
    :param min_age_s: a file that was written less than so many seconds ago may still grow, and waits, too.
    """
    jobs: dict[str, list[str]] = {}
    waiting = 0
    for file in _list_pending(inbox):
        name = file.location.path.rpartition("/")[2]
        if _age_of(file.location) < min_age_s:
            log.info("%s was written less than %g s ago: left for the next run.", name, min_age_s)
            continue
        if sum(map(len, jobs.values())) >= max_files:
            waiting += 1
            continue
        sha256 = hash_file(file.location)
        if not _is_delivered(inbox, name, file, sha256):
            jobs.setdefault(sha256, []).append(name)
    if waiting:
        log.info("%s left for the next run (max_files=%s).", number_of(waiting, "file"), max_files)
    return [_describe(inbox, sha256, names) for sha256, names in jobs.items()]


def seed_inbox(inbox: Inbox, samples: Location) -> int:
    """Copy the sample files into an inbox that has none. Returns how many were copied."""
    if any(True for _ in _list_names(inbox)):
        return 0
    names = [name for name in samples.names() if name.endswith(SUFFIX)]
    for name in names:
        inbox.place.child(name).write_bytes(samples.child(name).read_bytes())
    return len(names)


def _describe(inbox: Inbox, sha256: str, names: list[str]) -> FoundJob:
    place = inbox.job(sha256)
    job_id = sha256[:_ID_DIGITS]
    known = inbox.read_names(job_id)
    inbox.names_note(job_id).write_bytes(msgspec.json.encode(list(dict.fromkeys([*known, *names]))))
    landed = _has_landed(place)
    log.info("%s: %s", ", ".join(names), "answered before" if landed else f"job {place.uri}")
    return FoundJob(names=names, input_uri=inbox.place.child(names[0]).uri, uri=place.uri, landed=landed)


def _list_pending(inbox: Inbox) -> Iterator[SourceFile]:
    """Files that were never delivered or may have changed since; nothing is read of the others."""
    outputs = set(inbox.place.names())
    for name in _list_names(inbox):
        file = describe_file(inbox.place.child(name))
        note = inbox.read_delivered(name)
        has_output = inbox.output(name).path.rpartition("/")[2] in outputs
        if note is None and has_output:
            log.info("%s has an output that is not from here: left alone. Remove it to drain the file.", name)
        elif not file.size:
            log.warning("%s is empty: left alone.", name)
        elif note is None or not has_output or (note.size, note.version) != (file.size, file.etag):
            yield file


def _list_names(inbox: Inbox) -> Iterator[str]:
    with explained(inbox.place.uri):
        names = inbox.place.names()
    return (name for name in names if name.endswith(SUFFIX) and not name.endswith(OWN_SUFFIXES))


def _is_delivered(inbox: Inbox, name: str, file: SourceFile, sha256: str) -> bool:
    """Whether the output beside the file is for this content; a note of its new version spares the next look."""
    note = inbox.read_delivered(name)
    if note is None or note.sha256 != sha256 or not inbox.output(name).exists():
        return False
    write_delivered(inbox, name, file, sha256)
    return True


def write_delivered(inbox: Inbox, name: str, file: SourceFile, sha256: str) -> None:
    """Note that the output beside the file is complete, and for which content."""
    note = Delivered(size=file.size, version=file.etag, sha256=sha256)
    inbox.delivered_note(name).write_bytes(msgspec.json.encode(note))


def hash_file(place: Location) -> str:
    """SHA-256, in hexadecimal digits; one block in memory."""
    digest = hashlib.sha256()
    with explained(place.uri), place.open_read() as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _age_of(place: Location) -> float:
    """Seconds since it was written; endless where the store does not say."""
    with contextlib.suppress(NotImplementedError, AttributeError, KeyError):
        return time.time() - float(place.fs.modified(place.path).timestamp())
    return float("inf")


def _has_landed(place: Location) -> bool:
    report = _read(place.child(job.REPORT_JSON), Report)
    return report is not None and report.complete


def _read(place: Location, kind: Any) -> Any:
    try:
        return msgspec.json.decode(place.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
