"""A library's catalogue in a file: a table of records, as it was exported."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_openai_batch.access.locations import make_resolver, open_place
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.cd_covers import FIELDS, Cover, fold
from airflow_openai_batch.tables.reading import find_row_files, open_row_files
from airflow_openai_batch.tables.reading.row_table import read_rows
from airflow_openai_batch.wording import name_some, number_of

if TYPE_CHECKING:
    from airflow_openai_batch.access.givers import Giver

ID = "id"
_NAMED = 3
"""Records that are left out, with the reason."""

log = logging.getLogger(__name__)


class FileCatalogue:
    """All records in memory: about 1 KB each. For trying, and for catalogues of some ten thousand."""

    def __init__(self) -> None:
        self._records: list[tuple[str, Cover]] = []
        self._by_word: dict[str, list[int]] = {}

    @classmethod
    def read(cls, uri: str, giver: Giver, columns: Mapping[str, str]) -> FileCatalogue:
        """:param uri: of a CSV, JSON Lines, Parquet or Excel file.
        :param columns: what ``id`` and the fields of a `Cover` are called in it; as they are called here by default.
        :raises ConfigError: if it lacks the id, or both title and artist.
        :raises InputError: if it cannot be read.
        """
        catalogue = cls()
        written = open_place(uri, "input", giver).child("none")  # nothing of ours lies below a file
        found = find_row_files([uri], written, make_resolver("input", giver))
        first_unread: list[str] = []
        rows = unread = 0
        with open_row_files(found) as table:
            names = {name: columns.get(name, name) for name in (ID, *FIELDS)}
            _check_columns(uri, names, table.schema.names)
            for block in table.blocks:
                for at, row in enumerate(read_rows(block, table.schema.names)):
                    record = {name: row.get(column) for name, column in names.items()}
                    identity = record.pop(ID)
                    rows += 1
                    if at in block.problems or identity in (None, ""):
                        unread += 1
                        if len(first_unread) < _NAMED:
                            first_unread.append(f"record {rows:,}: {block.problems.get(at, 'has no id')}")
                    else:
                        catalogue.add(str(identity), Cover.from_record(record))
        if unread:
            log.warning("%s: %s left out. %s.", uri, number_of(unread, "record"), "; ".join(first_unread))
        return catalogue

    def add(self, identity: str, record: Cover) -> None:
        for word in fold(record.title) | fold(record.artist):
            self._by_word.setdefault(word, []).append(len(self._records))
        self._records.append((identity, record))

    def search(self, read: Cover) -> Iterator[tuple[str, Cover]]:
        """Every record that shares a word with title or artist."""
        numbers = {
            number for word in fold(read.title) | fold(read.artist) for number in self._by_word.get(word, ())
        }
        for number in sorted(numbers):
            yield self._records[number]

    def __enter__(self) -> FileCatalogue:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _check_columns(uri: str, names: Mapping[str, str], there: list[str]) -> None:
    missing = [column for column in names.values() if column not in there]
    if names[ID] in missing or {names["title"], names["artist"]} <= set(missing):
        raise ConfigError(
            f"{uri}: has no column {' and '.join(missing)}; there are {name_some(there)}. Say in CATALOGUE_COLUMNS of "
            "the DAG which of them is what: id, and title or artist, are needed."
        )
    if missing:
        log.warning("%s: has no column %s; nothing is known of these.", uri, " and ".join(missing))
