"""How large anything in a source of rows may be. What is larger is told with its place, and rejects its row where it
has one, else its file. Nobody's data comes near; a file that was made to fill a worker's memory does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_LINE_BYTES = 64 * 2**20
"""Of a JSON Lines file. Nothing that fits into a request is longer."""
MAX_RECORD_BYTES = 16 * 2**20
"""Of one row of a CSV with all its lines (also what a quote that is never closed may swallow), or of a sheet."""
MAX_COLUMNS = 16_384
"""Of a table; Excel's own limit."""
MAX_KEYS = 2_000
"""Different keys over all objects of a source: each is a column of every row."""
MAX_DEPTH = 50
"""Lists and objects inside of one another; Arrow's own files end at 64."""
MAX_LINE_VALUES = 1_000_000
"""Values in one JSON object, at some 60 bytes of memory each."""
MAX_BLOCK_CELLS = 500_000
"""Cells in memory at once; wide tables are read in blocks of fewer rows."""
MAX_SHEET_ROWS = 1_048_576
"""Of a sheet of a workbook. Source: "Excel specifications and limits"."""
MAX_ROW_XML_BYTES = 64 * 2**20
"""Of a sheet, unpacked, between the end of one row and that of the next."""
MAX_ROW_ELEMENTS = 8 * MAX_COLUMNS
"""Of a row's XML: a cell has two or three."""
MAX_SHARED_STRINGS_BYTES = 256 * 2**20
"""Of the texts that the cells of a workbook share, unpacked; they are held in memory."""
MAX_SHARED_STRINGS = 4_000_000
"""How many these may be."""
MAX_PART_BYTES = 16 * 2**20
"""Of any other part of a workbook (styles, names), unpacked; it is held in memory as a tree."""
MAX_PARTS = 10_000
"""Files in a workbook."""

_CHECK_FROM_BYTES = 2**20


def describe_line_limit() -> str:
    return f"is longer than any request may be (limit {MAX_LINE_BYTES:,} bytes)"


def find_excess(line: bytes) -> str:
    """Why a JSON line is not to be decoded at all; "" where it may."""
    if len(line) <= _CHECK_FROM_BYTES:
        return ""
    if line.count(b",") + line.count(b"[") + line.count(b"{") > MAX_LINE_VALUES:
        return f"has more than {MAX_LINE_VALUES:,} values, the limit"
    return ""


def is_too_deep(value: Any, line: bytes) -> bool:
    """Whether lists and objects nest deeper than `MAX_DEPTH`. Most lines have fewer brackets than that."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [each for inner in level for each in _children(inner) if isinstance(each, (dict, list))]
        if not level:
            return False
    return True


def _children(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value
