"""What a prompt may say, and how it says what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.prompts import read_prompt
from fixtures.prepared import EMBED, ask

PROMPTS = Path(__file__).resolve().parents[2] / "include" / "prompts"


def test_a_prompt_from_yaml_is_that_of_its_fields() -> None:
    text = 'name: ask\nmodel: gpt-4o-mini\nuser: "Good? {{ text }}"\nparameters: {max_tokens: 10}\n'
    assert read_prompt(text) == ask()
    assert read_prompt(text).sha256 == ask().sha256
    assert read_prompt(text, overrides={"model": "gpt-4o"}) == ask(model="gpt-4o")
    assert ask(model="gpt-4o").sha256 != ask().sha256


@pytest.mark.parametrize("path", sorted(PROMPTS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_prompts_that_come_along_are_good(path: Path) -> None:
    assert read_prompt(path.read_bytes(), where=path.name).name == path.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "name is empty"),
        ({"model": 4}, "model: expected `str`, got `int`"),
        ({"modell": "x"}, "unknown field `modell`"),
        ({"endpoint": "images"}, "endpoint='images': must be one of chat/completions, responses, embeddings"),
        ({"user": None}, "user is missing: say what to ask about a row"),
        ({"input": "x"}, "input is for embeddings"),
        ({"rows_per_request": 5}, "rows_per_request=5: only embeddings"),
        ({"custom_id": ""}, "custom_id is empty"),
        ({"parameters": {"stream": True}}, "parameters.stream: is made from the other fields"),
        ({"parameters": {"max_output_tokens": 5}}, "parameters.max_output_tokens: .* calls it max_tokens"),
        ({"endpoint": "responses"}, "parameters.max_tokens: responses calls it max_output_tokens"),
        ({"parameters": {"at": {1, 2}.__iter__}}, "parameters: hold something that JSON cannot"),
        ({"images": [{"column": ""}]}, r"images\[0\].column is empty"),
        ({"images": [{"column": "a", "max_side": 9}]}, r"images\[0\].max_side=9: must be 16 to 8,192"),
        ({"images": [{"column": "a", "detail": "hi"}]}, r"images\[0\].detail: invalid enum value"),
        ({"response_schema": {"type": "string"}}, "response_schema must describe an object"),
        (
            {"response_schema": {"type": "object", "properties": {"a": {"type": "text"}}}},
            "response_schema is no JSON Schema",
        ),
        (
            {"response_schema": {"type": "object", "additionalProperties": {"type": "string"}}},
            "response_schema: allows properties of any name, which strict mode does not",
        ),
        ({"response_schema": 3}, "response_schema is int; it must be a JSON Schema or a Pydantic model"),
        (
            {"response_schema": {"type": "object"}, "parameters": {"response_format": {}}},
            "parameters.response_format: is made from response_schema",
        ),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^prompt: .*{message}"):
        ask(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": None, "user": "{{ text }}"}, "input is missing.* it is called input, not user"),
        ({"system": "x"}, "system is set, but embeddings take an input only"),
        ({"rows_per_request": 3_000}, "rows_per_request=3000: must be 1 to 2,048"),
    ],
)
def test_embeddings_take_an_input_only(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_prompt({**EMBED, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "p.yaml: is not valid YAML in line 1, column 8"),
        ("name: ask\nuser: {{ text }}", "p.yaml: is not valid YAML in line 2.* Put templates in quotes"),
        ("- a\n- b", "p.yaml: must be a mapping"),
        (b"\xff\xfe\x00", "p.yaml: is not valid YAML"),
        ("name: a\nmodel: b\nuser: !!python/object:os.system x", "p.yaml: is not valid YAML in line 3"),
    ],
)
def test_files_that_are_no_prompts(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_prompt(text, where="p.yaml")


def test_a_schema_is_made_strict() -> None:
    schema = {
        "type": "object",
        "required": ["tags"],
        "properties": {
            "tags": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
            "score": {"type": "number", "default": 1},
            "tone": {"enum": ["warm", "cold"]},
        },
        "$defs": {"place": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }
    strict = ask(response_schema=schema).sent_schema
    assert strict == {
        "type": "object",
        "additionalProperties": False,
        "required": ["tags", "score", "tone"],
        "properties": {
            "tags": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "required": ["name"],
                    "additionalProperties": False,
                },
            },
            "score": {"type": ["number", "null"]},  # may be left out, says the schema; strict mode says null
            "tone": {"anyOf": [{"enum": ["warm", "cold"]}, {"type": "null"}]},
        },
        "$defs": {
            "place": {
                "type": "object",
                "properties": {"x": {"type": "integer"}},
                "required": ["x"],
                "additionalProperties": False,
            }
        },
    }
    assert ask(response_schema=schema, strict=False).sent_schema == schema


class Cover(BaseModel):
    """A Pydantic model as a DAG has it."""

    title: str
    year: int | None = None
    kind: Literal["cd", "lp"] = "cd"
    tracks: list[str] = Field(default_factory=list)


def test_an_answer_that_keeps_the_schema_of_a_model_fits_the_model() -> None:
    schema = ask(response_schema=Cover).sent_schema
    assert schema is not None
    assert schema["required"] == ["title", "year", "kind", "tracks"]
    assert schema["properties"]["kind"]["enum"] == ["cd", "lp"]
    assert "default" not in str(schema)
    assert Cover.model_validate({"title": "x", "year": None, "kind": "lp", "tracks": []}).kind == "lp"
