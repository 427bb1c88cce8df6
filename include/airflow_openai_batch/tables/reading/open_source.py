"""From what a person names as source to an open table: which files, of which format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.job.inputs import list_sources
from airflow_openai_batch.tables.reading.read_csv import open_csv
from airflow_openai_batch.tables.reading.read_excel import read_excel_rows
from airflow_openai_batch.tables.reading.read_json import read_json_rows
from airflow_openai_batch.tables.reading.read_objects import list_objects, open_objects
from airflow_openai_batch.tables.reading.read_parquet import open_parquet
from airflow_openai_batch.tables.reading.spool import spool_table

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location, Resolver
    from airflow_openai_batch.storage.sources import SourceFile
    from airflow_openai_batch.tables.reading.row_table import RowTable

Format = Literal["auto", "csv", "jsonl", "parquet", "xlsx", "texts", "files"]
"""``texts`` and ``files``: the objects below a prefix, with their content or by their address only."""
FORMATS: tuple[Format, ...] = get_args(Format)

_BY_ENDING: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFiles:
    """The files of a source, found and of one format."""

    format: Format
    files: tuple[SourceFile, ...]
    prefix: Location | None = None
    """What objects were listed below."""
    notices: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding: str = ""
    sheet: str | None = None


def find_row_files(
    source: Sequence[str],
    output: Location,
    resolve: Resolver,
    *,
    format: Format = "auto",
    delimiter: str | None = None,
    encoding: str = "",
    sheet: str | None = None,
    objects_as: Literal["texts", "files"] = "texts",
) -> RowFiles:
    """Find what is to be read.

    :param source: URIs, paths or globs; one that ends in ``/`` is a prefix.
    :param format: ``auto`` goes by the ends of the names.
    :param objects_as: what ``auto`` makes of a prefix.
    :raises ConfigError: if nothing is named, or the format cannot be told or used.
    :raises InputError: for what is missing or may not be read.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format!r}: must be one of {', '.join(FORMATS)}.")
    if not source or not all(uri.strip() for uri in source):
        raise ConfigError(
            "The source is empty: name a file, a list of them, a glob, or a prefix that ends in /."
        )
    if format in ("texts", "files") or (format == "auto" and source[0].strip().endswith("/")):
        return _find_objects(source, output, resolve, objects_as if format == "auto" else format)
    listing = list_sources(source, output, resolve)
    files = _leave_out(output, listing.files)
    if not files:
        raise InputError(f"{source[0]}: no file matches it.")
    found = _find_format(files) if format == "auto" else format
    if delimiter is None and found == "csv" and _plain_name(files[0]).endswith(".tsv"):
        delimiter = "\t"
    return RowFiles(
        format=found,
        files=files,
        notices=listing.notices,
        delimiter=delimiter,
        encoding=encoding,
        sheet=sheet,
    )


def _leave_out(output: Location, files: Sequence[SourceFile]) -> tuple[SourceFile, ...]:
    """Without what was written here: the output may well lie below the source."""
    below = output.path.rstrip("/") + "/"
    same_store = [file for file in files if type(file.location.fs) is type(output.fs)]
    own = {file.uri for file in same_store if file.location.path.startswith(below)}
    return tuple(file for file in files if file.uri not in own)


def _find_objects(source: Sequence[str], output: Location, resolve: Resolver, format: Format) -> RowFiles:
    if len(source) != 1:
        raise ConfigError(f"source names {len(source):,} prefixes; name one.")
    prefix = resolve(source[0].strip())
    return RowFiles(format=format, files=_leave_out(output, list_objects(prefix)), prefix=prefix)


def _find_format(files: Sequence[SourceFile]) -> Format:
    formats: dict[Format, str] = {}
    for file in files:
        name = _plain_name(file)
        known = next((found for ending, found in _BY_ENDING.items() if name.endswith(ending)), None)
        if known is None:
            raise ConfigError(
                f"{file.uri}: its name does not tell what it is (known are {', '.join(_BY_ENDING)}). Set format."
            )
        if known in ("parquet", "xlsx") and file.compression:
            raise ConfigError(f"{file.uri}: is compressed as a whole, which {known} is by itself. Unpack it.")
        formats.setdefault(known, file.uri)
    if len(formats) > 1:
        raise ConfigError(f"The source mixes formats: {', '.join(formats.values())}. Prepare one at a time.")
    return next(iter(formats))


def _plain_name(file: SourceFile) -> str:
    name = file.location.path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name


@contextlib.contextmanager
def open_row_files(found: RowFiles, *, max_rows: int | None = None) -> Iterator[RowTable]:
    """The rows of the files as a table.

    :param max_rows: that are wanted; what has to be read before its types are known is read so far only.
    :raises ConfigError: if what reads them is not installed.
    :raises InputError: for a file that is not what it seems.
    """
    if found.prefix is not None:
        yield open_objects(found.prefix, list(found.files), with_text=found.format == "texts")
    elif found.format == "csv":
        yield open_csv(found.files, delimiter=found.delimiter, encoding=found.encoding)
    elif found.format == "parquet":
        yield open_parquet(found.files)
    else:
        notices: list[str] = []
        if found.format == "jsonl":
            blocks = read_json_rows(found.files)
        else:
            blocks = read_excel_rows(found.files, found.sheet, notices)
        with spool_table(blocks, notices, max_rows=max_rows) as table:
            yield table
