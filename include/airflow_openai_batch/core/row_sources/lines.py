"""The lines of a text file as bytes, with memory bounded by the longest line that is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from airflow_openai_batch.core.compression import read_blocks
from airflow_openai_batch.core.errors import InputError
from airflow_openai_batch.core.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.core.sources import SourceFile

_BOM = b"\xef\xbb\xbf"
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe", "is UTF-16. Convert it to UTF-8; in Excel: save as CSV UTF-8"),
    (b"\xfe\xff", "is UTF-16. Convert it to UTF-8; in Excel: save as CSV UTF-8"),
    (b"PAR1", "is a Parquet file by its content. Call it .parquet"),
    (b"PK\x03\x04", "is a ZIP file or an Excel workbook by its content. Call it .xlsx, or unpack it"),
    (b"\x1f\x8b", "is gzip by its content. Let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "is zstd by its content. Let its name end in .zst"),
)


class Line(NamedTuple):
    """One line."""

    number: int
    """From 1."""
    data: bytes | None
    """Without its newline; None where it is longer than the limit."""


def read_lines(file: SourceFile, *, max_bytes: int) -> Iterator[Line]:
    """All lines; a byte order mark at the start is left out.

    :param max_bytes: of a line; a file without newlines must not fill the memory.
    :raises InputError: if the file is damaged, or is of another kind by its first bytes.
    """
    pending: list[bytes] = []
    size = number = 0
    for block in _read_start(file):
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


def _read_start(file: SourceFile) -> Iterator[bytes]:
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
        yield head.removeprefix(_BOM)
        yield from blocks
