"""What ``[openai_batch]`` of Airflow's configuration says; read anew each time, since tests and tasks change it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from airflow.providers.common.compat.sdk import conf

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.result_bound import MAX_RESULT_BYTES

SECTION = "openai_batch"
_BINDS_ALL = frozenset({"allowed_input_roots", "allowed_output_roots", "allowed_conn_ids"})
"""What holds for the authors of DAGs as well, once it is set."""
_PACKAGE = Path(__file__).resolve().parents[1]


def read_list(option: str) -> list[str]:
    """A comma-separated option; empty where it is unset."""
    value = conf.get(SECTION, option, fallback="") or ""
    return [item.strip() for item in value.split(",") if item.strip()]


def lands_in_triggerer() -> bool:
    """Whether small shards become rows in the triggerer, without another worker: unless somebody has said no."""
    return bool(conf.getboolean(SECTION, "land_in_triggerer", fallback=True))


def find_max_result_bytes() -> int:
    """What no result file and no video may have more of.

    :raises ConfigError: for what is no such number.
    """
    said = str(conf.get(SECTION, "max_result_bytes", fallback="") or "").strip()
    if not said:
        return MAX_RESULT_BYTES
    if not (said.isdecimal() and int(said) > 0):
        raise ConfigError(
            f"[openai_batch] max_result_bytes = {said[:100]}: must be a number of bytes, such as {MAX_RESULT_BYTES}."
        )
    return int(said)


def find_max_map_length() -> int:
    """As many tasks Airflow maps over one output."""
    return int(conf.getint("core", "max_map_length", fallback=1024))


def find_output_root() -> str:
    """Where job directories lie that nobody named: below ``[openai_batch] output_root``, or ``$AIRFLOW_HOME``."""
    return str(conf.get(SECTION, "output_root", fallback="") or find_home_root()).rstrip("/")


def find_home_root() -> str:
    """What ``output_root`` is where nobody says."""
    home = os.environ.get("AIRFLOW_HOME", str(Path.home() / "airflow"))
    return f"file://{home}/openai_batch"


def find_input_roots() -> list[str]:
    """What forms may name as input where no list says more: ``input_root``, what jobs wrote, the samples."""
    samples = find_samples()
    return [*read_list("input_root"), find_output_root(), *([samples] if samples else [])]


def find_samples() -> str | None:
    """The folder of the shipped samples, where there is one."""
    found = find_shipped("samples")
    return None if found is None else str(found)


def find_shipped(name: Literal["prompts", "samples"]) -> Path | None:
    """A folder that comes with the DAGs: in a wheel it lies in the package, in a checkout beside it."""
    return next((each for each in (_PACKAGE / name, _PACKAGE.parent / name) if each.is_dir()), None)


def find_books_folder(conn_id: str) -> str:
    """Where the book of a connection's months lies: below ``[openai_batch] books_root``, or where jobs do by default.

    All workers must share it, whatever storage their jobs are in.
    """
    root = str(conf.get(SECTION, "books_root", fallback="") or find_output_root()).rstrip("/")
    return f"{root}/.books/{re.sub(r'[^A-Za-z0-9_.-]', '-', conn_id)}"


def describe_option(option: str, *more: str) -> str:
    """How to add to a list: the whole line as it has to be, and where it goes.

    What is in force says where: a variable of the environment wins over the file, and a second line of one name is an
    error of the file.
    """
    variable, value = f"AIRFLOW__{SECTION.upper()}__{option.upper()}", ", ".join([*read_list(option), *more])
    line = f"  {option} = {value.replace('%', '%%')}"  # a sign of its own in this file
    if variable in os.environ:
        way = (
            f"change the environment variable {variable}, which is set here and wins over airflow.cfg, on all "
            f"components to:  {variable}={value!r}"
        )
    elif read_list(option):
        way = f"change this line of airflow.cfg, on all components, in the section [{SECTION}]:{line}"
    else:
        way = (
            f"add to airflow.cfg, in the section [{SECTION}]:{line}  (or set the environment variable "
            f"{variable}={value!r} on all components)"
        )
    return f"To allow it, {way}.{describe_reach(option)}"


def describe_reach(option: str) -> str:
    """Whom a list binds, where that is more than forms; begins with a blank."""
    if option not in _BINDS_ALL:
        return ""
    when = "binds" if read_list(option) else "then binds"
    return f" This list {when} all DAGs, also what their authors name in code."
