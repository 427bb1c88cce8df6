"""Answer columns as they are typed into a form."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.prompts import read_prompt
from airflow_openai_batch.tables.prompts.answer_columns import read_answer_columns

ASK = {"name": "ask", "model": "gpt-4o-mini", "user": "{{ text }}"}


def test_lines_become_a_schema_that_strict_mode_takes() -> None:
    typed = """
    mood: one of Good, Bad , Bad, so-so.
    stars (integer): 1 to 5

    tags ( List ): 3 to 5 topics: lower case
    two words
    fair(boolean)
    """
    schema = read_answer_columns(typed)
    assert schema["properties"] == {
        "mood": {"type": "string", "enum": ["Good", "Bad", "so-so"]},
        "stars": {"type": "integer", "description": "1 to 5", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "3 to 5 topics: lower case"},
        "two words": {"type": "string"},
        "fair": {"type": "boolean"},
    }
    sent = read_prompt({**ASK, "response_schema": schema}).sent_schema
    assert sent is not None
    assert sent["required"] == list(schema["properties"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("a\nb (date)", r"line 2: \(date\) must be one of text, integer, number, boolean, list"),
        ("a\nstars (integer): 5 to 1", "line 2: 5 to 1 holds no number: the smaller one comes first"),
        ("a\na: again", "line 2: 'a' stands there twice"),
        (": what", "line 1: must look like"),
        ("a (integer", "line 1: must look like"),
        (" \n ", "names 0 columns: must be 1 to 100"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_answer_columns(typed)
