"""``models.toml``, read once: what is known of models beside what `genai-prices` carries."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

EncodingName = Literal["o200k_base", "cl100k_base"]

_PLACE = Path(__file__).with_name("models.toml")


class _SourcedRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: str
    read: date
    """When the source said so."""


class EncodingRow(_SourcedRow, frozen=True, kw_only=True):
    """How the tokens of models are counted whose names begin like that."""

    prefixes: tuple[str, ...]
    encoding: EncodingName


class ModelRow(_SourcedRow, frozen=True, kw_only=True):
    """Models with the same limits on one request."""

    names: tuple[str, ...]
    output_tokens: int
    context_tokens: int | None = None


class QueueRow(_SourcedRow, frozen=True, kw_only=True):
    """Models with the same limits of an account; from tier 1 to tier 5."""

    names: tuple[str, ...]
    enqueued_tokens: tuple[int, int, int, int, int]
    tokens_per_minute: tuple[int, int, int, int, int]


class EndRow(_SourcedRow, frozen=True, kw_only=True):
    """Models that end on one day."""

    names: tuple[str, ...]
    date: date
    successor: str | None = None


class DrawingRow(_SourcedRow, frozen=True, kw_only=True):
    """Tokens of a picture that models draw whose names begin like that: of a square, and of an oblong one."""

    prefix: str
    low: tuple[int, int]
    medium: tuple[int, int]
    high: tuple[int, int]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    encodings: tuple[EncodingRow, ...]
    models: tuple[ModelRow, ...]
    queues: tuple[QueueRow, ...]
    ends: tuple[EndRow, ...]
    drawings: tuple[DrawingRow, ...]


class ModelTable:
    """The rows by the names of models."""

    def __init__(self, table: _Table) -> None:
        self.encodings = tuple((prefix, row.encoding) for row in table.encodings for prefix in row.prefixes)
        """The first that fits counts."""
        self.models = {name: row for row in table.models for name in row.names}
        self.queues = {name: row for row in table.queues for name in row.names}
        self.ends = {name: row for row in table.ends for name in row.names}
        self.drawings = tuple(sorted(table.drawings, key=lambda row: -len(row.prefix)))
        """The first that fits counts."""


@cache
def read_model_table() -> ModelTable:
    """A small file."""
    return ModelTable(msgspec.toml.decode(_PLACE.read_bytes(), type=_Table))


def find_drawing_row(model: str) -> DrawingRow | None:
    """Of a model that draws pictures; None of one that is not known to."""
    return next((row for row in read_model_table().drawings if model.startswith(row.prefix)), None)
