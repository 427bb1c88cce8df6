"""One row per object below a prefix: its address and size, and of texts their content."""

from __future__ import annotations

import codecs
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from airflow_openai_batch.errors import OutOfBoundsError
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.storage.sources import SourceFile, explained, is_no_file, is_text, version_of
from airflow_openai_batch.tables.reading.row_table import BLOCK_BYTES, BLOCK_ROWS, RowBlock, RowTable

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

MAX_TEXT_BYTES = 16 * 2**20
"""No model reads a longer one."""

_FIELDS = [("uri", pa.string()), ("name", pa.string()), ("size_bytes", pa.int64())]


def list_objects(prefix: Location) -> list[SourceFile]:
    """The objects below a prefix by name, hidden ones left out. About 500 bytes of memory each."""
    prefix.fs.invalidate_cache()
    with explained(prefix.uri):
        found = prefix.fs.find(prefix.path, detail=True)
    root = prefix.path.rstrip("/") + "/"
    objects = []
    for path in sorted(found):
        info = found[path]
        name = path[path.index(root) + len(root) :] if root in path else ""
        if (
            info.get("type") == "directory"
            or not name
            or (prefix.is_local and not os.path.isfile(path))  # noqa: PTH113 - a link to a folder, a pipe, a device
            or any(part.startswith(".") for part in name.split("/"))
        ):
            continue
        if not is_text(name):
            log.warning("%r: its name is no UTF-8. It is left out.", name)
            continue
        place = prefix.child(name)
        if is_no_file(place, info):
            continue
        objects.append(SourceFile(place, int(info.get("size") or 0), version_of(info), None))
    return objects


def open_objects(prefix: Location, objects: list[SourceFile], *, with_text: bool) -> RowTable:
    """Columns ``uri``, ``name`` (below the prefix), ``size_bytes`` and, where asked for, ``text``."""
    schema = pa.schema([*_FIELDS, *([("text", pa.string())] if with_text else [])])
    return RowTable(schema, _read_all(prefix, objects, schema))


def _read_all(prefix: Location, objects: list[SourceFile], schema: pa.Schema) -> Iterator[RowBlock]:
    start = len(prefix.uri.rstrip("/")) + 1
    rows: list[tuple[object, ...]] = []
    problems: dict[int, str] = {}
    size = 0
    for each in objects:
        row: tuple[object, ...] = (each.uri, each.uri[start:], each.size)
        if len(schema) > len(_FIELDS):
            text, problem = _read_text(each)
            if problem:
                problems[len(rows)] = problem
            row = (*row, text)
            size += len(text or "")
        rows.append(row)
        if len(rows) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield RowBlock(_make_batch(rows, schema), problems)
            rows, problems, size = [], {}, 0
    if rows:
        yield RowBlock(_make_batch(rows, schema), problems)


def _make_batch(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(values, column.type) for values, column in zip(columns, schema, strict=True)], schema=schema
    )


def _read_text(file: SourceFile) -> tuple[str | None, str]:
    """The text, and what is wrong with it."""
    if file.size > MAX_TEXT_BYTES:
        return None, f"has {file.size:,} bytes, limit {MAX_TEXT_BYTES:,}"
    try:
        data = file.location.read_at_most(MAX_TEXT_BYTES)
    except FileNotFoundError:
        return None, "is not there any more"
    except OutOfBoundsError:
        return None, "is a link that leads outside"
    except PermissionError as error:
        return None, f"may not be read ({describe_error(error)})"
    if len(data) > MAX_TEXT_BYTES:
        return None, f"has more than {MAX_TEXT_BYTES:,} bytes, the limit"
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode() or None, ""
    except UnicodeDecodeError as error:
        return None, f"is not valid UTF-8 (byte {error.start + 1:,})"
