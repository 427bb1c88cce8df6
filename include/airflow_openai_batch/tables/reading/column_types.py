"""Which type each column of a table has whose rows have values of any type: told while the rows are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from airflow_openai_batch.tables.plain_values import NoPlainFormError
from airflow_openai_batch.tables.reading import limits
from airflow_openai_batch.wording import number_of, shorten

MAX_FIELDS = 100
"""Different keys of the objects in one column; with more it is written as JSON text, not as a type with all of them."""
FLOAT_EXACT = 2**53
"""Larger whole numbers have no float of their own."""
_NESTED = frozenset({dict, list})
_LOOKED_INTO = _NESTED | {int}


class ColumnTypes:
    """What was seen of each column so far."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._mixed: set[str] = set()
        self._has_large_int: set[str] = set()
        self._fields: dict[str, set[tuple[str, ...]]] = {}
        self._names: dict[str, None] = {}

    def add_names(self, names: Sequence[str]) -> None:
        """Of a header, whether rows have them or not."""
        self._names.update(dict.fromkeys(names))

    def check_room(self, row: Mapping[str, Any]) -> None:
        """:raises NoPlainFormError: if the row's keys make too many columns."""
        if row.keys() <= self._names.keys():
            return
        new = row.keys() - self._names.keys()
        if len(self._names) + len(new) > limits.MAX_KEYS:
            raise NoPlainFormError(
                f"brings {number_of(len(new), 'key')} beside the {len(self._names):,} of the rows before, limit "
                f"{limits.MAX_KEYS:,} in all. Keys that differ from row to row belong into an object or a list"
            )
        self._names.update(dict.fromkeys(name for name in row if name in new))

    def take(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Look at a block of rows, for which `check_room` was asked."""
        present: dict[str, None] = {}
        for row in rows:
            if not row.keys() <= present.keys():
                present.update(dict.fromkeys(row))
        for name in present:
            self._take_column(name, [row.get(name) for row in rows])

    def _take_column(self, name: str, values: Sequence[Any]) -> None:
        kinds = set(map(type, values))
        if kinds & _NESTED:
            for value in values:
                self._look_into(name, value, ())
        elif int in kinds and _has_large_int(values):
            self._has_large_int.add(name)
        if name not in self._mixed:
            kind = _find_type(values)
            if kind is None:
                self._mixed.add(name)
            else:
                self._note(name, kind)

    def _look_into(self, name: str, value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, list):
            self._look_into_items(name, value, path)
        elif isinstance(value, dict):
            fields = self._fields.setdefault(name, set())
            fields.update((*path, key) for key in value)
            if len(fields) > MAX_FIELDS:
                self._mixed.add(name)  # before Arrow makes a column of each
                return
            for key, item in value.items():
                if type(item) in _LOOKED_INTO:
                    self._look_into(name, item, (*path, key))
        elif type(value) is int and _has_large_int((value,)):
            self._has_large_int.add(name)

    def _look_into_items(self, name: str, items: Sequence[Any], path: tuple[str, ...]) -> None:
        kinds = set(map(type, items))
        if int in kinds and _has_large_int(items):
            self._has_large_int.add(name)
        if kinds & _NESTED:
            for item in items:
                self._look_into(name, item, path)

    def _note(self, name: str, kind: pa.DataType) -> None:
        known = self._types.setdefault(name, kind)
        if not known.equals(kind):
            found = _widen(known, kind)
            if found is None:
                self._mixed.add(name)
            else:
                self._types[name] = found

    @property
    def notices(self) -> tuple[str, ...]:
        """For the log."""
        return tuple(
            f"Column {shorten(name)!r} has objects of more than {MAX_FIELDS} different keys: prompts see them as they "
            "are, tables hold them as JSON text."
            for name, fields in self._fields.items()
            if len(fields) > MAX_FIELDS
        )

    def decide(self) -> tuple[pa.Schema, frozenset[str]]:
        """The columns, and which of them hold texts because nothing else holds all their values."""
        mixed = set(self._mixed)
        mixed |= {name for name in self._has_large_int if name not in mixed and _has_float(self._types[name])}
        fields = []
        for name in self._names:
            kind = self._types.get(name)
            # A column without any value has to have some type, and text is what most readers take.
            is_text = name in mixed or kind is None or pa.types.is_null(kind)
            fields.append((name, pa.string() if is_text else kind))
        return pa.schema(fields), frozenset(mixed)


def _has_large_int(values: Iterable[Any]) -> bool:
    return any(type(value) is int and not -FLOAT_EXACT <= value <= FLOAT_EXACT for value in values)


def _find_type(values: Sequence[Any]) -> pa.DataType | None:
    """None where Arrow or Parquet has none for all of them."""
    try:
        kind = pa.array(values).type
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
        ValueError,
        TypeError,
    ):
        return None
    return kind if _fits_parquet(kind) else None


def _widen(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    booleans = {pa.types.is_boolean(one), pa.types.is_boolean(other)}
    if booleans == {True, False} and not (pa.types.is_null(one) or pa.types.is_null(other)):
        return None  # true is not 1
    fields = [pa.schema([("c", one)]), pa.schema([("c", other)])]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field("c").type
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return None


def _has_float(kind: pa.DataType) -> bool:
    if pa.types.is_floating(kind):
        return True
    return any(_has_float(kind.field(number).type) for number in range(kind.num_fields))


def _fits_parquet(kind: pa.DataType) -> bool:
    """Not what Parquet has no form for (an object without keys), nor what only Arrow knows (a UUID of its own)."""
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_struct(kind) and kind.num_fields == 0:
        return False
    return all(_fits_parquet(kind.field(number).type) for number in range(kind.num_fields))
