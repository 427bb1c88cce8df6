"""What a person gave instead of JSON Lines, where no line can be read: told once instead of line by line."""

from __future__ import annotations

import csv
from itertools import islice
from typing import TYPE_CHECKING

from airflow_openai_batch.storage.compression import read_blocks
from airflow_openai_batch.storage.sources import explained

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.job.rejected import RejectedLine
    from airflow_openai_batch.storage.sources import SourceFile

DELIMITERS = {",": "CSV", ";": "CSV with semicolons", "\t": "tab-separated values", "|": "CSV with bars"}
_ROWS = 5
_BLOCK_BYTES = 2**16


def name_foreign_format(file: SourceFile) -> str | None:
    """``CSV`` or the like where the first rows have the same number of columns; None where it is neither."""
    with explained(file.uri), file.location.open_read() as stream:
        block = next(read_blocks(stream, file.compression, file.uri), b"")[:_BLOCK_BYTES]
    text = block.decode("utf-8-sig", "replace")
    if text.lstrip()[:1] in ("{", "["):
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    return next((name for sign, name in DELIMITERS.items() if _has_columns(lines, sign)), None)


def _has_columns(lines: list[str], delimiter: str) -> bool:
    try:
        columns = {len(row) for row in islice(csv.reader(lines, delimiter=delimiter), _ROWS)}
    except csv.Error:
        return False
    return len(columns) == 1 and columns.pop() > 1


def is_no_json_at_all(bad_lines: Iterable[RejectedLine]) -> bool:
    """Whether every line fails as JSON, and none as a request."""
    return all(line.code in ("invalid_json", "not_an_object") for line in bad_lines)
