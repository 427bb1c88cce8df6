"""Where the rows of a table come from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from airflow_openai_batch.tables.preparation.manifest import SourceNote
    from airflow_openai_batch.tables.reading import RowFiles, RowTable


class FoundSource(NamedTuple):
    """A source that was found and not read yet."""

    note: SourceNote
    open: Callable[[int | None], AbstractContextManager[RowTable]]
    check: Callable[[], None] = lambda: None
    files: RowFiles | None = None
    notices: tuple[str, ...] = ()
