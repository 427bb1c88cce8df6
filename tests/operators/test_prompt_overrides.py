"""Fields of a prompt that come from a form, as text."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.task.prompt_files import load_prompt

ASK = {"name": "ask", "model": "gpt-4o-mini", "user": "{{ text }}"}


def test_what_a_form_gives_as_text_is_read() -> None:
    spec = load_prompt(
        ASK,
        {
            "parameters": '{"max_tokens": 7}',
            "response_schema": "null",
            "answer_columns": "mood",
            "system": "",
        },
        None,
    )
    assert spec.parameters == {"max_tokens": 7}
    assert spec.response_schema == {"type": "object", "properties": {"mood": {"type": "string"}}}
    with pytest.raises(ConfigError, match="parameters: is not valid JSON"):
        load_prompt(ASK, {"parameters": "{max_tokens: 7}"}, None)
    with pytest.raises(ConfigError, match="Keep one of the two"):
        load_prompt(ASK, {"response_schema": '{"type": "object"}', "answer_columns": "mood"}, None)
