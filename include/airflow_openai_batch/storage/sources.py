"""Objects to read: what tells them apart, and what their storage says of them, in words."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import InputError, UnreadableInputError
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.storage.compression import Compression, compression_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

_VERSION_KEYS = ("ETag", "etag", "generation", "version_id", "md5Hash", "content_md5")
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An input object as it is now."""

    location: Location
    size: int
    """Bytes as stored."""
    etag: str
    compression: Compression | None

    @property
    def uri(self) -> str:
        return self.location.uri


def describe_file(location: Location) -> SourceFile:
    """:raises InputError: if it is no file that can be read, or nobody could write down which one it was."""
    if not is_text(location.uri):
        shown = location.uri.encode("utf-8", "backslashreplace").decode()
        raise InputError(f"{shown}: its name is no UTF-8. Rename the file.")
    location.fs.invalidate_cache()
    location.check_bounds()
    with explained(location.uri):
        info = location.fs.info(location.path)
        if info.get("type") == "directory":
            raise InputError(
                f"{location.uri}: is a directory. Name the files in it, for instance "
                f"{location.uri.rstrip('/')}/*.jsonl."
            )
        if is_no_file(location, info):
            raise InputError(f"{location.uri}: is a device or a pipe. Name a file.")
    return SourceFile(location, int(info["size"]), version_of(info), compression_of(location.path))


def is_no_file(location: Location, info: Mapping[str, Any]) -> bool:
    """Whether it is a device, a pipe or a socket of this machine, which may never end. Of a link, what it leads to."""
    return info.get("type") not in ("file", "directory") and location.is_endless()


def is_text(name: str) -> bool:
    """Whether a file's name can be written down: on a disk it may be any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


class explained:
    """Turn what a file system says into an error that names the file and the way out.

    :raises InputError: for a missing file, a directory, or one that may not be read.
    :raises UnreadableInputError: for anything else that the storage or its client says.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{self._uri}: there is no such file.") from error
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{self._uri}: is a directory. Name the files in it.") from error
        if isinstance(error, PermissionError):
            raise InputError(
                f"{self._uri}: may not be read. Grant the user or the connection of this task read access."
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise InputError(f"{self._uri}: cannot be opened ({error.strerror}).") from error
        if isinstance(error, Exception) and _is_of_storage(error):
            raise UnreadableInputError(
                f"{self._uri}: cannot be read ({describe_error(error)}). Check its address, and the connection or "
                "the credentials that this task reads it with."
            ) from error


def _is_of_storage(error: Exception) -> bool:
    """The clients of object stores bring error classes of their own, with no root in common."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package not in ("builtins", __name__.partition(".")[0])


def version_of(info: dict[str, Any]) -> str:
    """What tells two versions of an object apart; "" where the file system tells nothing."""
    for key in _VERSION_KEYS:
        if info.get(key):
            return str(info[key]).strip('"')
    for key in _TIME_KEYS:
        value = info.get(key)
        if value is not None:
            return f"{value:.6f}" if isinstance(value, float) else str(value)
    return ""
