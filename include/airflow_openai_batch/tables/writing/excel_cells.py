"""What Excel asks of a text in a cell, and of a workbook on its way to object storage."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.writing.formulas import may_run

if TYPE_CHECKING:
    from openpyxl import Workbook

MAX_CELL_CHARS = 32_767
"""UTF-16 units in one cell. Source: "Excel specifications and limits"."""
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_ERROR_SIGN = "#"
"""Openpyxl takes some texts that begin with it for errors, as it takes those with = for formulas; Excel does the same
with all signs of a formula when the cell is edited."""


def check_installed() -> None:
    """:raises ConfigError: if openpyxl is missing."""
    if importlib.util.find_spec("openpyxl") is None:
        raise ConfigError(
            "format=xlsx needs openpyxl: pip install 'airflow-provider-openai-batch[tables]', or choose another format."
        )


def replace_controls(text: str) -> str:
    """With U+FFFD for what a workbook cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", text) if _NOT_IN_XML.search(text) else text


def count_units(text: str) -> int:
    """UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


def is_too_long(text: str) -> bool:
    """Whether no cell holds it."""
    return len(text) > MAX_CELL_CHARS // 2 and count_units(text) > MAX_CELL_CHARS


def cut_text(text: str) -> str:
    """What a cell holds of it; its end shows that there was more."""
    return text.encode("utf-16-le")[: 2 * (MAX_CELL_CHARS - 1)].decode("utf-16-le", "ignore") + "\u2026"


def to_text_cell(sheet: Any, text: str) -> Any:
    """A cell that says of itself that it is text, where Excel would run it; else the text."""
    if not text.startswith(_ERROR_SIGN) and not may_run(text):
        return text
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, text)
    cell.data_type = "s"
    cell.quotePrefix = True
    return cell


def save_book(book: Workbook, file: BinaryIO) -> None:
    """By way of a temporary file: an object store's file cannot go back, as an archive does."""
    with tempfile.TemporaryFile() as whole:
        book.save(whole)
        whole.seek(0)
        shutil.copyfileobj(whole, file, 1 << 20)
