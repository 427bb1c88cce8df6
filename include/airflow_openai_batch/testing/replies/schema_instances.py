"""Values that satisfy a JSON schema, drawn from a seed and coloured by the text of the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.testing.replies.patterns import match_pattern
from airflow_openai_batch.testing.replies.wording import pick_label, pick_numbered

if TYPE_CHECKING:
    import random

JSON = dict[str, Any]

_MAX_DEPTH = 12
"""A schema that refers to itself ends here, as far as it allows."""

_NESTING = {"$ref", "properties", "items"}
_FORMATS = {
    "date": "2024-0{a}-1{b}",
    "date-time": "2024-0{a}-1{b}T0{b}:3{b}:00Z",
    "time": "0{a}:3{b}:00Z",
    "duration": "PT{a}H",
    "email": "person{a}{b}@example.com",
    "idn-email": "person{a}{b}@example.com",
    "hostname": "host{a}{b}.example.com",
    "ipv4": "192.0.2.{a}{b}",
    "ipv6": "2001:db8::{a}{b}",
    "uri": "https://example.com/{a}/{b}",
    "uri-reference": "/{a}/{b}",
    "uuid": "00000000-0000-4000-8000-0000000000{a}{b}",
}

_PYTHON: dict[Any, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "array": list,
    "null": type(None),
}


class Instances:
    """Draws values for one schema.

    :param schema: the root, against which ``$ref`` is resolved.
    :param text: what strings are made of, labels and numbered choices chosen by.
    :param facts: values for properties of these names, where they fit.
    """

    def __init__(self, schema: JSON, draw: random.Random, text: str, facts: JSON | None = None) -> None:
        self._root = schema
        self._draw = draw
        self._text = text
        self._facts = facts or {}
        self._words = text.split()[:200] or ["nothing"]

    def value(self) -> Any:
        return self._value(self._root, 0, "")

    def _value(self, schema: Any, depth: int, name: str) -> Any:
        if not isinstance(schema, dict):
            return self._some_words(2)  # true: anything goes
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._alternative(schema, key, depth, name)
        return self._typed(schema, depth, name)

    def _resolved(self, schema: JSON) -> JSON:
        for _ in range(_MAX_DEPTH):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._referred(schema["$ref"]), **rest}
            elif "allOf" in schema:
                schema = self._merged(schema)
            else:
                break
        return schema

    def _merged(self, schema: JSON) -> JSON:
        merged: JSON = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            for key, value in self._resolved(part).items():
                if key == "properties":
                    merged[key] = {**merged.get(key, {}), **value}
                elif key == "required":
                    merged[key] = [*merged.get(key, []), *value]
                else:
                    merged.setdefault(key, value)
        return merged

    def _referred(self, reference: str) -> JSON:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/"):
            if part:
                found = found[part.replace("~1", "/").replace("~0", "~")]
        return found if isinstance(found, dict) else {}

    def _alternative(self, schema: JSON, key: str, depth: int, name: str) -> Any:
        options: Sequence[Any] = schema[key]
        rest = {k: v for k, v in schema.items() if k not in (key, "title", "description", "default")}
        if depth >= _MAX_DEPTH // 2:  # a way out of a schema that refers to itself
            options = [o for o in options if not isinstance(o, dict) or not _NESTING & o.keys()] or options
        elif self._draw.random() < 0.8:  # a null is dull
            options = [o for o in options if o != {"type": "null"}] or options
        option = options[self._draw.randrange(len(options))]
        if isinstance(option, dict):
            option = self._merged({"allOf": [option, rest]})
        return self._value(option, depth + 1, name)

    def _typed(self, schema: JSON, depth: int, name: str) -> Any:
        kind = schema.get("type") or _implied_type(schema)
        if isinstance(kind, list):
            options = (
                [k for k in kind if k != "null"] if depth < _MAX_DEPTH and self._draw.random() < 0.8 else kind
            )
            kind = self._draw.choice(options or kind)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth, name)
            case "string":
                return self._string(schema, name)
            case "integer":
                return self._integer(schema, name)
            case "number":
                return self._number(schema)
            case "boolean":
                return self._draw.random() < 0.5
            case _:
                return None

    def _object(self, schema: JSON, depth: int) -> JSON:
        properties: JSON = schema.get("properties", {})
        required = schema.get("required", ())
        extra = schema.get("additionalProperties")
        other = extra if isinstance(extra, dict) else {"type": "string"}
        wanted = [name for name in properties if name in required or depth < 3]
        wanted += [name for name in required if name not in properties]
        wanted += [f"key{number}" for number in range(int(schema.get("minProperties", 0)) - len(wanted))]
        return {name: self._property(properties.get(name, other), depth + 1, name) for name in wanted}

    def _property(self, schema: Any, depth: int, name: str) -> Any:
        if name in self._facts and _is_of_type(self._facts[name], schema):
            return self._facts[name]
        return self._value(schema, depth, name)

    def _array(self, schema: JSON, depth: int, name: str) -> list[Any]:
        prefix = [self._value(part, depth + 1, name) for part in schema.get("prefixItems", ())]
        least = max(int(schema.get("minItems", 0)), len(prefix))
        most = int(schema.get("maxItems", max(least, 3)))
        wanted = (
            least if depth >= _MAX_DEPTH // 2 else self._draw.randint(least, max(least, min(most, least + 2)))
        )
        if wanted == 0 and most > 0 and depth < 4:
            wanted = 1
        items = schema.get("items", {"type": "string"})
        made: list[Any] = prefix
        for _ in range(wanted * 20):  # uniqueItems may need several goes
            if len(made) >= wanted:
                break
            value = self._value(items, depth + 1, name)
            if not schema.get("uniqueItems") or value not in made:
                made.append(value)
        return made

    def _string(self, schema: JSON, name: str) -> str:
        if "pattern" in schema:
            return match_pattern(schema["pattern"], self._draw)
        if schema.get("format") in _FORMATS:
            digits = {"a": self._draw.randint(1, 9), "b": self._draw.randint(0, 9)}
            return _FORMATS[schema["format"]].format(**digits)
        short = name.endswith(
            ("name", "title", "label", "category", "topic", "tag", "tags", "keyword", "keywords")
        )
        made = self._some_words(2 if short else 8)
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        while len(made) < least:
            made += " " + self._some_words(8)
        return made if most is None else made[: int(most)]

    def _some_words(self, count: int) -> str:
        start = self._draw.randrange(max(1, len(self._words) - count + 1))
        return " ".join(self._words[start : start + count])

    def _choice(self, options: Sequence[Any]) -> Any:
        labels = [option for option in options if isinstance(option, str)]
        if len(labels) >= 2:
            return pick_label(labels, self._text)
        return options[self._draw.randrange(len(options))]

    def _integer(self, schema: JSON, name: str) -> int:
        step = int(schema.get("multipleOf", 1)) or 1
        low, high = _bounds(schema, 1)
        if step == 1 and name.endswith(("choice", "number")):
            choice = pick_numbered(self._text)
            if choice is not None:
                return max(int(low), min(int(high), choice))
        first, last = -(-int(low) // step), int(high) // step
        return self._draw.randint(first, max(first, last)) * step

    def _number(self, schema: JSON) -> float:
        if "multipleOf" in schema:
            low, high = _bounds(schema, 0)
            step = float(schema["multipleOf"])
            return (
                self._draw.randint(
                    round(low / step + 0.499), max(round(low / step + 0.499), int(high / step))
                )
                * step
            )
        low, high = _bounds(schema, 0)
        for digits in (2, 4, 8):
            value = round(low + (high - low) * self._draw.random(), digits)
            if low < value < high:
                return value
        return (low + high) / 2


def _bounds(schema: JSON, step: int) -> tuple[float, float]:
    """Inclusive bounds, with a width of 10 (or 1, for numbers that are no integers) where one is missing."""
    width = 10.0 if step else 1.0
    low: float | None = schema.get("minimum")
    high: float | None = schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    if low is None:
        low = 0 if high is None or high >= 0 else high - width
    return low, max(low + width, 0) if high is None else high


def _is_of_type(value: Any, schema: Any) -> bool:
    """Whether a value may stand for a property; bounds and the like are not looked at."""
    if not isinstance(schema, dict):
        return True
    options = [option for key in ("anyOf", "oneOf") for option in schema.get(key, ())]
    if options:
        return any(_is_of_type(value, option) for option in options)
    named = schema.get("type")
    kinds = named if isinstance(named, list) else [named]
    return any(isinstance(value, _PYTHON[kind]) for kind in kinds if kind in _PYTHON)


def _implied_type(schema: JSON) -> str:
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if schema.keys() & {"minimum", "maximum", "multipleOf"}:
        return "number"
    return "string"
