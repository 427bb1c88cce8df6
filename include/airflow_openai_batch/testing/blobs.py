"""Where the content of files lies: in memory for simulations, on disk for a server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, Protocol


class Blobs(Protocol):
    """Content by name. A blob is there once its writer is closed."""

    def create(self, name: str) -> BinaryIO: ...

    def open(self, name: str) -> BinaryIO:
        """:raises FileNotFoundError: if there is none of that name."""
        ...

    def size(self, name: str) -> int:
        """In bytes."""
        ...

    def delete(self, name: str) -> None: ...

    def clear(self) -> None: ...


class _MemoryWriter(io.BytesIO):
    def __init__(self, contents: dict[str, bytes], name: str) -> None:
        super().__init__()
        self._contents, self._name = contents, name

    def close(self) -> None:
        if not self.closed:
            self._contents[self._name] = self.getvalue()
        super().close()


class MemoryBlobs:
    """Content in a dictionary: quick, and as large as the files."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def create(self, name: str) -> BinaryIO:
        return _MemoryWriter(self._contents, name)

    def open(self, name: str) -> BinaryIO:
        try:
            return io.BytesIO(self._contents[name])
        except KeyError:
            raise FileNotFoundError(name) from None

    def size(self, name: str) -> int:
        return len(self._contents[name])

    def delete(self, name: str) -> None:
        self._contents.pop(name, None)

    def clear(self) -> None:
        self._contents.clear()


class DiskBlobs:
    """Content as files of one directory, so that memory stays bounded whatever is uploaded.

    Names are made by the emulator, never taken from a request.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def create(self, name: str) -> BinaryIO:
        return (self._directory / name).open("wb", buffering=2**20)

    def open(self, name: str) -> BinaryIO:
        return (self._directory / name).open("rb")

    def size(self, name: str) -> int:
        return (self._directory / name).stat().st_size

    def delete(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def clear(self) -> None:
        for path in self._directory.glob("file-*"):  # the directory may be someone's own
            path.unlink(missing_ok=True)
