"""Which models an input begins with: limits go by model, and are needed before the scan."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.job.request_line import READ_ERRORS, read_fields
from airflow_openai_batch.storage.compression import read_blocks

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile

MAX_FILES = 20
"""One block (2 MB at most) of each is read."""


def peek_models(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """Sorted. A model that first comes further down is missed; what is wrong with the input the scan will say."""
    try:
        return tuple(sorted({model for file in files[:MAX_FILES] for model in _peek(file)}))
    except (InputError, OSError):
        return ()


def _peek(file: SourceFile) -> Iterator[str]:
    with file.location.open_read() as stream:
        block = next(read_blocks(stream, file.compression, file.uri), b"")
    for line in block.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        with contextlib.suppress(*READ_ERRORS):  # cut off, blank, or no request
            model = read_fields(line).body.model
            if isinstance(model, str):
                yield model
