"""Text of documents that strangers made, read in a process that may hang, crash or grow as it likes."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.recipes.qdrant.document_formats import (
    MAX_PARTS,
    MAX_UNPACKED_BYTES,
    DocumentFormat,
    UnreadableError,
    find_format,
)
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.tables.reading.encodings import find_encoding, find_mark

if TYPE_CHECKING:
    from xberg import ExtractionConfig

MAX_TEXT_CHARS = 16 * 2**20
"""Of one document."""
MAX_PAGES = 10_000
_TYPES = {
    DocumentFormat.PDF: "application/pdf",
    DocumentFormat.HTML: "text/html",
    DocumentFormat.DOCX: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    DocumentFormat.PPTX: "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    DocumentFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_HEADERS = ("Subject", "From", "To", "Date")


class Page(msgspec.Struct, frozen=True, array_like=True):
    """A page, slide or sheet; of documents without any, all there is."""

    number: int | None
    text: str


class DocumentText(msgspec.Struct, frozen=True, array_like=True):
    """What came of a document."""

    pages: list[Page] = []
    problem: str = ""
    """Why there is none."""
    notice: str = ""
    """What a person should look at."""


def open_extraction(setup: bytes) -> Callable[[bytes], bytes]:
    """The side of the process: takes a name and the bytes of a document, gives a `DocumentText`."""
    read = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
    encode = msgspec.msgpack.Encoder().encode

    def extract(item: bytes) -> bytes:
        return encode(read_document(*read(item)))

    return extract


def read_document(name: str, data: bytes) -> DocumentText:
    """The text of a document, by pages where it has any, as Markdown where it has headings and tables."""
    try:
        form = find_format(name, data)
        if form is DocumentFormat.TEXT:
            text, notice = _decode(data)
            read = _check([Page(None, text)] if text else [], form)
            return msgspec.structs.replace(read, notice=notice)
        if form is DocumentFormat.EMAIL:
            return _check(_read_email(data), form)
        if form is DocumentFormat.HTML:
            data = _decode(data)[0].encode()
        return _check(_extract(data, form), form)
    except UnreadableError as error:
        return DocumentText(problem=str(error))


def _check(pages: list[Page], form: DocumentFormat) -> DocumentText:
    if sum(len(page.text) for page in pages) > MAX_TEXT_CHARS:
        raise UnreadableError(f"has more than {MAX_TEXT_CHARS:,} characters of text, the limit")
    filled = [page for page in pages if page.text.strip()]
    if pages and not filled and form is DocumentFormat.PDF:
        raise UnreadableError("has no text, only pictures of pages. Have it recognised (OCR) first")
    return DocumentText(filled)


def _decode(data: bytes) -> tuple[str, str]:
    """Text in whatever encoding it was saved, and what should be checked about it.

    :raises UnreadableError: if it is no text.
    """
    try:
        if mark := find_mark(data[:4]):
            return data[len(mark[0]) :].decode(mark[1]), ""
        if b"\0" in data[:4096]:
            raise UnicodeError
        return data.decode(), ""
    except ValueError:
        pass
    try:
        found = find_encoding(data, "")
        if b"\0" not in data:
            damage = ", and some of it is damaged" if found.name == "utf-8" else ""
            return data.decode(
                found.name, "replace" if damage else "strict"
            ), f"was read as {found.name}{damage}"
    except (InputError, UnicodeDecodeError):
        pass
    return _guess(data)


def _guess(data: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    if best is None or "\0" in str(best):
        raise UnreadableError("is neither text nor a format that is read (PDF, DOCX, PPTX, XLSX, HTML, EML)")
    return str(best), f"was read as {best.encoding}, which is a guess"


def _read_email(data: bytes) -> list[Page]:
    """Who wrote what to whom; attachments are named, not read."""
    message = email.message_from_bytes(data, EmailMessage, policy=email.policy.default)
    lines = [f"{name}: {' '.join(str(message[name]).split())}" for name in _HEADERS if message[name]]
    body = message.get_body(("plain", "html"))
    text = ""
    if body is not None:
        try:
            text = str(body.get_content())
        except (LookupError, UnicodeError):
            text = _decode(body.get_payload(decode=True) or b"")[0]  # type: ignore[arg-type]
        if body.get_content_subtype() == "html":
            text = "\n\n".join(
                page.text for page in _extract(text.encode("utf-8", "replace"), DocumentFormat.HTML)
            )
    attached = [name for part in message.iter_attachments() if (name := part.get_filename())]
    if attached:
        text = f"{text.rstrip()}\n\nAttached: {', '.join(attached)}"
    return [Page(None, "\n".join(lines) + "\n\n" + text.strip())]


def _extract(data: bytes, form: DocumentFormat) -> list[Page]:
    """:raises UnreadableError: if the extractor is not there, or gives up."""
    try:
        import xberg
    except ImportError:
        raise UnreadableError(
            f"is {form}: pip install 'airflow-provider-openai-batch[documents]' on every worker"
        ) from None
    source = xberg.ExtractInput(kind="bytes", bytes=data, mime_type=_TYPES[form], filename="document")
    try:
        result = asyncio.run(_run(xberg, source))
    except MemoryError:
        raise
    except BaseException as error:  # whatever it is, it is about this document
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Rust's
            raise
        raise UnreadableError(f"cannot be read as {form} ({describe_error(error)})") from None
    if not result.results:
        raise UnreadableError(f"cannot be read as {form}. It may be damaged, or have a password")
    return list(_read_pages(result.results[0], form))


async def _run(xberg: Any, source: Any) -> Any:
    return await xberg.extract(source, _make_config(xberg))


def _make_config(xberg: Any) -> ExtractionConfig:
    """Nothing is recognised, fetched, kept or run: the text alone."""
    from xberg.options import ContentFilterConfig, ConversionOptions

    config: ExtractionConfig = xberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        output_format="markdown",
        pages=xberg.PageConfig(extract_pages=True),
        html_options=ConversionOptions(extract_metadata=False, skip_images=True),
        content_filter=ContentFilterConfig(include_footnotes=True),
        max_archive_depth=0,
        security_limits=xberg.SecurityLimits(
            max_archive_size=MAX_UNPACKED_BYTES, max_files_in_archive=MAX_PARTS, max_pages=MAX_PAGES
        ),
    )
    return config


def _read_pages(document: Any, form: DocumentFormat) -> Iterator[Page]:
    if form not in (DocumentFormat.PDF, DocumentFormat.PPTX, DocumentFormat.XLSX) or not document.pages:
        yield Page(None, document.content)
        return
    for page in document.pages:
        text = page.content
        if page.sheet_name:
            text = f"## {page.sheet_name}\n\n{text}"
        if page.speaker_notes:
            text = f"{text}\n\n{page.speaker_notes}"
        yield Page(page.page_number, text)
