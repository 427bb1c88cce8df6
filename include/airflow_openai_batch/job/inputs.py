"""From what a person names as input to an ordered list of objects to read, without the files of jobs among them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import ConfigError, InputError, JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.open_plan import open_plan
from airflow_openai_batch.server_words import clean_words
from airflow_openai_batch.storage.sources import SourceFile, describe_file, explained

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location, Resolver


_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Listing:
    """What was named, in the order in which it is read."""

    files: tuple[SourceFile, ...]
    notices: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    """As the person wrote it."""


def list_sources(inputs: str | Sequence[str], output: Location, resolve: Resolver) -> Listing:
    """Find the input objects: URIs in the order given, what a glob finds sorted by name.

    Files of job directories below a glob are left out: those that lie where this package puts its own, in the
    output directory or beside a ``plan.json`` of ours. Files named one by one are always taken.

    :raises ConfigError: if nothing is named.
    :raises InputError: for a missing file, a directory, one that may not be read, or the same one twice.
    """
    named = [inputs] if isinstance(inputs, str) else list(inputs)
    if not named or not all(uri.strip() for uri in named):
        raise ConfigError("The input is empty: name a JSONL file, a list of them, or a glob.")
    files: list[SourceFile] = []
    notices: list[str] = []
    for uri in named:
        location = _resolve(uri.strip(), resolve)
        if _is_glob(location):
            found, left_out = _expand(location, output)
            files.extend(found)
            if not found and len(named) > 1:
                notices.append(f"{uri}: no file matches it.")
            if left_out:
                notices.append(f"{uri}: left out {left_out:,} files of job directories below it.")
        else:
            files.append(describe_file(location))
    _refuse_repeated(files)
    return Listing(tuple(files), tuple(notices), tuple(uri.strip() for uri in named))


def _resolve(uri: str, resolve: Resolver) -> Location:
    try:
        location = resolve(uri)
    except (ImportError, ValueError) as error:
        raise InputError(f"{uri}: cannot be opened ({clean_words(str(error))}).") from error
    if (
        location.is_local and "://" not in location.uri
    ):  # a relative path would mean another file to the next task
        return location.at(location.path, location.path)
    return location


def _is_glob(location: Location) -> bool:
    if not _MAGIC.intersection(location.path):
        return False
    if "*" in location.path or "?" in location.path:
        return True
    with explained(location.uri):
        return not location.exists()  # a file may well be called data[1].jsonl


def _expand(pattern: Location, output: Location) -> tuple[list[SourceFile], int]:
    """:returns: the files a glob finds, sorted, and how many were left out as files of a job."""
    pattern.fs.invalidate_cache()
    with explained(pattern.uri):
        paths = sorted(path for path in pattern.fs.glob(pattern.path) if not pattern.fs.isdir(path))
    first = min(pattern.path.index(sign) for sign in _MAGIC if sign in pattern.path)
    base = pattern.path[: pattern.path.rfind("/", 0, first) + 1]
    tail = len(pattern.path) - len(base)
    base_uri = pattern.uri[: len(pattern.uri) - tail]
    jobs = _JobDirectories(pattern, output, base)
    kept = [path for path in paths if not jobs.own(path)]
    files = [describe_file(pattern.at(path, base_uri + path[len(base) :])) for path in kept]
    return files, len(paths) - len(kept)


class _JobDirectories:
    """Tells files of this package from a user's, by where they lie."""

    def __init__(self, pattern: Location, output: Location, base: str) -> None:
        self._pattern = pattern
        self._base = base
        same_store = type(pattern.fs) is type(output.fs)
        self._known = {output.path.rstrip("/"): True} if same_store else {}

    def own(self, path: str) -> bool:
        return any(self._is_job(place) for place in self._candidates(path))

    def _candidates(self, path: str) -> Iterator[str]:
        """The directories that would be a job's if this file were one of its own."""
        parent, name = posixpath.split(path)
        if name in directory.FILES:
            yield parent
        while len(parent) > len(self._base.rstrip("/")):
            parent, name = posixpath.split(parent)
            if name in directory.FOLDERS:
                yield parent

    def _is_job(self, path: str) -> bool:
        if path not in self._known:
            try:
                self._known[path] = open_plan(self._pattern.at(path, path)) is not None
            except (JobError, OSError):
                self._known[path] = False
        return self._known[path]


def _refuse_repeated(files: list[SourceFile]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        location = file.location
        path = os.path.realpath(location.path) if location.is_local else location.path
        key = f"{location.fs.protocol}|{path}"
        if key in seen:
            also = "" if seen[key] == file.uri else f" (as {seen[key]})"
            raise InputError(
                f"{file.uri}: stands twice in the input{also}. Its requests would be sent and paid twice."
            )
        seen[key] = file.uri
