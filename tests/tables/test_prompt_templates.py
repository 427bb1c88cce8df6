"""Templates over rows: what they see, what rejects a row, what stops a prompt."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.preparation.renderer import Renderer
from fixtures.prepared import ask, embed

COLUMNS = ["text", "title", "Review text", "n", "tags", "day"]


def render(values: dict[str, Any], number: int = 0, **changes: Any) -> Any:
    """The user's text of the request, or why there is none."""
    renderer = Renderer(ask(**changes), COLUMNS)
    values = {name: values.get(name) for name in renderer.columns}
    found = renderer.render(number, values)
    return found.reason or json.loads(found.body)["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ text }}", "a <b> & 'c'"),
        ("{{ row['Review text'] }} {{ row.n }}", "so so 3"),
        ("{{ n + 1 }} {{ _row }}", "4 7"),
        ("{{ tags | join(', ') }}", "x, y"),
        ("{{ tags | tojson }}", '["x", "y"]'),
        ("{{ {'a': text} | tojson }}", '{"a": "a <b> & \'c\'"}'),
        ("{{ day }}", "2026-01-31"),
        ("{% if title is defined %}{{ title }}{% else %}none{% endif %}", "none"),
        ("{{ title | default('none') }}", "none"),
        ("{{ other | default('none') }}", "none"),
        ("{{ row['other'] | default('none') }}", "none"),
        ("{{ row['title'] or 'none' }}", "none"),
        ("{% for name in row %}{{ name }};{% endfor %}", "text;title;Review text;n;tags;day;"),
        ("{% for i in range(2) %}{{ i }}{% endfor %}", "01"),
        ("No template at all", "No template at all"),
    ],
)
def test_what_templates_see(template: str, text: str) -> None:
    values = {
        "text": "a <b> & 'c'",
        "Review text": "so so",
        "n": 3,
        "tags": ["x", "y"],
        "day": dt.date(2026, 1, 31),
    }
    assert render(values, 7, user=template) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ title }}", "user: column 'title' is empty"),
        ("{{ row['title'] }}", "user: column 'title' is empty"),
        ("{{ title.x }}", "user: column 'title' is empty"),
        ("{{ other | default('') }}{{ title }}", "user: column 'title' is empty"),
        ("{{ text | int('x') + 1 }}", "user: the template failed with TypeError"),
        ("{{ text.secret }}", "user: 'str object' has no attribute 'secret'"),
        ("  ", "user is empty"),
        ("{{ text[:0] }}", "user is empty"),
    ],
)
def test_a_row_that_cannot_be_rendered_says_why_and_shows_nothing(template: str, reason: str) -> None:
    found = render({"text": "hush-hush"}, user=template if template.strip() else "{{ ' ' }}")
    assert found == reason


@pytest.mark.parametrize(
    ("field", "template", "message"),
    [
        (
            "user",
            "{{ texd }}",
            "user: needs the column 'texd', which the table does not have. Did you mean 'text'?",
        ),
        ("system", "{{ nothing }}", "system: needs the column 'nothing'.* It has: Review text, day, n,"),
        ("user", "{{ Review + text }}", r"the column 'Review', .* Did you mean row\['Review text'\]?"),
        ("user", "{{ row['texd'] or 'none' }}", "user: needs the column 'texd', .* Did you mean 'text'?"),
        (
            "user",
            "{{ row['texd'] }}{{ row | length }}",
            "user: needs the column 'texd', .* Did you mean 'text'?",
        ),
        ("user", "{{ row.texd }}", "user: needs the column 'texd', .* Did you mean 'text'?"),
        ("user", "{{ Review text }}", r"written {{ row\['Its name'\] }}"),
        ("user", "{{ text }", "user: no valid template in line 1"),
        ("custom_id", "{% if %}", "custom_id: no valid template in line 1"),
        ("user", "{{ text.__class__.__mro__ }}", "user: the template may not do that"),
        ("user", "{{ ''.__class__ }}", "user: the template may not do that"),
        ("user", "{{ text * 10000000 }}", "user: the template may not do that"),
        (
            "user",
            "{% for i in range(10000000) %}x{% endfor %}",
            "user: the template failed with OverflowError",
        ),
    ],
)
def test_what_no_row_can_mend_stops_the_prompt(field: str, template: str, message: str) -> None:
    if "OverflowError" in message:
        assert render({"text": "x"}, **{field: template}) == message
        return
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        render({"text": "xx"}, **{field: template})


def test_only_what_is_named_is_looked_at() -> None:
    assert Renderer(ask(), COLUMNS).columns == ["text"]
    assert Renderer(ask(user="{{ row['n'] }} {{ row['day'] }}"), COLUMNS).columns == ["n", "day"]
    assert Renderer(ask(user="{{ text }} {{ row['n'] }}"), COLUMNS).columns == ["text", "n"]
    assert Renderer(ask(user="{{ row['n'] }} {{ row | length }}"), COLUMNS).columns == COLUMNS
    assert Renderer(ask(user="{% set key = 'n' %}{{ row[key] }}"), COLUMNS).columns == COLUMNS
    assert Renderer(ask(user="{{ row }}"), ["row", "x"]).columns == ["row"]


def test_too_long_for_the_model_is_counted_in_tokens_not_bytes() -> None:
    long, too_long = "word " * 8_000, "word " * 9_000  # 40 KB of bytes, 8,000 tokens
    renderer = Renderer(embed(), ["text"])
    assert renderer.render(0, {"text": long}).text == long
    reason = renderer.render(0, {"text": too_long}).reason
    assert reason == "input has 9,001 tokens, the model reads 8,192"


def test_bodies_of_the_endpoints() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    images = [{"column": "title", "detail": "low"}]
    values = {"text": "x", "title": "https://pictures.example/1.png"}

    def body(**changes: Any) -> Any:
        spec = ask(system="Be kind.", response_schema=schema, images=images, **changes)
        return json.loads(Renderer(spec, COLUMNS).render(0, values).body or b"")

    strict = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert body() == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Good? x"},
                    {"type": "image_url", "image_url": {"url": values["title"], "detail": "low"}},
                ],
            },
        ],
        "max_tokens": 10,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "ask", "strict": True, "schema": strict},
        },
    }
    assert body(endpoint="/v1/responses", parameters={"max_output_tokens": 10}) == {
        "model": "gpt-4o-mini",
        "instructions": "Be kind.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Good? x"},
                    {"type": "input_image", "image_url": values["title"], "detail": "low"},
                ],
            }
        ],
        "max_output_tokens": 10,
        "text": {"format": {"type": "json_schema", "name": "ask", "strict": True, "schema": strict}},
    }
