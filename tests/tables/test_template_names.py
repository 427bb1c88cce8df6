"""Names in templates: rows before methods, columns before functions, and nothing printed that is no value."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.preparation.renderer import Renderer
from fixtures.prepared import ask


def render(template: str, values: dict[str, Any]) -> str:
    """What is sent, or why nothing is."""
    found = Renderer(ask(user=template), list(values)).render(0, values)
    if found.body is None:
        return found.reason or ""
    text: str = json.loads(found.body)["messages"][-1]["content"]
    return text


ROW: dict[str, Any] = {
    "range": "300 km",
    "dict": "a book",
    "items": "two",
    "order": {"items": ["tyres", None], "keys": 2, "note": None},
    "meta": "a title",
    "day": dt.date(2026, 1, 31),
    "price": Decimal("1.50"),
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ range }}, {{ dict }}, {{ items }}", "300 km, a book, two"),
        ("{{ row.range }} {{ row.items }} {{ row['items'] }}", "300 km two two"),
        ("{{ order.items }} {{ order.keys + 1 }}", '["tyres", null] 3'),
        ("{{ order.items[0] }} {{ order['items'] | join('+') }}", "tyres tyres+"),
        ("{{ meta.title() }} {{ meta.upper() | lower }}", "A Title a title"),
        ("{% if order.note %}a{% else %}b{% endif %}{{ order.note is none }}{{ order.note == 'x' }}", "bTrueFalse"),
        ("{{ order }}", '{"items": ["tyres", null], "keys": 2, "note": null}'),
        ("{{ day }} {{ [day] }} {{ day.year }}", '2026-01-31 ["2026-01-31"] 2026'),
        ("{{ price }} {{ [price] | tojson }}", '1.50 ["1.50"]'),
        ("{{ order.items | map('default', 'x') | list }}", '["tyres", null]'),
    ],
)  # fmt: skip
def test_names_of_rows_come_first(template: str, text: str) -> None:
    assert render(template, ROW) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ meta.title }}",
        "{{ meta.title | upper }}",
        "{{ meta.title | string }}",
        "{{ 'x' ~ meta.title }}",
        "{{ 'x %s' % meta.title }}",
        "{{ '%s' | format(meta.title) }}",
        "{{ '{}'.format(meta.title) }}",
        "{{ '{a}'.format_map({'a': meta.title}) }}",
        "{{ [meta.title] }}",
        "{{ [meta.title] | join }}",
        "{{ {'a': meta.title} | tojson }}",
        "{{ meta | replace('a', meta.title) }}",
        "{{ meta | attr('title') }}",
        "{% if meta.title == 'x' %}y{% endif %}",
        "{{ namespace }}",
        "{{ namespace | upper }}",
        "{{ [namespace] }}",
        "{{ namespace(a=1) }}",
        "{{ namespace(a=1) ~ '' }}",
        "{{ row.values() }}",
        "{{ [meta] | map('upper') }}",
        "{{ ([meta] | map('upper')) ~ '' }}",
    ],
)
def test_no_method_and_no_object_is_ever_printed(template: str) -> None:
    found = render(template, ROW)
    assert found.startswith("user: ")
    assert "no key of the row" in found or "no value that can be printed" in found


@pytest.mark.parametrize(
    "template",
    [
        "{{ self }}",
        "{% for a in items %}{{ loop }}{% endfor %}",
        "{% macro m() %}{% endmacro %}{{ m }}",
        "{% macro m() %}{% endmacro %}{{ m | upper }}",
    ],
)
def test_objects_of_jinja_itself_are_no_values(template: str) -> None:
    with pytest.raises(ConfigError, match="Jinja's own here"):
        render(template, ROW)


def test_an_empty_cell_is_false_and_is_never_printed() -> None:
    row = {"title": None, "n": 1, "nan": float("nan"), "no": Decimal("NaN")}
    assert render("{{ 'a' if title else 'b' }}{{ title or 'c' }}{{ title is defined }}", row) == "bcFalse"
    for name in ("title", "nan", "no"):
        assert render(f"{{{{ {name} }}}}", row) == f"user: column '{name}' is empty"
    assert render("{{ row | tojson }}", row) == '{"title": null, "n": 1, "nan": null, "no": null}'
