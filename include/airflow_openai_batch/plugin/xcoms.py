"""Values of XComs as the tasks pushed them, wherever Airflow keeps them.

With a backend of its own (``[core] xcom_backend``), for instance that of the provider common.io, Airflow's database has
only the path of a file.
"""

from __future__ import annotations

import functools
import logging
from types import SimpleNamespace
from typing import Any

from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.xcom import resolve_xcom_backend

log = logging.getLogger(__name__)

MOST_REMEMBERED = 4_096


def has_own_backend() -> bool:
    """Whether values may lie elsewhere than in the database."""
    return find_backend() is not BaseXCom


def find_backend() -> Any:
    """The class that reads values."""
    return resolve_xcom_backend()  # type: ignore[no-untyped-call]


def read_value(row: Any) -> Any:
    """Of a row with the columns ``value`` and ``timestamp``; ``None`` where it cannot be read."""
    told = XComModel.deserialize_value(row)
    if not isinstance(told, str) or not has_own_backend():
        return told
    return _read_elsewhere(told, row.timestamp)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _read_elsewhere(text: str, written_at: Any) -> Any:
    """Once for each push: a page asks for the same jobs all the time."""
    try:
        return find_backend().deserialize_value(SimpleNamespace(value=text))
    except Exception as error:
        # The text may quote what a secrets backend said.
        log.warning("An XCom cannot be read through %s (%s).", find_backend().__name__, type(error).__name__)
        log.debug("The reason:", exc_info=True)
        return None
