"""Which format a document is in: by what it begins with, since names lie; and what its container promises."""

from __future__ import annotations

import io
import zipfile
from enum import StrEnum

MAX_PARTS = 10_000
MAX_UNPACKED_BYTES = 256 * 2**20
_HEAD_BYTES = 1024


class DocumentFormat(StrEnum):
    """What can be read."""

    TEXT = "text"
    HTML = "HTML"
    PDF = "PDF"
    DOCX = "DOCX"
    PPTX = "PPTX"
    XLSX = "XLSX"
    EMAIL = "e-mail"

    @property
    def is_office(self) -> bool:
        return self in (DocumentFormat.DOCX, DocumentFormat.PPTX, DocumentFormat.XLSX)


class UnreadableError(Exception):
    """Why nothing was read of a document, in words that follow its name."""


_PARTS = {"word/": DocumentFormat.DOCX, "ppt/": DocumentFormat.PPTX, "xl/": DocumentFormat.XLSX}
_BINARIES = {
    b"\xd0\xcf\x11\xe0": "is an Office file of before 2007, or one with a password. Save it as .docx, .xlsx or .pptx",
    b"\x89PNG": "is a picture",
    b"\xff\xd8\xff": "is a picture",
    b"GIF8": "is a picture",
    b"{\\rtf": "is RTF, which is not read. Save it as .docx",
    b"\x1f\x8b": "is an archive. Unpack it",
}


def find_format(name: str, data: bytes) -> DocumentFormat:
    """The format.

    :param name: tells e-mails and web pages that do not begin as such.
    :raises UnreadableError: if it is none that is read.
    """
    head = data[:_HEAD_BYTES]
    if b"%PDF-" in head:
        return DocumentFormat.PDF
    if head.startswith(b"PK\x03\x04"):
        return _find_office(data)
    for start, reason in _BINARIES.items():
        if head.startswith(start):
            raise UnreadableError(reason)
    ending = name.rpartition(".")[2].lower()
    if ending in ("pdf", "docx", "pptx", "xlsx"):
        raise UnreadableError(f"is named .{ending} and is none. It may be damaged")
    if ending == "eml":
        return DocumentFormat.EMAIL
    if ending in ("html", "htm", "xhtml") or head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(
        (b"<!doctype html", b"<html")
    ):
        return DocumentFormat.HTML
    return DocumentFormat.TEXT


def _find_office(data: bytes) -> DocumentFormat:
    """By its parts, whose sizes are looked at before anything is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise UnreadableError("is a damaged archive") from None
    if len(parts) > MAX_PARTS:
        raise UnreadableError(f"has {len(parts):,} parts, limit {MAX_PARTS:,}")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED_BYTES:
        raise UnreadableError(f"has {unpacked:,} bytes unpacked, limit {MAX_UNPACKED_BYTES:,}")
    names = {part.filename for part in parts}
    if "[Content_Types].xml" in names:
        for folder, found in _PARTS.items():
            if any(name.startswith(folder) for name in names):
                return found
    raise UnreadableError("is an archive. Unpack it")
