"""Both libraries say the same of the same answer, so that the faster one changes nothing but the time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_openai_batch.requests.json_schema import compile_plain, compile_schema

pytest.importorskip("jsonschema_rs")

KEYS = st.sampled_from(["a", "b", "c"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.0, 1.0, 1.5])
    | st.sampled_from(["", "a", "xyz"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(KEYS, inner, max_size=3)},
        optional={"required": st.lists(KEYS, unique=True, max_size=2), "additionalProperties": st.booleans()},
    )


SIMPLE = st.one_of(
    st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"]).map(
        lambda kind: {"type": kind}
    ),
    st.lists(SCALARS, min_size=1, max_size=3, unique_by=repr).map(lambda values: {"enum": values}),
    SCALARS.map(lambda value: {"const": value}),
    st.sampled_from(
        [{"minimum": 0}, {"maxLength": 1}, {"pattern": "^[ax]"}, {"minItems": 1}, {"multipleOf": 2}, {}]
    ),
    st.just({"$ref": "#/$defs/leaf"}),
)
SCHEMAS = st.recursive(
    SIMPLE,
    lambda inner: (
        objects(inner)
        | inner.map(lambda schema: {"type": "array", "items": schema})
        | st.lists(inner, min_size=1, max_size=2).map(lambda schemas: {"anyOf": schemas})
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(schema=SCHEMAS, value=VALUES)
def test_engines_agree_on_what_is_valid(schema: dict[str, Any], value: Any) -> None:
    whole = {"$defs": {"leaf": {"type": ["string", "integer"]}}, "allOf": [schema]}
    fast, plain = compile_schema(whole)(value), compile_plain(whole)(value)
    assert (fast is None) == (plain is None)


def test_both_name_the_place_and_the_keyword() -> None:
    schema = {"properties": {"a": {"items": {"type": "object", "properties": {"b": {"type": "integer"}}}}}}
    value = {"a": [{"b": 1}, {"b": "secret"}]}
    assert compile_schema(schema)(value) == compile_plain(schema)(value) == ("$.a[1].b", "type")
