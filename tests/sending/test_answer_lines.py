"""Lines of real-time answers: one line each, with the body's tokens as they came."""

from __future__ import annotations

import codecs
import json

import pytest

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.request_line import RequestLine
from airflow_openai_batch.openai_api.lenient_json import UnreadableJSONError
from airflow_openai_batch.openai_api.result_line import read_custom_id
from airflow_openai_batch.results.outcome import OutcomeRules, read_outcome
from airflow_openai_batch.sending.realtime.lines import read_call, write_answer, write_error

ENDPOINT = "/v1/chat/completions"


def request(line: bytes) -> RequestLine:
    return RequestLine(0, "in.jsonl", 1, line)


def test_an_indented_body_becomes_one_line_and_keeps_its_numbers() -> None:
    body = b'{\n  "n": 12345678901234567890123,\r\n  "p": 1.10,\n  "e": 1E400, "s": "a\\nb  \xe2\x80\xa8"\n}'
    line = write_answer("x", 200, "req_1", body)
    assert b"\n" not in line
    assert b'"body":{"n":12345678901234567890123,"p":1.10,"e":1E400,"s":"a\\nb  \xe2\x80\xa8"}' in line
    assert json.loads(line)["custom_id"] == "x"
    assert json.loads(line)["error"] is None


@pytest.mark.parametrize("text", ["whole", "half \\ud83d"])
def test_a_byte_order_mark_does_not_get_into_a_line(text: str) -> None:
    line = write_answer("x", 200, None, codecs.BOM_UTF8 + f'{{"s": "{text}"}}'.encode())
    assert json.loads(line)["response"]["body"] == {"s": json.loads(f'"{text}"')}


def test_lone_surrogates_stay_as_they_came() -> None:
    line = write_answer("x", 200, None, b'{\n "s": "half \\ud83d"\n}')
    assert line.count(b"\n") == 0
    assert b'{"s": "half \\ud83d"}' in line
    assert read_custom_id(line) == "x"


@pytest.mark.parametrize("body", [b"<html>\n502</html>", b"", b"\xff\xfe", b'{"cut": ', b"[" * 200_000])
def test_a_body_that_is_no_json_can_be_read_and_judged(body: bytes) -> None:
    line = write_answer("x", 502, None, body)
    assert b"\n" not in line
    assert json.loads(line)["response"]["body"] == body.decode("utf-8", "replace")
    outcome = read_outcome(line, ENDPOINT, "text", None, OutcomeRules())
    assert (outcome.status_code, outcome.retryable) == (502, True)


def test_an_error_has_no_response() -> None:
    line = json.loads(write_error('"\u2028\n', "request_timeout", "No answer."))
    assert line["custom_id"] == '"\u2028\n'
    assert line["response"] is None
    assert line["error"] == {"code": "request_timeout", "message": "No answer."}


def test_ids_are_read_back_and_what_has_none_is_told() -> None:
    assert read_custom_id(write_answer("caf\u00e9/1", 200, None, b"{}")) == "caf\u00e9/1"
    assert read_custom_id(b'{"custom_id": 7}') is None
    assert read_custom_id(b"[]") is None
    with pytest.raises(UnreadableJSONError):
        read_custom_id(b'{"custom_id": "x"')


def test_a_body_is_taken_from_its_line_byte_for_byte() -> None:
    call = read_call(request(b'{"body": {"a":1.10 ,\t"b":[ ]}, "custom_id":"x", "url":"u"}'), ENDPOINT)
    assert call == ("x", b'{"a":1.10 ,\t"b":[ ]}', False)


def test_an_odd_line_is_sent_as_well_as_it_can_be() -> None:
    call = read_call(request(b'{"custom_id": "x", "body": {"a": "\\ud83d"}}'), ENDPOINT)
    assert json.loads(call.body) == {"a": "\ufffd"}


def test_a_line_that_is_no_request_says_so() -> None:
    with pytest.raises(InputChangedError, match=r"in\.jsonl:1"):
        read_call(request(b'{"custom_id": "x"'), ENDPOINT)


@pytest.mark.parametrize(
    ("body", "sent", "flex"),
    [
        (b'{"a": 1.10, "b": [ ]}', b'{"a":1.10,"b":[ ],"service_tier":"flex"}', True),
        (
            b'{"service_tier": "auto", "a": 9007199254740993}',
            b'{"service_tier":"flex","a":9007199254740993}',
            True,
        ),
        (b'{"service_tier": null}', b'{"service_tier":"flex"}', True),
        (b'{"service_tier": "flex"}', b'{"service_tier": "flex"}', True),
        (b'{"service_tier": "default"}', b'{"service_tier": "default"}', False),
        (b'{"service_tier": "priority"}', b'{"service_tier": "priority"}', False),
    ],
)
def test_a_body_asks_for_flex_unless_it_names_another_tier(body: bytes, sent: bytes, flex: bool) -> None:
    call = read_call(request(b'{"custom_id": "x", "body": %s}' % body), ENDPOINT, flex=True)
    assert call == ("x", sent, flex)


def test_half_a_character_goes_through_flex_as_well() -> None:
    call = read_call(request(b'{"custom_id": "x", "body": {"a": "\\ud83d"}}'), ENDPOINT, flex=True)
    assert json.loads(call.body)["service_tier"] == "flex"
