"""Answer columns as a person types them, one per line, and the JSON Schema that they stand for.

::

    mood: one of Positive, Negative, Neutral
    stars (integer): 1 to 5
    tags (list): 3 to 5 topics, lower case
"""

from __future__ import annotations

import re
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.wording import shorten

_LINE = re.compile(r"(?P<name>[^:()]+?)\s*(?:\(\s*(?P<kind>[^)]*?)\s*\))?\s*(?::\s*(?P<what>.*))?")
_TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
}
_ONE_OF = re.compile(r"one of\s+(.+)", re.IGNORECASE)
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?) to (-?\d+(?:\.\d+)?)\b.*", re.IGNORECASE)
_MOST_COLUMNS = 100


def read_answer_columns(text: str) -> dict[str, Any]:
    """The schema of an object with these columns.

    A line is a name, a type in brackets where it is not ``text`` (``integer``, ``number``, ``boolean``, ``list``), and
    after a colon what is wanted, which the model reads. A text that is ``one of A, B, C`` is held to these, a number
    that is ``1 to 5`` to that range.

    :raises ConfigError: that names the line, for what cannot be read.
    """
    properties: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, schema = _read_line(line.strip(), f"answer_columns, line {number}")
        if name in properties:
            raise ConfigError(f"answer_columns, line {number}: {shorten(name)!r} stands there twice.")
        properties[name] = schema
    if not 1 <= len(properties) <= _MOST_COLUMNS:
        raise ConfigError(f"answer_columns names {len(properties):,} columns: must be 1 to {_MOST_COLUMNS}.")
    return {"type": "object", "properties": properties}


def _read_line(line: str, where: str) -> tuple[str, dict[str, Any]]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ConfigError(f"{where}: must look like  stars (integer): 1 to 5  or  mood: one of good, bad.")
    kind = (found["kind"] or "text").lower()
    if kind not in _TYPES:
        raise ConfigError(f"{where}: ({shorten(kind, 40)}) must be one of {', '.join(_TYPES)}.")
    schema = dict(_TYPES[kind])
    what = (found["what"] or "").strip()
    choices = _ONE_OF.fullmatch(what)
    if choices and kind == "text":
        schema["enum"] = list(
            dict.fromkeys(filter(None, (each.strip(" .") for each in choices[1].split(","))))
        )
    elif what:
        schema["description"] = what
    if kind in ("integer", "number") and (bounds := _RANGE.fullmatch(what)):
        read = int if kind == "integer" and "." not in bounds[1] + bounds[2] else float
        low, high = read(bounds[1]), read(bounds[2])
        if low > high:
            raise ConfigError(f"{where}: {low:g} to {high:g} holds no number: the smaller one comes first.")
        schema |= {"minimum": low, "maximum": high}
    return found["name"].strip(), schema
