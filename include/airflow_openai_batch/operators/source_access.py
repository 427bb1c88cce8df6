"""The sources of a plan are held to the allowed places each time that they are read, not by the split alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.locations import check_uri, resolve_location

if TYPE_CHECKING:
    from airflow_openai_batch.core.storage import Location


def resolve_source(uri: str) -> Location:
    """A place that a plan names, which is data: whoever can write ``plan.json`` must not read more by it.

    :raises ConfigError: if it may not be read.
    """
    check_uri(uri, "input")
    return resolve_location(uri)
