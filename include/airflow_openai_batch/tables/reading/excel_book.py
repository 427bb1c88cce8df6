"""A workbook opened for reading, with bounds on what its parts may come to in memory."""

from __future__ import annotations

import contextlib
import importlib
import re
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.storage.sources import explained
from airflow_openai_batch.tables.reading import limits

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")


class Sheet(NamedTuple):
    """A sheet and what is needed to read its cells."""

    archive: Archive
    part: str
    strings: SharedStrings
    epoch: Any
    date_styles: frozenset[int]
    duration_styles: frozenset[int]


@contextlib.contextmanager
def open_sheet(file: SourceFile, sheet: str | None) -> Iterator[Sheet]:
    """:param sheet: by name; the first by default.
    :raises ConfigError: if the extra ``tables`` is not installed.
    :raises InputError: for what is no workbook, has no such sheet, or breaks a limit.
    """
    try:
        excel = importlib.import_module("openpyxl.reader.excel")
    except ImportError:
        raise ConfigError(
            "Excel workbooks need openpyxl: pip install 'airflow-provider-openai-batch[tables]' on the workers."
        ) from None
    with explained(file.uri):
        opened = file.location.open_read()
    with opened, _open_archive(file.uri, opened) as archive:
        yield _read_book(excel, archive, sheet)


def damaged(uri: str, error: Exception) -> InputError:
    return InputError(
        f"{uri}: is no Excel workbook (.xlsx), or is damaged or encrypted ({type(error).__name__}). Save it as .xlsx."
    )


def unescape(text: str) -> str:
    """With the characters that a workbook writes as ``_x000D_``, since XML cannot hold them."""
    if "_x" not in text:
        return text
    found = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    # Two halves of one character may have been written apart.
    return found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class SharedStrings:
    """The texts that cells refer to by number. Kept as UTF-8, since one emoji makes a text four times as large."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._texts: list[bytes] = []

    def __getitem__(self, number: int) -> bytes:
        if number < 0:
            raise IndexError(number)
        return self._texts[number]

    def read(self, source: Any) -> None:
        """:raises InputError: if they are too many."""
        root: Any = None
        depth = elements = 0
        for event, element in _iterparse(source):
            if event == "start":
                root = element if depth == 0 else root
                depth += 1
                elements += 1
                if elements > limits.MAX_ROW_ELEMENTS:
                    raise InputError(
                        f"{self._uri}: a text that its cells share has more than {limits.MAX_ROW_ELEMENTS:,} pieces, "
                        "the limit. Save it as .csv."
                    )
                continue
            depth -= 1
            if depth == 1:
                if element.tag == f"{MAIN}si":
                    self._add(read_text(element))
                root.clear()
                elements = 0

    def _add(self, text: str) -> None:
        if len(self._texts) >= limits.MAX_SHARED_STRINGS:
            raise InputError(
                f"{self._uri}: its cells share more than {limits.MAX_SHARED_STRINGS:,} texts, the limit. Save it as "
                ".csv, or cut it into several workbooks."
            )
        self._texts.append(text.encode("utf-8", "replace"))


def read_text(element: Any) -> str:
    """What a text element says, its formatted pieces joined; readings of Japanese beside it are no part of it."""
    pieces = []
    for child in element:
        text = (
            child if child.tag == f"{MAIN}t" else child.find(f"{MAIN}t") if child.tag == f"{MAIN}r" else None
        )
        if text is not None and text.text:
            pieces.append(text.text)
    return unescape("".join(pieces))


def _iterparse(source: Any) -> Iterator[tuple[str, Any]]:
    """As openpyxl does it: by expat, which bounds what entities come to."""
    from openpyxl.xml.functions import iterparse

    yield from iterparse(source, events=("start", "end"))


def _read_book(excel: Any, archive: Archive, name: str | None) -> Sheet:
    try:
        reader = excel.ExcelReader(archive.fp, read_only=True, data_only=True)
        reader.archive = archive
        reader.read_manifest()
        reader.read_workbook()
        part = _find_part(reader, archive.uri, name)
        excel.apply_stylesheet(archive, reader.wb)
        return Sheet(
            archive,
            part,
            _read_strings(excel, reader, archive),
            reader.wb.epoch,
            frozenset(reader.wb._date_formats),
            frozenset(reader.wb._timedelta_formats),
        )
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what openpyxl raises for damaged files is not listed anywhere
        if isinstance(error, OSError) and error.errno is not None:
            with explained(archive.uri):
                raise
        raise damaged(archive.uri, error) from None


def _find_part(reader: Any, uri: str, name: str | None) -> str:
    """Where the sheet lies in the archive; sheets of charts have no cells."""
    parts = {
        sheet.name: str(place.target)
        for sheet, place in reader.parser.find_sheets()
        if place.target in reader.valid_files and "chartsheet" not in place.Type
    }
    if not parts:
        raise InputError(f"{uri}: has no sheet with cells.")
    if name is not None and name not in parts:
        raise InputError(f"{uri}: has no sheet {name!r}; it has {', '.join(parts)}.")
    return next(iter(parts.values())) if name is None else parts[name]


def _read_strings(excel: Any, reader: Any, archive: Archive) -> SharedStrings:
    strings = SharedStrings(archive.uri)
    found = reader.package.find(excel.SHARED_STRINGS)
    if found is not None:
        with archive.open_large(found.PartName[1:], limits.MAX_SHARED_STRINGS_BYTES) as source:
            strings.read(source)
    return strings


@contextlib.contextmanager
def _open_archive(uri: str, opened: Any) -> Iterator[Archive]:
    try:
        archive = Archive(opened)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise damaged(uri, error) from None
    archive.uri = uri
    with archive:
        if (count := len(archive.infolist())) > limits.MAX_PARTS:
            raise InputError(
                f"{uri}: has {count:,} files in it, limit {limits.MAX_PARTS:,}. Save it again in Excel."
            )
        yield archive


class Archive(zipfile.ZipFile):
    """Parts are as long as the directory says, or shorter: that much is never exceeded while one is read."""

    uri = ""

    def open(self, name: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        return self.open_large(name, limits.MAX_PART_BYTES)

    def open_large(self, name: Any, max_bytes: int | None) -> Any:
        """:raises InputError: if the part is longer, unpacked."""
        info = name if isinstance(name, zipfile.ZipInfo) else self.getinfo(name)
        if max_bytes is not None and info.file_size > max_bytes:
            raise InputError(
                f"{self.uri}: {info.filename} in it has {info.file_size:,} bytes unpacked, limit {max_bytes:,}. Save "
                "the sheet as .csv, or in a workbook of its own."
            )
        return super().open(info)
