"""Which files of an inbox are still to be drained, and as which job."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from airflow_openai_batch.errors import (
    InputError,
    JobError,
    OpenAIBatchError,
    OutOfBoundsError,
    UnreadableInputError,
)
from airflow_openai_batch.job import directory
from airflow_openai_batch.report.report import Report
from airflow_openai_batch.results.landing_summary import find_unfinished
from airflow_openai_batch.storage.compression import BLOCK_BYTES
from airflow_openai_batch.storage.sources import describe_file, explained, is_text
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.recipes.inbox.inbox import Inbox
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.storage.sources import SourceFile

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingJob:
    """Files of one content that are not drained yet.

    :param input_uri: one of them.
    :param uri: the job directory.
    :param landed: every request was answered before, so that there is nothing to send.
    :param lost_source: what the job was planned for, where that is gone: its requests are read from there.
    """

    names: list[str]
    input_uri: str
    uri: str
    landed: bool
    lost_source: str | None = None


def find_jobs(inbox: Inbox, *, max_files: int, min_age_s: float, only_bad: bool = False) -> list[PendingJob]:
    """One job for each content that is not drained yet.

    A file whose output is there already is left alone, also one that another tool wrote. A file that has changed since
    is drained again; one that was only touched, moved or copied gets the answers that are there.

    :param max_files: the rest waits for the next run.
    :param min_age_s: a file that was written less than so many seconds ago may still grow, and waits, too.
    :param only_bad: for a repair: drained or not, the files whose job has requests without a good answer.
    """
    if only_bad:
        return _find_bad(inbox, max_files)
    jobs: dict[str, list[str]] = {}
    waiting = 0
    for file in _list_pending(inbox):
        name = file.location.path.rpartition("/")[2]
        if (age_s := _age_of(file.location)) < min_age_s:
            log.warning(
                "%s was written %.0f s ago and may still grow: left for the next run. Trigger it in %.0f s, or set "
                "min_age=0 where whole files are moved in.",
                name,
                max(0.0, age_s),
                min_age_s - age_s,
            )
            continue
        if sum(map(len, jobs.values())) >= max_files:
            waiting += 1
            continue
        sha256 = _try(functools.partial(hash_file, file.location))
        if sha256 is not None and _has_grown(file):
            log.warning("%s grew while it was read: left for the next run.", name)
        elif sha256 is not None and not _is_delivered(inbox, name, file, sha256):
            jobs.setdefault(sha256, []).append(name)
    if waiting:
        log.info("%s left for the next run (max_files=%s).", number_of(waiting, "file"), max_files)
    return [_describe(inbox, sha256, names) for sha256, names in jobs.items()]


def hash_file(place: Location) -> str:
    """SHA-256, in hexadecimal digits; one block in memory."""
    digest = hashlib.sha256()
    with explained(place.uri), place.open_read() as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def find_content(inbox: Inbox, name: str, job: Location) -> str | None:
    """The SHA-256 of a file that a job is for; None where it is gone or has another content now."""
    source = inbox.place.child(name)
    sha256 = hash_file(source) if source.exists() else None
    return sha256 if sha256 is not None and inbox.job(sha256).path == job.path else None


def _find_bad(inbox: Inbox, max_files: int) -> list[PendingJob]:
    found: dict[str, list[str]] = {}
    for name in filter(is_text, inbox.names()):
        sha256 = _try(functools.partial(hash_file, inbox.place.child(name)))
        report = None if sha256 is None else _read_report(inbox.job(sha256))
        if sha256 is not None and report is not None and (report.counts.bad or report.counts.unfinished):
            found.setdefault(sha256, []).append(name)
    log.info("%s to repair.", number_of(len(found), "job"))
    return [_describe(inbox, sha256, names) for sha256, names in list(found.items())[:max_files]]


def _describe(inbox: Inbox, sha256: str, names: list[str]) -> PendingJob:
    place = inbox.job(sha256)
    all_names = list(dict.fromkeys([*inbox.read_names(place), *names]))
    inbox.write_names(place, all_names)
    plan = _read_plan(place)
    landed = plan is not None and _has_landed(plan, place)
    log.info("%s: %s", ", ".join(names), "answered before" if landed else f"job {place.uri}")
    planned = _name_source(plan)
    if planned is not None and is_there(inbox, planned, place, names):
        return PendingJob(names=names, input_uri=planned, uri=place.uri, landed=landed)
    # The first may have its output already. All that are looked at now are there.
    first = next(name for name in all_names if name in names or _has_content(inbox, name, place))
    return PendingJob(
        names=names,
        input_uri=inbox.place.child(first).uri,
        uri=place.uri,
        landed=landed,
        lost_source=planned,
    )


def find_planned(job: Location) -> str | None:
    """The URI of the file that a job was planned for; None where that cannot be told."""
    return _name_source(_read_plan(job))


def _name_source(plan: Plan | None) -> str | None:
    return plan.sources[0].uri if plan is not None and plan.sources else None


def _read_plan(job: Location) -> Plan | None:
    try:
        return directory.read_plan(job)
    except OpenAIBatchError:  # its split fails by it, alone
        return None


def is_there(inbox: Inbox, uri: str, job: Location, read: Collection[str] = ()) -> bool:
    """Whether a file that a job was planned for still lies in the inbox, with that content.

    :param read: names that are known to have it.
    """
    name = uri.rpartition("/")[2]
    return inbox.place.child(name).uri == uri and (name in read or _has_content(inbox, name, job))


def _has_content(inbox: Inbox, name: str, job: Location) -> bool:
    return _try(functools.partial(find_content, inbox, name, job)) is not None


def _list_pending(inbox: Inbox) -> Iterator[SourceFile]:
    """Files that were never delivered or may have changed since; nothing is read of the others."""
    outputs = set(inbox.place.names())
    for name in inbox.names():
        if not is_text(name):
            log.warning("%r: its name is no UTF-8. It is left alone.", name)
            continue
        if not inbox.can_deliver(name):
            log.warning(
                "%s: its name is too long for its answers to lie beside it. Rename it. It is left alone.",
                name,
            )
            continue
        file = _try(functools.partial(describe_file, inbox.place.child(name)))
        if file is not None and _is_pending(inbox, name, file, outputs):
            yield file


def _try(read: Callable[[], _T]) -> _T | None:
    """None for a file that cannot be read, which holds up no other one."""
    try:
        return read()
    except UnreadableInputError:  # of the storage, not of the file
        raise
    except (InputError, OutOfBoundsError) as error:
        log.warning("%s It is left alone.", error)
        return None


def _is_pending(inbox: Inbox, name: str, file: SourceFile, outputs: set[str]) -> bool:
    note = inbox.read_delivered(name)
    has_output = inbox.output(name).path.rpartition("/")[2] in outputs
    has_error = inbox.error(name).path.rpartition("/")[2] in outputs
    if note is None and (has_output or has_error):
        log.info(
            "%s has an output or error file that was not written for it: left alone. Rename it where it shares that "
            "name with another file (a.jsonl and a.jsonl.gz do), or remove what is there to drain it.",
            name,
        )
        return False
    if not file.size:
        log.warning("%s is empty: left alone.", name)
        return False
    return note is None or not has_output or (note.size, note.version) != (file.size, file.etag)


def _is_delivered(inbox: Inbox, name: str, file: SourceFile, sha256: str) -> bool:
    """Whether the output beside the file is for this content; a note of its new version spares the next look."""
    note = inbox.read_delivered(name)
    if note is None or note.sha256 != sha256 or not inbox.output(name).exists():
        return False
    inbox.write_delivered(name, file, sha256)
    return True


def _has_grown(file: SourceFile) -> bool:
    now = _try(functools.partial(describe_file, file.location))
    return now is None or (now.size, now.etag) != (file.size, file.etag)


def _age_of(place: Location) -> float:
    """Seconds since it was written; endless where the store does not say."""
    with contextlib.suppress(NotImplementedError, AttributeError, KeyError):
        return time.time() - float(place.fs.modified(place.path).timestamp())
    return float("inf")


def _has_landed(plan: Plan, place: Location) -> bool:
    """By the shards, too: a repair that was broken off has left the report of the run before."""
    report = _read_report(place)
    if report is None or not report.complete:
        return False
    try:
        return not any(True for _ in find_unfinished(plan, place))
    except JobError:  # its split fails by it, alone
        return False


def _read_report(place: Location) -> Report | None:
    try:
        return Report.from_json(place.child(directory.REPORT_JSON).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None
