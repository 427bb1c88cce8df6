"""What OpenAI refuses in an input file or in the call that creates a batch."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_openai_batch.testing.refusals import ApiError
from emulator.lines import (
    CHAT,
    chat_body,
    errors,
    outputs,
    request_line,
    request_lines,
    start_batch,
    still_emulator,
)

GOOD = request_line("good")


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        (GOOD + b"not json\n", "invalid_json_line", 2),
        (GOOD + b"\n" + request_line("b"), "invalid_json_line", 2),
        (b"[1, 2]\n", "invalid_json_line", 1),
        (b"\xff\xfe\n", "invalid_json_line", 1),
        (b'{"method": "POST", "url": "/v1/chat/completions", "body": {}}\n', "missing_required_parameter", 1),
        (GOOD + GOOD, "duplicate_custom_id", 2),
        (GOOD.replace(b'"good"', b"7"), "invalid_type", 1),
        (GOOD.replace(b"/v1/chat/completions", b"/v1/responses"), "invalid_url", 1),
        (GOOD.replace(b'"POST"', b'"GET"'), "invalid_method", 1),
        (GOOD + request_line("b", {**chat_body(), "model": "gpt-4o"}), "mismatched_model", 2),
        (request_line("b", {**chat_body(), "model": "no-such-model"}), "model_not_found", 1),
        (request_line("b", chat_body(stream=True)), "stream_not_supported", 1),
        (b"", "empty_file", None),
    ],
)
def test_a_bad_line_fails_the_batch_and_nothing_is_billed(
    lines: bytes, code: str, number: int | None
) -> None:
    emulator = still_emulator()
    batch = emulator.get_batch(start_batch(emulator, lines))
    assert batch["status"] == "failed"
    assert batch["failed_at"] == 1_000_000
    error = batch["errors"]["data"][0]
    assert (error["code"], error["line"]) == (code, number)
    assert batch["output_file_id"] is None
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert not emulator.books.billed


def test_too_many_requests_fail_the_batch() -> None:
    emulator = still_emulator(max_requests_per_batch=5)
    assert emulator.get_batch(start_batch(emulator, request_lines(5)))["status"] == "completed"
    batch = emulator.get_batch(start_batch(emulator, request_lines(6)))
    assert batch["errors"]["data"][0]["code"] == "too_many_tasks"


def test_too_many_embedding_inputs_fail_the_batch() -> None:
    emulator = still_emulator(max_embedding_inputs=5)
    body = {"model": "text-embedding-3-small", "input": ["a", "b", "c"]}
    lines = b"".join(request_line(name, body, "/v1/embeddings") for name in "xy")
    batch = emulator.get_batch(start_batch(emulator, lines, "/v1/embeddings"))
    assert batch["errors"]["data"][0]["code"] == "too_many_inputs"


def test_a_file_that_is_gone_fails_the_batch_after_it_was_created() -> None:
    emulator = still_emulator()
    params = {"input_file_id": "file-gone", "endpoint": CHAT, "completion_window": "24h"}
    made = emulator.create_batch(params)
    assert made["status"] == "validating"
    error = emulator.get_batch(made["id"])["errors"]["data"][0]
    assert error["code"] == "invalid_request"
    assert error["message"].startswith(
        "Cannot find file file-gone, or organization org-emulator does not have access"
    )


def test_a_file_deleted_while_its_batch_runs_does_no_harm() -> None:
    emulator = still_emulator(in_progress_s=10)
    batch_id = start_batch(emulator, request_lines(3))
    emulator.delete_file(emulator.get_batch(batch_id)["input_file_id"])
    emulator.clock.advance(10)  # type: ignore[attr-defined]
    assert len(outputs(emulator, batch_id)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoint": "/v1/chats"}, "Supported values are"),
        ({"completion_window": "1h"}, "Value must be '24h'"),
        ({"input_file_id": None}, "Missing required parameter: 'input_file_id'"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "at most 16 properties"),
        ({"metadata": {"k" * 65: "x"}}, "maximum length 64"),
        ({"metadata": {"k": "x" * 513}}, "maximum length 512"),
        ({"metadata": {"k": 1}}, "expected a string"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "between 3600 and 2592000"),
    ],
)
def test_wrong_parameters_are_refused_at_once(change: dict[str, Any], message: str) -> None:
    emulator = still_emulator()
    file = emulator.upload(GOOD)
    params = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **change}
    with pytest.raises(ApiError, match=message) as caught:
        emulator.create_batch(params)
    assert caught.value.status == 400
    assert not list(emulator.batches)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"filename": "in.txt"}, 400, r"Must be \.jsonl"),
        ({"purpose": "nonsense"}, 400, "is not one of"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "between 3600"),
        ({"data": b"x" * 2_000}, 413, "too large"),
    ],
)
def test_wrong_uploads_are_refused(options: dict[str, Any], status: int, message: str) -> None:
    emulator = still_emulator(max_file_bytes=1_000)
    with pytest.raises(ApiError, match=message) as caught:
        emulator.upload(**{"data": b"{}", **options})
    assert caught.value.status == status
    assert emulator.list_files()["data"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "gpt-4o-mini"}, "missing_required_parameter"),
        (chat_body(max_tokens=10_000_000), "invalid_value"),
        (chat_body(temperature=3), "decimal_out_of_range"),
        (
            chat_body(
                response_format={
                    "type": "json_schema",
                    "json_schema": {
                        "name": "x",
                        "strict": True,
                        "schema": {"type": "object", "properties": {"a": {}}},
                    },
                }
            ),
            None,
        ),
    ],
)
def test_a_request_that_real_time_refuses_is_a_line_of_the_error_file(
    body: dict[str, Any], code: str | None
) -> None:
    emulator = still_emulator()
    with pytest.raises(ApiError) as caught:
        emulator.call(CHAT, body)
    assert (caught.value.status, caught.value.code) == (400, code)

    batch_id = start_batch(emulator, GOOD + request_line("bad", body))
    batch = emulator.get_batch(batch_id)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (line,) = errors(emulator, batch_id)
    assert (line["custom_id"], line["error"]) == ("bad", None)
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"]["error"]["message"] == caught.value.message


def test_without_a_good_answer_there_is_no_output_file() -> None:
    emulator = still_emulator()
    batch = emulator.get_batch(start_batch(emulator, request_line("bad", {"model": "gpt-4o-mini"})))
    assert batch["status"] == "completed"
    assert batch["output_file_id"] is None
    assert batch["error_file_id"]
