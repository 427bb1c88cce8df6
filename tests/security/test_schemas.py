"""Schemas that were made to keep a worker busy, and answers that were: each stops its own row, and says why."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.requests import json_schema, schema_check
from airflow_openai_batch.results.outcome import Outcome, OutcomeRules, read_outcome
from airflow_openai_batch.tables.prompts import read_prompt

if TYPE_CHECKING:
    from pathlib import Path

CHAT = "/v1/chat/completions"
DOUBLING = {
    "$defs": {
        **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)},
        "d30": {"type": "object"},
    },
    "$ref": "#/$defs/d0",
}
DEEP: dict[str, Any] = {"type": "object"}
for _ in range(300):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
SLOW = {"type": "object", "patternProperties": {"^(?=a)(a|aa)+$": {"type": "integer"}}}
ITSELF = {"anyOf": [{"$ref": "#"}, {"type": "integer"}]}
TREE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}


@pytest.fixture(autouse=True)
def checks_of_a_task_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_check.ChecksApart, "_own", None)
    schema_check._look_once.cache_clear()


def judge(content: str, schema: Any) -> Outcome:
    message = {"role": "assistant", "content": content}
    body = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "request_id": "r", "body": body}})
    return read_outcome(line.encode(), CHAT, "json_schema", json.dumps(schema).encode(), OutcomeRules())


@pytest.mark.parametrize("engine", ["jsonschema-rs", "jsonschema"])
@pytest.mark.parametrize("schema", [DOUBLING, DEEP], ids=["doubling", "deep"])
def test_a_schema_beyond_its_bounds_is_not_checked_against(
    schema: dict[str, Any], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With jsonschema the deep one was an error of the whole shard."""
    if engine == "jsonschema":
        monkeypatch.setattr(json_schema, "jsonschema_rs", None)
    started = time.process_time()
    outcome = judge('{"a": 1}', schema)
    assert (outcome.status, outcome.unchecked) == ("ok", True)
    assert time.process_time() - started < 2


def test_a_schema_that_leads_to_itself_for_ever_ends_nothing() -> None:
    """What the join makes of it: `tests/tables/test_join_odd_values.py`."""
    assert judge("1", ITSELF).status == "ok"
    assert judge('{"a": 1}', ITSELF).status in ("ok", "invalid_output")


@pytest.mark.parametrize("engine", ["jsonschema-rs", "jsonschema"])
def test_a_pattern_that_never_ends_stops_its_row_alone(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jsonschema-rs gives the pattern up by itself; with jsonschema the process is ended."""
    if engine == "jsonschema":
        (tmp_path / "jsonschema_rs.py").write_text("raise ImportError\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    good = judge('{"a": 1}', SLOW)
    assert (good.status, good.unchecked) == ("ok", False)
    bad = judge(json.dumps({"a" * 50 + "b": "x"}), SLOW)
    if engine == "jsonschema":
        assert bad.status == "invalid_output"
        assert bad.error_message == (
            "Checking it against the request's schema takes more than 2 seconds, the limit."
        )
        assert not bad.retryable, "another answer meets the same schema"
    wrong = judge('{"a": "x"}', SLOW)
    assert (wrong.status, wrong.retryable) == ("invalid_output", True)
    if engine == "jsonschema":
        monkeypatch.setattr(schema_check, "MAX_OVERRUNS", 1)
        for _ in range(100):  # each would take seconds
            assert judge(json.dumps({"a" * 50 + "b": "x"}), SLOW).unchecked


def test_recursive_schemas_of_honest_people_are_checked() -> None:
    assert judge('{"next": {"next": null}}', TREE).status == "ok"
    wrong = judge('{"next": {"other": 1}}', TREE)
    assert wrong.status == "invalid_output"
    assert "of the request's schema" in (wrong.error_message or "")


def test_an_answer_nested_a_thousand_deep_is_invalid() -> None:
    for schema in (TREE, {"type": "object"}):
        outcome = judge('{"next":' * 1_000 + "null" + "}" * 1_000, schema)
        assert outcome.status == "invalid_output"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({**DOUBLING, "type": "object"}, "comes to more than 100,000 schemas with its references followed"),
        (DEEP, "is nested more than 100 levels deep"),
        ({"type": "object", "description": "x" * 2_000_000}, "has 2,000,034 bytes, limit 1,000,000"),
    ],
    ids=["doubling", "deep", "long"],
)
def test_a_prompt_with_such_a_schema_is_refused(schema: dict[str, Any], message: str, strict: bool) -> None:
    prompt = {"name": "p", "model": "gpt-4o-mini", "user": "x", "response_schema": schema, "strict": strict}
    with pytest.raises(ConfigError, match=message):
        read_prompt(prompt)
