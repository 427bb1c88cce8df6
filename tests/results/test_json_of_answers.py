"""A structured answer is read in one way: what passes its check stands in the columns and comes back as a value."""

from __future__ import annotations

import json

import msgspec
import orjson
import pyarrow as pa
import pydantic
import pytest

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.results.outcome import OutcomeRules, read_outcome
from airflow_openai_batch.tables.join.answer_types import PropertyReader, find_properties
from airflow_openai_batch.tables.join.typed_answers import _read_value
from fixtures.shard_on_disk import CHAT, answer, chat_body

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string"}, "stars": {"type": "number"}},
    "required": ["mood", "stars"],
    "additionalProperties": False,
}


class Verdict(pydantic.BaseModel):
    mood: str
    stars: float


ODD_BUT_JSON = {
    "a lone surrogate": ('{"mood": "glad \\ud83d", "stars": 5}', {"mood": "glad \ufffd", "stars": 5}),
    "a raw tab": ('{"mood": "odd\ttab", "stars": 3}', {"mood": "odd\ttab", "stars": 3}),
    "a raw line end": ('{"mood": "one\ntwo", "stars": 3}', {"mood": "one\ntwo", "stars": 3}),
    "a raw NUL": ('{"mood": "\x00", "stars": 3}', {"mood": "\x00", "stars": 3}),
    "a pair of escapes": ('{"mood": "\\ud83d\\ude00", "stars": 1}', {"mood": "\U0001f600", "stars": 1}),
    "many digits": ('{"mood": "-", "stars": 1208925819614629174706176}', {"mood": "-", "stars": 2.0**80}),
}
NO_JSON = {
    "NaN": '{"mood": "-", "stars": NaN}',
    "Infinity": '{"mood": "-", "stars": -Infinity}',
    "beyond a double": '{"mood": "-", "stars": 1e999}',
    "NaN after a tab": '{"mood": "\t", "stars": NaN}',
    "nested too deeply": '{"mood": "-", "stars": ' + "[" * 200 + "]" * 200 + "}",
}


@pytest.mark.parametrize("name", ODD_BUT_JSON)
def test_what_passes_the_check_fills_the_columns_and_comes_back(name: str) -> None:
    text, value = ODD_BUT_JSON[name]
    line = answer("a", chat_body(text))
    outcome = read_outcome(line, CHAT, "json_schema", json.dumps(SCHEMA).encode(), OutcomeRules())
    assert outcome.status == "ok"
    assert outcome.parsed is not None
    for read in (orjson.loads, msgspec.json.decode, json.loads):
        assert read(outcome.parsed) == value
    assert outcome.parsed.encode()
    columns = PropertyReader(find_properties(SCHEMA))
    assert [column.to_pylist() for column in columns.read([outcome.parsed])] == [
        [each] for each in value.values()
    ]
    assert columns.unfit == 0
    cells = {"embeddings": None, "parsed": outcome.parsed, "content": text}
    assert _read_value(cells, 0, None) == (value, None)
    assert _read_value(cells, 0, Verdict) == (Verdict(**value), None)


@pytest.mark.parametrize("name", NO_JSON)
def test_what_no_reader_agrees_on_is_invalid_everywhere(name: str) -> None:
    text = NO_JSON[name]
    for output_format, schema in (("json_schema", json.dumps(SCHEMA).encode()), ("json_object", None)):
        outcome = read_outcome(answer("a", chat_body(text)), CHAT, output_format, schema, OutcomeRules())
        assert (outcome.status, outcome.error_code, outcome.parsed) == (
            "invalid_output",
            "invalid_output",
            None,
        )
        assert outcome.error_message is not None
        assert "not JSON" in outcome.error_message
    # As an earlier release has landed it.
    columns = PropertyReader(find_properties(SCHEMA)).read([text])
    assert all(column.null_count == 1 for column in columns)
    cells = {"embeddings": None, "parsed": text, "content": text}
    for output_type in (None, Verdict):
        value, problem = _read_value(cells, 0, output_type)
        assert value is None
        assert problem is not None
        assert "not_json" in problem


def test_clean_json_stays_as_it_was_written() -> None:
    text = ' {"mood":"glad",  "stars": 5.0, "when": 12345678901234567890123} '
    assert lenient_json.read(text).text == text


def test_nan_in_a_spare_field_of_a_line_spoils_no_answer() -> None:
    line = answer("a", chat_body("fine") | {"logprobs": 0.5}).replace(b"0.5", b"NaN")
    assert b"NaN" in line
    assert read_outcome(line, CHAT, "text", None, OutcomeRules()).status == "ok"


def test_many_brackets_on_one_level_are_no_nesting() -> None:
    text = json.dumps([{"at": [number]} for number in range(1_000)])
    assert len(lenient_json.read(text).value) == 1_000
    assert pa.array([lenient_json.read(text).text]).null_count == 0
