"""Rows that somebody's code hands out one by one: prompts, or rows as mappings."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.reading.row_table import BLOCK_BYTES, BLOCK_ROWS
from airflow_openai_batch.tables.reading.spool import RawBlock

PROMPT_COLUMN = "prompt"
"""What an item that is a text stands in."""


def read_item_rows(items: Iterable[str | Mapping[str, Any]]) -> Iterator[RawBlock]:
    """The items in blocks, as they come; nothing is asked for ahead.

    :raises ConfigError: for an item that is neither a text nor a mapping with texts as keys.
    """
    rows: list[Mapping[str, Any]] = []
    size = 0
    for number, item in enumerate(items):
        row = {PROMPT_COLUMN: item} if isinstance(item, str) else _check_row(item, number)
        rows.append({name: _keep(value) for name, value in row.items()})
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(rows) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield RawBlock(rows, {})
            rows, size = [], 0
    if rows:
        yield RawBlock(rows, {})


def _keep(value: Any) -> Any:
    """As it is now: whoever yields a row may fill it anew for the next one."""
    if isinstance(value, str | bytes | int | float | None):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # an object of somebody's that cannot be copied, which no request will hold either
        return value


def _check_row(item: object, number: int) -> Mapping[str, Any]:
    if isinstance(item, Mapping) and all(isinstance(name, str) for name in item):
        return item
    kind = (
        "a mapping with keys that are no texts" if isinstance(item, Mapping) else f"a {type(item).__name__}"
    )
    raise ConfigError(
        f"Item {number:,} is {kind}: each must be a prompt (str) or a row (dict with column names as keys)."
    )
