"""Typed columns for structured answers: one for each property at the top of the request's JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from airflow_openai_batch.openai_api import lenient_json

_SCALARS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
_REFERENCES = 20
"""A chain of ``$ref`` longer than this leads nowhere."""
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerProperty:
    """One property of a structured answer and the column that it becomes."""

    name: str
    type: pa.DataType
    """``string`` for whatever has no plain type of its own, which then holds JSON text."""
    as_json: bool = False


def find_properties(schema: Mapping[str, Any] | None) -> tuple[AnswerProperty, ...]:
    """The properties at the top of a JSON Schema, in its order; none where it is no object with properties."""
    if not schema:
        return ()
    root = _resolve(schema, schema)
    properties = root.get("properties")
    if not isinstance(properties, Mapping):
        return ()
    return tuple(_to_property(str(name), inner, schema) for name, inner in properties.items())


def _to_property(name: str, inner: Any, root: Mapping[str, Any]) -> AnswerProperty:
    found = _find_type(inner, root)
    if found is None:
        return AnswerProperty(name=name, type=pa.string(), as_json=True)
    return AnswerProperty(name=name, type=found)


def _find_type(inner: Any, root: Mapping[str, Any], *, in_list: bool = False) -> pa.DataType | None:
    """None for what has no column type of its own: objects, lists of lists, several types at once."""
    inner = _resolve(inner, root)
    kinds = _find_kinds(inner, root) - {"null"}  # every column may be null
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    if kind == "array":
        items = None if in_list else _find_type(inner.get("items"), root, in_list=True)
        return None if items is None else pa.list_(items)
    return _SCALARS.get(kind)


def _find_kinds(inner: Mapping[str, Any], root: Mapping[str, Any]) -> set[str]:
    """The types that a value may have; ``anything`` where the schema does not say.

    Each schema is looked at once: one may lead back to itself, or be led to by ever more others.
    """
    kinds: set[str] = set()
    waiting = [inner]
    seen: set[int] = set()
    while waiting:
        schema = waiting.pop()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        own = _find_own_kinds(schema)
        branches = [] if own else [_resolve(branch, root) for branch in _branches(schema)]
        kinds |= own or (set() if branches else {"anything"})
        if "array" in own and schema is not inner:
            kinds.add("anything")  # whose items are those of the branch
        waiting.extend(branches)
    return kinds


def _find_own_kinds(schema: Mapping[str, Any]) -> set[str]:
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, Sequence):
        return {str(each) for each in named}
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return {_kind_of(value) for value in values} if isinstance(values, Sequence) else set()
    return set()


def _branches(inner: Mapping[str, Any]) -> Iterator[Any]:
    for word in ("anyOf", "oneOf"):
        found = inner.get(word)
        if isinstance(found, Sequence):
            yield from found


def _kind_of(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (type(None), "null"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "anything")


def _resolve(inner: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references within the schema; what leads nowhere, or elsewhere, is as good as no schema."""
    for _ in range(_REFERENCES):
        if not isinstance(inner, Mapping):
            return {}
        reference = inner.get("$ref")
        if not isinstance(reference, str):
            return inner
        if not reference.startswith("#"):
            return {}
        found: Any = root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        inner = found
    return {}


@dataclass(slots=True)
class PropertyReader:
    """Turns structured answers into the columns of their properties."""

    properties: tuple[AnswerProperty, ...]
    unfit: int = 0
    """Values that do not fit their column and are null there; ``answer`` has them in full."""
    _convert: list[Callable[[Any], Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._convert = [_to_json if each.as_json else _converter(each.type) for each in self.properties]

    def read(self, parsed: Iterable[str | None]) -> list[pa.Array]:
        """One array for each property.

        :param parsed: answers as JSON text; None where there is no good one.
        """
        decoded = [_decode(text) for text in parsed]
        return [
            pa.array(
                [self._value(answer, each.name, convert) for answer in decoded], each.type, from_pandas=False
            )
            for each, convert in zip(self.properties, self._convert, strict=True)
        ]

    def _value(self, answer: Mapping[str, Any], name: str, convert: Callable[[Any], Any]) -> Any:
        value = answer.get(name)
        if value is None:
            return None
        try:
            return convert(value)
        except (ValueError, OverflowError):
            self.unfit += 1
            return None


def _decode(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        found = lenient_json.read(text).value
    except lenient_json.UnreadableJSONError:  # landed by an earlier release
        return {}
    return found if isinstance(found, dict) else {}


def _to_json(value: Any) -> str:
    return lenient_json.encode(value)


def _converter(kind: pa.DataType) -> Callable[[Any], Any]:
    if pa.types.is_list(kind):
        convert = _converter(kind.value_type)
        return lambda value: _convert_list(value, convert)
    return {
        pa.string(): _to_string,
        pa.int64(): _to_integer,
        pa.float64(): _to_number,
        pa.bool_(): _to_boolean,
    }[kind]


def _convert_list(value: Any, convert: Callable[[Any], Any]) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError
    return [None if item is None else convert(item) for item in value]


def _to_string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _to_integer(value: Any) -> int:
    """1.0 is an integer, too, says JSON Schema."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        raise ValueError
    return value


def _to_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _to_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def find_free_names(wanted: Iterable[str], taken: Iterable[str], prefix: str) -> list[str]:
    """Names that no column has yet, whatever their case: some readers of Parquet do not tell ``Tags`` from ``tags``."""
    used = {name.casefold() for name in taken}
    free = []
    for name in wanted:
        while name.casefold() in used:
            name = prefix + name
        used.add(name.casefold())
        free.append(name)
    return free
