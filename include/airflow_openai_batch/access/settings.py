"""What ``[openai_batch]`` of Airflow's configuration says; read anew each time, since tests and tasks change it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from airflow.providers.common.compat.sdk import conf

SECTION = "openai_batch"
_SAMPLES = Path(__file__).resolve().parents[2] / "samples"
"""Beside the package in a checkout; a wheel brings none."""


def read_list(option: str) -> list[str]:
    """A comma-separated option; empty where it is unset."""
    value = conf.get(SECTION, option, fallback="") or ""
    return [item.strip() for item in value.split(",") if item.strip()]


def find_output_root() -> str:
    """Where job directories lie that nobody named: below ``[openai_batch] output_root``, or ``$AIRFLOW_HOME``."""
    return str(conf.get(SECTION, "output_root", fallback="") or find_home_root()).rstrip("/")


def find_home_root() -> str:
    """What ``output_root`` is where nobody says."""
    home = os.environ.get("AIRFLOW_HOME", str(Path.home() / "airflow"))
    return f"file://{home}/openai_batch"


def find_input_roots() -> list[str]:
    """What forms may name as input where no list says more: ``input_root``, what jobs wrote, the samples."""
    samples = [str(_SAMPLES)] if _SAMPLES.is_dir() else []
    return [*read_list("input_root"), find_output_root(), *samples]


def find_books_folder(conn_id: str) -> str:
    """Where the book of a connection's months lies: below ``[openai_batch] books_root``, or where jobs do by default.

    All workers must share it, whatever storage their jobs are in.
    """
    root = str(conf.get(SECTION, "books_root", fallback="") or find_output_root()).rstrip("/")
    return f"{root}/.books/{re.sub(r'[^A-Za-z0-9_.-]', '-', conn_id)}"


def describe_option(option: str, value: str) -> str:
    """The line to add to Airflow's configuration, and the same as a variable of the environment."""
    variable = f"AIRFLOW__{SECTION.upper()}__{option.upper()}"
    return (
        f"To allow it, add to airflow.cfg, in the section [{SECTION}]:  {option} = {value}  (or set the environment "
        f"variable {variable}={value!r} on all components)."
    )
