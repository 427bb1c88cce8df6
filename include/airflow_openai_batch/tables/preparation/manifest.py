"""``manifest.json`` of a prepared directory: written last, so that what it describes is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import JobError

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
ROWS = "rows"
SCHEMA_VERSION = 1


class PromptNote(msgspec.Struct, frozen=True, kw_only=True):
    """Which prompt it was."""

    name: str
    version: str
    sha256: str


class SourceNote(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. Of many files the first are named."""

    kind: str
    """``csv``, ``jsonl``, ``parquet``, ``xlsx``, ``texts``, ``files`` or ``sql``."""
    named: tuple[str, ...]
    """As the person wrote it; of a query its connection."""
    files: int = 0
    bytes: int = 0
    sha256: str
    """Of addresses, sizes and versions of the files; of the query and its parameters."""


class PreparationCounts(msgspec.Struct, frozen=True, kw_only=True):
    """``rows`` is ``rejected`` plus those that a request answers."""

    rows: int
    requests: int
    rejected: int
    duplicates: int
    """Rows that the request of an earlier one answers."""


class FileNote(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the directory, by its name in it."""

    name: str
    items: int
    """Requests or rows."""
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to know of a prepared directory without reading its files."""

    schema_version: int = SCHEMA_VERSION
    created_at: float
    """Unix seconds."""
    created_by: str = ""
    """The run that wrote it (``dag_id/run_id``); empty in those of older releases."""
    prompt: PromptNote
    source: SourceNote
    options_sha256: str
    """Of what else decides which requests are made: dedupe, images_root."""
    model: str
    endpoint: str
    """``/v1/chat/completions``"""
    schema: dict[str, Any] | None = None
    """The JSON Schema that the answers were asked to keep, as it was sent."""
    columns: tuple[str, ...]
    """Of the source, in its order."""
    counts: PreparationCounts
    requests: tuple[FileNote, ...]
    rows: tuple[FileNote, ...]

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)


def request_file(number: int) -> str:
    return f"requests-{number:05d}.jsonl"


def row_file(number: int) -> str:
    return f"{ROWS}/part-{number:05d}.parquet"


def read_manifest(output: Location) -> Manifest | None:
    """The manifest of a prepared directory; None where nothing has been prepared.

    :raises JobError: if it is none of ours, or of a newer release.
    """
    place = output.child(MANIFEST)
    output.fs.invalidate_cache()
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        return None
    try:
        version = msgspec.json.decode(data, type=_ManifestVersion).schema_version
        if version > SCHEMA_VERSION:
            raise JobError(
                f"{place.uri}: has schema version {version}, this release reads up to {SCHEMA_VERSION}. "
                "Upgrade airflow-provider-openai-batch where this task runs."
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise _make_foreign_error(place, str(error)) from error
    for notes, name_of in ((manifest.requests, request_file), (manifest.rows, row_file)):
        for number, note in enumerate(notes):
            if note.name != name_of(number):  # it becomes a path
                raise _make_foreign_error(place, f"it names {note.name[:100]!r}")
    return manifest


def _make_foreign_error(place: Location, why: str) -> JobError:
    return JobError(
        f"{place.uri}: is there but is no manifest of this package ({why}). Use an empty output directory."
    )


class _ManifestVersion(msgspec.Struct):
    schema_version: int
