"""How much a JSON schema can ask of whoever checks against it: told from the schema alone, in little time.

References make a schema larger than its text: thirty that lead to two each are a thousand million. What is beyond the
bounds is not checked against; what is simple is checked where it is needed, and everything else in a process with
limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from airflow_openai_batch.requests import json_schema

MAX_SCHEMA_BYTES = 1_000_000
"""Of its JSON. OpenAI takes 120,000 characters of names and values."""
MAX_SCHEMA_LEVELS = 100
"""Objects and lists within each other, fifty levels of properties; OpenAI takes ten. And references in a row."""
MAX_SUBSCHEMAS = 100_000
"""With every reference followed; OpenAI takes 5,000 properties."""
SIMPLE_SUBSCHEMAS = 1_000
"""With every reference followed, of a schema that is checked against without limits."""

_SIMPLE_KEYWORDS = frozenset({
    "$schema", "$id", "$comment", "$defs", "definitions", "$ref", "$anchor", "title", "description", "default",
    "examples", "deprecated", "readOnly", "writeOnly", "format", "type", "enum", "const", "properties", "required",
    "additionalProperties", "propertyNames", "minProperties", "maxProperties", "items", "prefixItems", "minItems",
    "maxItems", "anyOf", "allOf", "oneOf", "not", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minLength", "maxLength", "strict", "nullable", "contains", "minContains", "maxContains", "if",
    "then", "else", "dependentRequired", "dependentSchemas", "pattern",
})  # fmt: skip
"""All but what compares items of a list with each other. Of ``pattern`` see `_is_plain_pattern`."""
_NOT_PLAIN = re.compile(r"\(\?(?![:P<])|\(\?<[=!]|\\[1-9k]")
"""Looking ahead and behind, and referring back: with these an engine has to try again and again."""
_MAX_PLAIN_PATTERN = 200
_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
"""Keywords whose keys are names of a person's own."""
_VALUES = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose values are no schemas."""


class SchemaBoundsError(ValueError):
    """The schema is beyond a bound. The message names it."""


class SchemaSize(NamedTuple):
    """What a schema asks for."""

    subschemas: int
    """With every reference followed, and every value that is listed."""
    is_simple: bool
    """Whether a check takes time and memory in proportion to the answer, and little."""


def measure_schema(schema: Any) -> SchemaSize:
    """:raises SchemaBoundsError: if it is beyond a bound."""
    _check_levels(schema)
    walk = _Walk(schema)
    size = walk.count(schema, 0)
    return SchemaSize(size, walk.is_simple and size <= SIMPLE_SUBSCHEMAS)


def check_schema_bytes(size: int) -> None:
    """:raises SchemaBoundsError: if its JSON is too long."""
    if size > MAX_SCHEMA_BYTES:
        raise SchemaBoundsError(f"has {size:,} bytes, limit {MAX_SCHEMA_BYTES:,}")


def _check_levels(schema: Any) -> None:
    level = [schema]
    for _ in range(MAX_SCHEMA_LEVELS):
        level = [inner for each in level for inner in _children(each) if isinstance(inner, (dict, list))]
        if not level:
            return
    raise SchemaBoundsError(f"is nested more than {MAX_SCHEMA_LEVELS} levels deep, the limit")


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


class _Walk:
    """Over the schemas within a schema, each counted once and taken as often as it is referred to."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()
        self.is_simple = True

    def count(self, schema: Any, depth: int) -> int:
        """:raises SchemaBoundsError: if there are too many, or references lead too far."""
        if not isinstance(schema, dict):
            return 1
        if id(schema) in self._open:  # it refers to itself: as often as the answer is deep
            self.is_simple = False
            return 1
        if (known := self._sizes.get(id(schema))) is not None:
            return known
        if depth > 2 * MAX_SCHEMA_LEVELS:
            raise SchemaBoundsError(f"has more than {MAX_SCHEMA_LEVELS} references in a row, the limit")
        self._open.add(id(schema))
        self.is_simple &= _SIMPLE_KEYWORDS.issuperset(schema) and _is_plain_pattern(schema.get("pattern", ""))
        size = 1 + sum(self.count(each, depth + 1) for each in self._find_inner(schema))
        if size > MAX_SUBSCHEMAS:
            raise SchemaBoundsError(
                f"comes to more than {MAX_SUBSCHEMAS:,} schemas with its references followed, the limit"
            )
        self._open.discard(id(schema))
        self._sizes[id(schema)] = size
        return size

    def _find_inner(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        for keyword, value in schema.items():
            if keyword == "$ref":
                yield self._resolve(value)
            elif keyword in _NAMED and isinstance(value, dict):
                # Definitions count where they are referred to.
                yield from () if keyword in ("$defs", "definitions") else value.values()
            elif keyword in _VALUES:
                # Each of them may be compared.
                yield from (None for _ in value) if isinstance(value, list) else ()
            elif isinstance(value, list):
                yield from value
            elif isinstance(value, dict):
                yield value

    def _resolve(self, reference: Any) -> Any:
        found = resolve_pointer(self._root, reference)
        if not isinstance(found, (dict, bool)):
            self.is_simple = False  # by an anchor or an address
        return found


def _is_plain_pattern(pattern: Any) -> bool:
    """Whether the engine at hand matches it in time that grows with the text alone: jsonschema-rs does, mostly."""
    if pattern == "":
        return True
    is_short = isinstance(pattern, str) and len(pattern) <= _MAX_PLAIN_PATTERN
    return json_schema.jsonschema_rs is not None and is_short and _NOT_PLAIN.search(pattern) is None


def resolve_pointer(root: Any, reference: Any) -> Any:
    """What a ``$ref`` of the form ``#/$defs/name`` leads to in a schema; None if nowhere, or elsewhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found
