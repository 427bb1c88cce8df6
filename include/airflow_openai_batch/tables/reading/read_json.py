"""Rows of JSONL files: one object per line, its keys the columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.tables.reading import limits
from airflow_openai_batch.tables.reading.lines import Line, read_lines
from airflow_openai_batch.tables.reading.row_table import BLOCK_BYTES, BLOCK_ROWS
from airflow_openai_batch.tables.reading.spool import RawBlock
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile

_decode = msgspec.json.Decoder().decode


def read_json_rows(files: Sequence[SourceFile]) -> Iterator[RawBlock]:
    """The objects of JSONL files in blocks; blank lines are no rows.

    :raises InputError: if a file is a JSON array.
    """
    keys: dict[str, None] = {}
    for file in files:
        yield from _read_file(file, keys)


def _read_file(file: SourceFile, keys: dict[str, None]) -> Iterator[RawBlock]:
    """
    :param keys: of all rows so far; grows up to `MAX_KEYS`.
    """
    rows: list[dict[str, Any]] = []
    problems: dict[int, str] = {}
    size = 0
    for line in read_lines(file, max_bytes=limits.MAX_LINE_BYTES):
        if line.data is not None and not line.data.strip():
            continue
        if line.number == 1 and line.data is not None and line.data.lstrip().startswith(b"["):
            raise InputError(
                f"{file.uri}: is a JSON array. Write one object per line instead, for instance with: jq -c '.[]'."
            )
        found = _read_row(line)
        if not isinstance(found, str) and (problem := _note_keys(found, line, keys)):
            found = problem
        if isinstance(found, str):
            problems[len(rows)] = found
            found = {}
        rows.append(found)
        size += len(line.data or b"")
        if len(rows) >= BLOCK_ROWS or size >= BLOCK_BYTES or len(rows) * len(keys) >= limits.MAX_BLOCK_CELLS:
            yield RawBlock(rows, problems, is_json=True)
            rows, problems, size = [], {}, 0
    if rows:
        yield RawBlock(rows, problems, is_json=True)


def _read_row(line: Line) -> dict[str, Any] | str:
    """The row, or what is wrong with its line."""
    if line.data is None:
        return f"line {line.number:,} {limits.describe_line_limit()}"
    if excess := limits.find_excess(line.data):
        return f"line {line.number:,} {excess}"
    try:
        found = _decode(line.data.decode())
    except UnicodeDecodeError as error:
        return f"line {line.number:,} is not valid UTF-8 (byte {error.start + 1:,})"
    except (msgspec.DecodeError, RecursionError):
        return f"line {line.number:,} is not valid JSON"
    if not isinstance(found, dict):
        return f"line {line.number:,} is no JSON object"
    if limits.is_too_deep(found, line.data):
        return f"line {line.number:,} nests lists or objects more than {limits.MAX_DEPTH} deep, the limit"
    return found


def _note_keys(row: dict[str, Any], line: Line, keys: dict[str, None]) -> str:
    """What is wrong where a row's own keys would be too many columns for all; its keys are forgotten then."""
    if row.keys() <= keys.keys():
        return ""
    new = [name for name in row if name not in keys]
    if len(keys) + len(new) > limits.MAX_KEYS:
        return (
            f"line {line.number:,} brings {number_of(len(new), 'key')} beside the {len(keys):,} of the lines before, "
            f"limit {limits.MAX_KEYS:,} in all. Keys that differ from row to row belong into an object or a list"
        )
    keys.update(dict.fromkeys(new))
    return ""
