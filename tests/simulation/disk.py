"""An object store in a dictionary, as one process sees it: whole objects, conditional writes, rare faults."""

from __future__ import annotations

import errno
import io
import re
from hashlib import md5
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.storage.location import Location

if TYPE_CHECKING:
    from simulation.world import Process

_EVENT = re.compile(r"state/(\d+)/\d+-(\w+)\.json$")

Objects = dict[str, bytes]
"""Path to content: what the whole simulation shares."""


def locate(objects: Objects, process: Process, uri: str) -> Location:
    """The place of ``sim://bucket/key`` as this process sees it."""
    return Location(DiskView(objects, process), uri.removeprefix("sim://"), uri)


class DiskView:
    """The part of fsspec's interface that `Location` and the readers use."""

    protocol = "sim"

    def __init__(self, objects: Objects, process: Process) -> None:
        self._objects = objects
        self._process = process
        self._world = process.world

    def invalidate_cache(self, path: str | None = None) -> None:
        """There is none."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Object stores know no directories."""

    def _parent(self, path: str) -> str:
        return path.rpartition("/")[0]

    def exists(self, path: str) -> bool:
        self._process.check_alive()
        return path in self._objects

    def isdir(self, path: str) -> bool:
        return any(name.startswith(f"{path}/") for name in self._objects)

    def info(self, path: str) -> dict[str, Any]:
        content = self._content(path)
        return {"name": path, "size": len(content), "type": "file", "ETag": md5(content).hexdigest()}  # noqa: S324

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        self._reach("read", path)
        return self._content(path)[start:end]

    def find(self, path: str, maxdepth: int | None = None) -> list[str]:
        self._reach("list", path)
        root = path.rstrip("/") + "/"
        found = [name for name in self._objects if name.startswith(root)]
        return sorted(name for name in found if maxdepth is None or "/" not in name[len(root) :])

    def open(self, path: str, mode: str, **_: Any) -> io.BytesIO:
        self._process.check_alive()
        if mode == "rb":
            self._reach("read", path)
            return io.BytesIO(self._content(path))
        return _Writer(self, path)

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        self._process.point(f"before writing {_name(path)}")
        fault = self._world.strikes_storage()
        self._world.sleep(self._world.chance.uniform(0.01, 0.2))
        self._process.check_alive()
        if fault and self._world.chance.random() < 0.5:
            self._fail("write", path, "nothing was written")
        if mode == "create" and path in self._objects:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self._objects[path] = data
        event = _EVENT.search(path)
        self._world.note(self._process.name, f"wrote {_name(path)}")
        if fault:
            self._fail("write", path, "its reply is lost")
        self._process.point(
            f"after writing {_name(path)}",
            event=None if event is None else f"{event[1]} {event[2]} {_number_of(data)}",
        )

    def mv(self, source: str, target: str) -> None:
        self.pipe_file(target, self._content(source))
        self._objects.pop(source, None)

    def rm_file(self, path: str) -> None:
        self._process.point(f"before removing {_name(path)}")
        self._content(path)
        del self._objects[path]
        self._process.point(f"after removing {_name(path)}")

    def store(self, path: str, content: bytes) -> None:
        """What a temporary file comes to; nobody looks at it before it is renamed."""
        self._process.check_alive()
        self._objects[path] = content

    def _content(self, path: str) -> bytes:
        self._process.check_alive()
        try:
            return self._objects[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such object", path) from None

    def _reach(self, verb: str, path: str) -> None:
        self._world.sleep(self._world.chance.uniform(0.005, 0.1))
        self._process.check_alive()
        if self._world.strikes_storage():
            self._fail(verb, path, "no answer")

    def _fail(self, verb: str, path: str, how: str) -> None:
        self._world.note(self._process.name, f"STORAGE FAILS to {verb} {_name(path)}: {how}")
        raise OSError(errno.EIO, how, path)


class _Writer(io.BytesIO):
    """Readable by nobody until it is closed."""

    def __init__(self, view: DiskView, path: str) -> None:
        super().__init__()
        self._view = view
        self._path = path

    def close(self) -> None:
        if not self.closed:
            self._view.store(self._path, self.getvalue())
        super().close()


def _name(path: str) -> str:
    return "/".join(path.split("/")[2:]).partition(".tmp")[0] or path


def _number_of(data: bytes) -> str:
    """The send an event speaks of, so that the same event of a later send is another."""
    found = re.search(rb'"send":(\d+)', data)
    return found[1].decode() if found else ""
