"""What a prompt asks beyond what the recipe works with: a property that somebody added is a column of the workbook."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.recipes.cds.rounds import PREPARED, list_rounds
from airflow_openai_batch.tables.join.answer_types import find_free_names
from airflow_openai_batch.tables.preparation import read_manifest

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.json_rows import Row
    from airflow_openai_batch.storage.location import Location


def find_extras(folder: Location, known: Collection[str]) -> list[str]:
    """Properties that the rounds of a folder asked for, those of the last round first.

    :param known: those that have a column already.
    """
    names: dict[str, None] = {}
    for place in reversed(list_rounds(folder)):
        manifest = read_manifest(place.child(PREPARED))
        properties = (manifest.schema or {}).get("properties") if manifest is not None else None
        names |= dict.fromkeys(properties if isinstance(properties, dict) else ())
    return [name for name in names if name not in known]


def take_extras(answer: Row, names: Sequence[str]) -> dict[str, Any]:
    """Their values in a row of answers, as cells hold them."""
    if not names or answer["answer_status"] != "ok":
        return {}
    try:
        said = msgspec.json.decode(answer["answer"] or "")
    except msgspec.DecodeError:
        return {}
    return {name: to_cell(said[name]) for name in names if name in said} if isinstance(said, dict) else {}


def name_columns(names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """The column of each: its own name, or with ``answer_`` before it where the workbook has one of that name."""
    return dict(zip(names, find_free_names(names, taken, "answer_"), strict=True))


def to_cell(value: Any) -> Any:
    """As a workbook holds it."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "; ".join(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
