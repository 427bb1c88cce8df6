"""What a source is, in a few words and a hash, so that another one is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.storage.sources import describe_file
from airflow_openai_batch.tables.preparation.manifest import SourceNote

if TYPE_CHECKING:
    from airflow_openai_batch.tables.reading.open_source import RowFiles

_MOST_NAMED = 20


def note_files(found: RowFiles, named: Sequence[str]) -> SourceNote:
    """Of files: address, size and version of each, and how they are read."""
    digest = hashlib.sha256(
        msgspec.json.encode([found.format, found.delimiter, found.encoding or "utf-8", found.sheet])
    )
    for file in found.files:
        digest.update(msgspec.json.encode([file.uri, file.size, file.etag]))
    return SourceNote(
        kind=found.format,
        named=tuple(named[:_MOST_NAMED]),
        files=len(found.files),
        bytes=sum(file.size for file in found.files),
        sha256=digest.hexdigest(),
    )


def note_query(sql: str, conn_id: str, parameters: Any) -> SourceNote:
    """Of a query: its text and parameters; what it returns is another thing every time."""
    digest = hashlib.sha256(repr((conn_id, sql, parameters)).encode())
    return SourceNote(kind="sql", named=(conn_id,), sha256=digest.hexdigest())


def check_files(found: RowFiles) -> None:
    """:raises InputChangedError: if a file is not what it was when it was listed."""
    if found.prefix is not None:
        return  # each was read once, and the rows are what was read
    for file in found.files:
        now = describe_file(file.location)
        if (now.size, now.etag) != (file.size, file.etag):
            raise InputChangedError(f"{file.uri}: changed while it was read. Run the task again.")
