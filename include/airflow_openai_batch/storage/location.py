"""Files in object storage: they appear whole or not at all, and nothing is read from a stale listing.

Works on any fsspec file system, so that nothing below `access` need know how Airflow finds its credentials.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import fsspec

from airflow_openai_batch.errors import GivenUpError, InputError, OutOfBoundsError, TooLargeError
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.storage.private_files import create_file, make_folders
from airflow_openai_batch.storage.uris import PUT_IT_THERE, find_link_out, is_path_below

if TYPE_CHECKING:
    import threading

WRITE_BLOCK_BYTES = 8 * 2**20
"""Multipart size for object stores: 200 MB in 4 s against an S3 server, with 8 MB of memory a file."""
_PORTION_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Location:
    """A place in object storage: a file system and a path in it, and the URI a person would write."""

    fs: Any
    path: str
    uri: str
    bounds: tuple[str, ...] | None = None
    """Real paths of a local disk that everything reached from here must stay below; None: it may lie anywhere.

    Looked at whenever a file is opened, since a link may lie in any folder, and below a glob in any file.
    """
    given_up: threading.Event | None = None
    """Set once nobody waits any more for the thread that has this place: it writes nothing then."""

    def child(self, name: str) -> Location:
        return self.at(f"{self.path.rstrip('/')}/{name}", f"{self.uri.rstrip('/')}/{name}")

    def at(self, path: str, uri: str) -> Location:
        """Another place of the same store, within the same bounds."""
        return replace(self, path=path, uri=uri)

    def within(self, bounds: tuple[str, ...]) -> Location:
        """The same place, from which nothing leads out of these real paths."""
        return replace(self, bounds=bounds)

    def until(self, given_up: threading.Event) -> Location:
        """The same place, below which nothing is written any more once the work is given up."""
        return replace(self, given_up=given_up)

    def check_wanted(self) -> None:
        """:raises GivenUpError: if nobody waits any more."""
        if self.given_up is not None and self.given_up.is_set():
            raise GivenUpError(f"{self.uri}: nobody waits any more for what was to be written there.")

    def check_bounds(self) -> None:
        """:raises OutOfBoundsError: if a symbolic link leads from here to where it may not lead."""
        if self.bounds is None or not self.is_local:
            return
        real = os.path.realpath(self.path)
        if any(is_path_below(real, bound) for bound in self.bounds):
            return
        link, within = find_link_out(self.path, self.bounds), ", ".join(self.bounds)
        why = f"{link} is a symbolic link that leads out of {within}" if link else f"lies outside of {within}"
        raise OutOfBoundsError(f"{self.uri}: {why}. {PUT_IT_THERE}")

    @property
    def is_local(self) -> bool:
        return "file" in self._protocols

    @property
    def lists_by_prefix(self) -> bool:
        """Whether `names` with a prefix costs less than all names."""
        return self._is_s3

    @property
    def _is_s3(self) -> bool:
        return "s3" in self._protocols

    @property
    def _protocols(self) -> tuple[str, ...]:
        protocol = self.fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def make_parent(self) -> None:
        """The folder that this lies in; on a disk for its user alone, see `private_files`."""
        parent = self.fs._parent(self.path)
        if self.is_local:
            make_folders(parent)
        else:
            self.fs.makedirs(parent, exist_ok=True)

    def exists(self) -> bool:
        self.check_bounds()
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path))

    def check_readable(self) -> None:
        """:raises OutOfBoundsError: as `check_bounds`.
        :raises InputError: for a device or a pipe, which may never end, and whose opening waits for somebody."""
        self.check_bounds()
        if self.is_endless():
            raise InputError(f"{self.uri}: is a device or a pipe. Name a file.")

    def is_endless(self) -> bool:
        """Whether it is a device, a pipe or a socket of this machine. Of a link, what it leads to."""
        if not self.is_local:
            return False
        try:
            mode = os.stat(self.path).st_mode  # noqa: PTH116 - fsspec paths are strings
        except OSError:  # whoever opens it says so
            return False
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

    def read_bytes(self) -> bytes:
        """:raises FileNotFoundError: if it is not there, also since what is named as its folder is a file."""
        self.check_readable()
        try:
            return cast("bytes", self.fs.cat_file(self.path))
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from None

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end`` (exclusive), or what there is of them.

        :raises FileNotFoundError: if it is not there.
        """
        self.check_readable()
        return cast("bytes", self.fs.cat_file(self.path, start=start, end=end))

    def read_at_most(self, size: int) -> bytes:
        """The file, or one byte more than so many: on a disk a file may hold more than it says, or never end."""
        self.check_readable()
        if not self.is_local:
            return self._read_begin(size + 1)
        try:
            with self.fs.open(self.path, "rb") as file:
                return b"".join(_read_in_portions(file, size + 1))
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from None

    def _read_begin(self, size: int) -> bytes:
        try:
            return self.read_range(0, size)
        except FileNotFoundError:
            raise
        except Exception:  # for some stores an empty object has no ranges; errors are of many kinds
            if self.size():
                raise
            return b""

    def read_within(self, size: int) -> bytes:
        """The whole file, if it has no more bytes than so many.

        :raises FileNotFoundError: if it is not there.
        :raises TooLargeError: if it has more: nothing is as large that this package writes in its place.
        """
        data = self.read_at_most(size)
        if len(data) > size:
            raise TooLargeError(
                f"{self.uri} has more than {size:,} bytes, the limit; what belongs there has less. Restore the file, "
                "or remove it if nobody needs it."
            )
        return data

    def size(self) -> int:
        self.check_bounds()
        self.fs.invalidate_cache()
        return int(self.fs.info(self.path)["size"])

    def open_read(self, *, ahead_bytes: int = WRITE_BLOCK_BYTES) -> BinaryIO:
        """A seekable reader. Read-ahead only: a plan's ranges are read in order.

        :param ahead_bytes: that each request to the store asks for beyond what is wanted.
        """
        self.check_readable()
        return cast("BinaryIO", self.fs.open(self.path, "rb", cache_type="readahead", block_size=ahead_bytes))

    def write_bytes(self, data: bytes) -> None:
        """Replace the file as a whole; a reader sees the old or the new, never a part."""
        if not self.is_local:
            self.check_wanted()
            self.fs.pipe_file(self.path, data)  # one PUT: whole by nature
            return
        with self.open_write() as file:
            file.write(data)

    def create_exclusive(self, data: bytes) -> bool:
        """Write the file only if it is not there; false if it was.

        Atomic on a local disk (hard link) and where the store knows conditional writes (S3 and others:
        fsspec's ``mode="create"``); elsewhere a look before the write, see `creates_exclusively`.
        """
        self.check_bounds()
        self.check_wanted()
        if self.is_local:
            return self._link_exclusive(data)
        try:
            self.fs.pipe_file(self.path, data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError):
            if self.exists():
                return False
            self.fs.pipe_file(self.path, data)
        return True

    def _link_exclusive(self, data: bytes) -> bool:
        self.make_parent()
        temporary = f"{self.path}.{uuid.uuid4().hex}.tmp"
        try:
            with create_file(temporary) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108
        return True

    @contextlib.contextmanager
    def open_write(self, *, for_people: bool = False) -> Iterator[BinaryIO]:
        """A file that appears when the block ends well and leaves nothing when it does not.

        An exception inside fsspec's own ``with open("wb")`` publishes the part that was written, hence a temporary
        name. On S3 an upload of several parts is there when it is completed, not before, so that nothing is copied and
        deleted. Other file systems take ``autocommit=False`` as well, but not all of them heed it.

        :param for_people: on a disk, readable for whoever may look into its folder; others are for the user alone.
        """
        self.check_bounds()
        self.make_parent()
        if self._is_s3:
            file = self.fs.open(self.path, "wb", block_size=WRITE_BLOCK_BYTES, autocommit=False)
            publish, discard = file.commit, file.discard
        else:
            temporary = f"{self.path}.{uuid.uuid4().hex}.tmp"
            file = (
                create_file(temporary, for_people=for_people)
                if self.is_local
                else self.fs.open(temporary, "wb", block_size=WRITE_BLOCK_BYTES)
            )
            move = os.replace if self.is_local else self.fs.mv
            publish, discard = partial(move, temporary, self.path), partial(self.fs.rm_file, temporary)
        try:
            yield cast("BinaryIO", file if self.given_up is None else _WantedFile(file, self.check_wanted))
            file.close()
            self.check_wanted()
            publish()
        except BaseException:
            with contextlib.suppress(Exception):
                file.close()
            with contextlib.suppress(Exception):
                discard()
            raise

    def names(self, *, recursive: bool = False, prefix: str = "") -> list[str]:
        """Names of the files below, relative to here, sorted; temporary files left out. Never cached.

        :param prefix: that a name must begin with, in a folder without folders. S3 lists no others; elsewhere they
            are left out.
        """
        self.check_bounds()
        self.fs.invalidate_cache()
        try:
            found = self._find(recursive=recursive, prefix=prefix)
        except (FileNotFoundError, NotADirectoryError):
            return []
        root = self.path.rstrip("/") + "/"
        names = (path[path.index(root) + len(root) :] if root in path else path for path in found)
        return sorted(name for name in names if name.startswith(prefix) and not name.endswith(".tmp"))

    def _find(self, *, recursive: bool, prefix: str) -> list[str]:
        if self.is_local:
            return list(_iter_paths(self.path, recursive))
        if prefix and self.lists_by_prefix:
            return list(self.fs.find(self.path, prefix=prefix))  # some releases take no depth beside it
        return list(self.fs.find(self.path, maxdepth=None if recursive else 1))

    def sizes(self) -> dict[str, int]:
        """Bytes of the files directly below, by name; temporary files left out. Never cached."""
        self.check_bounds()
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self.path, maxdepth=1, detail=True)
        except FileNotFoundError:
            return {}
        sizes = {path.rpartition("/")[2]: int(info["size"]) for path, info in found.items()}
        return {name: size for name, size in sizes.items() if not name.endswith(".tmp")}

    def find_write_problem(self) -> str | None:
        """What keeps files from being written below here; ``None`` where nothing does.

        Writes an empty file and removes it.
        """
        probe = self.child(f".probe-{uuid.uuid4().hex}")
        try:
            probe.write_bytes(b"")
        except Exception as error:
            return describe_error(error)
        probe.remove()
        return None

    def remove(self) -> None:
        self.check_bounds()
        self.check_wanted()
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path)


class _WantedFile:
    """Takes nothing any more once it is not wanted: what is written may come from a stream without an end."""

    def __init__(self, file: Any, check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def write(self, data: Any) -> int:
        self._check()
        return cast("int", self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _read_in_portions(file: BinaryIO, size: int) -> Iterator[bytes]:
    """So many bytes, or what there is: for one read Python reserves all that it might bring."""
    while size and (portion := file.read(min(size, _PORTION_BYTES))):
        yield portion
        size -= len(portion)


def _iter_paths(folder: str, recursive: bool) -> Iterator[str]:
    """Of all that is no folder. fsspec takes ten times as long, and passes over folders that it may not read."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry.path
            elif recursive:
                with contextlib.suppress(FileNotFoundError):  # somebody has just moved it away
                    yield from _iter_paths(entry.path, recursive)


Resolver = Callable[[str], Location]
"""How a URI becomes a place. Airflow's layer passes one that knows connections."""


def resolve_plain(uri: str) -> Location:
    """A URI or plain path by fsspec alone, with credentials from the environment."""
    fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    return Location(fs, path, uri)
