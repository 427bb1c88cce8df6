"""All templates of a prompt, filled in for one row: here where that is harmless, else where limits hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from airflow_openai_batch.tables.prompts.templates import WHOLE_ROW, RowContext, Template, known_names

Texts = dict[str, str]
"""By field of the prompt."""


class Filling:
    """The templates of a prompt over a table.

    :param fields: templates by field.
    :param columns: of the table.
    :raises ConfigError: for a text that is no template.
    """

    def __init__(self, fields: Mapping[str, str], columns: Iterable[str]) -> None:
        columns = list(columns)
        self._templates = [Template(field, text) for field, text in fields.items()]
        self._known = known_names(columns)
        names = frozenset(chain.from_iterable(each.names for each in self._templates))
        self.named = tuple(name for name in columns if name in names)
        """The columns that they name by themselves, not as a key of the row."""
        self._has_row = WHOLE_ROW in names and WHOLE_ROW not in columns
        self.columns = self._find_columns(columns)
        """Those of the table that they look at."""
        self.is_harmless = all(each.is_harmless for each in self._templates)

    def _find_columns(self, columns: list[str]) -> list[str]:
        if not self._has_row:
            return list(self.named)
        if any(each.takes_row for each in self._templates):
            return columns
        wanted = set(self.named).union(*(each.keys for each in self._templates))
        return [name for name in columns if name in wanted]

    def fill(self, number: int, values: Mapping[str, Any]) -> Texts:
        """:raises BadRowError: if the row lacks what they need.
        :raises ConfigError: if no row could have it.
        """
        context = RowContext(values, number, self._known, self.named, whole=self._has_row)
        return {template.field: template.fill(context) for template in self._templates}
