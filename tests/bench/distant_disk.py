"""A local disk that answers like an object store: each request takes its time, lists come in pages of 1,000."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from airflow_openai_batch.storage.location import Location

PAGE = 1_000


class DistantDisk(LocalFileSystem):
    """Counts what a bucket would bill."""

    protocol = ("s3", "distant")
    """As S3 it lists by prefix."""
    cachable = False

    def __init__(self, delay_s: float) -> None:
        super().__init__(auto_mkdir=True)
        self.delay_s = delay_s
        self.requests = 0
        self.bytes_read = 0
        self._lock = threading.Lock()

    def locate(self, path: Path) -> Location:
        return Location(self, str(path), f"distant://{path}")

    def ask(self, requests: int = 1, size: int = 0) -> None:
        """So many requests, one after another."""
        with self._lock:
            self.requests += requests
            self.bytes_read += size
        time.sleep(self.delay_s * requests)

    def info(self, path: str, **options: Any) -> Any:
        self.ask()
        return super().info(path, **options)

    def find(
        self, path: str, maxdepth: int | None = None, detail: bool = False, prefix: str = "", **options: Any
    ) -> Any:
        """Keys, without a look at each, as a bucket lists them."""
        roots = [str(each) for each in Path(path).glob(f"{prefix}*") if each.is_dir()] if prefix else [path]
        folders = (
            folder for root in roots for folder in itertools.islice(os.walk(root), 1 if maxdepth else None)
        )
        found = sorted(f"{folder}/{name}" for folder, _, names in folders for name in names)
        self.ask(1 + len(found) // PAGE)
        return {each: {"size": Path(each).stat().st_size} for each in found} if detail else found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        with Path(path).open("rb") as file:
            file.seek(start or 0)
            data = file.read(-1 if end is None else end - (start or 0))
        self.ask(size=len(data))
        return data

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, block_size, **options)
        return _DistantFile(self, path, mode, block_size or 2**22, **options)


class _DistantFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)  # type: ignore[no-any-return]
