"""From what a DAG gives as prompt to a prompt spec: a dict, or a YAML file beside the DAGs or in object storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.access.settings import find_shipped
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.storage.sources import explained
from airflow_openai_batch.tables.prompts import MAX_PROMPT_BYTES, PromptSpec, read_prompt
from airflow_openai_batch.tables.prompts.answer_columns import read_answer_columns
from airflow_openai_batch.wording import shorten

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["ANSWER_COLUMNS", "PromptSpec", "find_dag_folder", "load_prompt"]

_ENDINGS = (".yaml", ".yml")
_UNSET = ("", "none", "null")
_STRUCTURED = ("response_schema", "parameters", "images")
ANSWER_COLUMNS = "answer_columns"
"""The short form of ``response_schema`` that fits into a field of the trigger form."""


def find_dag_folder(context: Context) -> Path | None:
    """Where the file of the running DAG lies; ``None`` where it has none."""
    fileloc = getattr(context.get("dag"), "fileloc", None)
    return Path(fileloc).parent if fileloc else None


def load_prompt(
    prompt: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any],
    dag_folder: Path | None,
    giver: Giver = Giver.FORM,
) -> PromptSpec:
    """The prompt spec.

    :param prompt: fields, or where they are: a URI, an absolute path, or one relative to the DAG's folder or the
        folder above that. Where there is none, the one of that file name that comes with this package.
    :param overrides: fields that take the place of those in it; empty ones do not. What a form or a template gives
        as text is read: ``response_schema``, ``parameters`` and ``images`` as JSON, and ``answer_columns`` (see
        `read_answer_columns`) as a ``response_schema``.
    :param giver: who named the prompt. Without it, it may have been whoever triggered the run: a path beside the DAG,
        or a place that is allowed as an input.
    :raises ConfigError: that names the field or where was looked.
    :raises InputError: if the file cannot be read.
    """
    given = _read_overrides(overrides)
    if isinstance(prompt, Mapping):
        return read_prompt(prompt, overrides=given)
    name = str(prompt).strip()
    if not name:
        raise ConfigError("prompt is empty: name a YAML file, or give its fields as a dict.")
    return read_prompt(_read_text(name, dag_folder, giver), overrides=given, where=name)


def _read_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """:raises ConfigError: for what is no JSON, or where the answer's form is said twice."""
    given = {
        name: value
        for name, value in overrides.items()
        if value is not None and not (isinstance(value, str) and value.strip().lower() in _UNSET)
    }
    for name in given.keys() & set(_STRUCTURED):
        if isinstance(given[name], str):
            given[name] = _decode(name, given[name])
    columns = given.pop(ANSWER_COLUMNS, None)
    if columns is not None and given.get("response_schema"):
        raise ConfigError(
            "Both answer_columns and a JSON Schema say what the answer looks like. Keep one of the two."
        )
    if columns is not None:
        given["response_schema"] = read_answer_columns(str(columns))
    return {name: value for name, value in given.items() if value is not None}


def _decode(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name}: is not valid JSON ({error}).") from None


def _read_text(name: str, dag_folder: Path | None, giver: Giver) -> bytes:
    if "://" in name:
        place = open_place(name, "input", giver)
        with explained(name):
            return place.read_at_most(MAX_PROMPT_BYTES)
    shipped = find_shipped("prompts")
    folders = [*_folders(dag_folder), *([] if shipped is None else [shipped])]
    named = Path(name).expanduser()
    beside = [folder / (named.name if folder == shipped else named) for folder in folders]
    candidates = [named] if named.is_absolute() else beside
    is_form = giver is Giver.FORM
    is_beside = is_form and not named.is_absolute() and _may_lie_beside(named)
    for path in candidates:
        if is_form and not is_beside:
            check_uri(str(path), "input", giver)  # before it is said whether it is there
        if _is_file(path):
            place = resolve_plain(str(path)) if is_beside else open_place(str(path), "input", giver)
            return (place.within(tuple(map(os.path.realpath, folders))) if is_beside else place).read_at_most(
                MAX_PROMPT_BYTES
            )
    looked = ", ".join(str(path) for path in candidates)
    way_out = f"Looked at {looked}."
    if named.suffix not in _ENDINGS:  # more likely the prompt itself
        way_out = (
            'To give it in place of a file, give its fields: prompt={"name": ..., "model": ..., "user": ...}.'
        )
    raise ConfigError(f"{shorten(name, 200)}: there is no such prompt file. {way_out}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a name: a text
        return False


def _may_lie_beside(name: Path) -> bool:
    """Beside the DAG a form may name prompts, but nothing else that may lie there."""
    return name.suffix in _ENDINGS and ".." not in name.parts


def _folders(dag_folder: Path | None) -> list[Path]:
    if dag_folder is None:
        return [Path.cwd()]
    return list(dict.fromkeys((dag_folder, dag_folder.parent)))
