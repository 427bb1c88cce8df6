"""The lines of a text file as bytes, with memory bounded by the longest line that is allowed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.storage.compression import read_blocks
from airflow_openai_batch.storage.first_bytes import GZIP, PARQUET, ZIP, ZSTD
from airflow_openai_batch.storage.sources import explained
from airflow_openai_batch.tables.reading.encodings import find_mark, to_utf8

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (PARQUET, "is a Parquet file by its content. Call it .parquet"),
    (ZIP, "is a ZIP file or an Excel workbook by its content. Call it .xlsx, or unpack it"),
    (GZIP, "is gzip by its content. Let its name end in .gz"),
    (ZSTD, "is zstd by its content. Let its name end in .zst"),
)


class Line(NamedTuple):
    """One line."""

    number: int
    """From 1."""
    data: bytes | None
    """Without its newline; None where it is longer than the limit."""


def read_lines(file: SourceFile, *, max_bytes: int, encoding: str = "") -> Iterator[Line]:
    """All lines; a byte order mark at the start is left out. UTF-16 comes as UTF-8.

    :param encoding: where the file says none by its mark.
    :param max_bytes: of a line; a file without newlines must not fill the memory.
    :raises InputError: if the file is damaged, or is of another kind by its first bytes.
    """
    pending: list[bytes] = []
    size = number = 0
    for block in _read_start(file, encoding):
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            pending.append(block[start:end])
            number += 1
            yield Line(number, None if size + end - start > max_bytes else b"".join(pending))
            pending, size, start = [], 0, end + 1
        size += len(block) - start
        if size <= max_bytes:
            pending.append(block[start:])
        else:
            pending = []
    if size:
        yield Line(number + 1, None if size > max_bytes else b"".join(pending))


def read_sample(file: SourceFile, size: int) -> tuple[bytes, str]:
    """About so many bytes from the start without the mark, and the encoding that a mark says, if there is one.

    :raises InputError: as `read_lines`.
    """
    with _open(file) as (mark, blocks):
        sample = b""
        for block in blocks:
            sample += block
            if len(sample) >= size:
                break
        return sample[:size], mark


def _read_start(file: SourceFile, encoding: str) -> Iterator[bytes]:
    with _open(file) as (mark, blocks):
        found = mark or encoding
        yield from to_utf8(blocks, found, file.uri) if found.startswith("utf-16") else blocks


@contextlib.contextmanager
def _open(file: SourceFile) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What the file's mark says, and its content behind it."""
    with explained(file.uri):
        opened = file.location.open_read()
    with opened:
        blocks = read_blocks(opened, file.compression, file.uri)
        head = b""
        for block in blocks:
            head += block
            if len(head) >= 4:
                break
        for magic, problem in _FOREIGN:
            if head.startswith(magic):
                raise InputError(f"{file.uri}: {problem}.")
        try:
            mark, says = find_mark(head) or (b"", "")
        except ValueError as error:
            raise InputError(f"{file.uri}: {error}.") from None
        yield says, itertools.chain([head.removeprefix(mark)], blocks)
