"""Whatever came back, in whatever order, becomes one row per request in the order of the input."""

from __future__ import annotations

import codecs
import hashlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_openai_batch.errors import AccountingError, InputChangedError
from airflow_openai_batch.report.failed_requests import find_failed, write_failed
from airflow_openai_batch.results.landing import land_shard
from airflow_openai_batch.results.leftovers import find_leftover, write_leftover
from airflow_openai_batch.results.media_files import MediaWriter
from airflow_openai_batch.results.outcome import OutcomeRules
from airflow_openai_batch.results.raw_index import SendFiles
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.shard_on_disk import CHAT, DONE_AT, ShardOnDisk, answer, broken, chat_body, refused, request

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore


@pytest.fixture
def shard(tmp_path: Path) -> ShardOnDisk:
    return ShardOnDisk(tmp_path)


def test_shuffled_answers_become_rows_in_the_order_of_the_input(shard: ShardOnDisk) -> None:
    ids = [f"r{i}" for i in range(500)]
    shard.requests = [request(custom_id) for custom_id in ids]
    lines = [answer(custom_id, chat_body(f"answer to {custom_id}")) for custom_id in ids]
    random.Random(7).shuffle(lines)
    shard.add_send(lines[:300], lines[300:])
    landed = shard.land()
    rows = shard.rows()
    assert [row["custom_id"] for row in rows] == ids
    assert [row["position"] for row in rows] == list(range(10, 510))
    assert all(row["content"] == f"answer to {row['custom_id']}" for row in rows)
    assert landed.rows == {"ok": 500}
    assert landed.retryable == 0
    assert landed.spending.tokens.input == 50_000


def test_row_tells_all_there_is_to_know(shard: ShardOnDisk) -> None:
    shard.requests = [request("a")]
    body = chat_body("Hello")
    shard.add_send([answer("a", body)])
    shard.land(keep_response_body=True)
    row = shard.rows()[0]
    assert row["completed_at"].timestamp() == DONE_AT + 1
    assert json.loads(row["response_body"]) == body
    del row["completed_at"], row["response_body"]
    assert row == {
        "position": 10,
        "source_uri": "in.jsonl",
        "line_number": 1,
        "custom_id": "a",
        "status": "ok",
        "status_code": 200,
        "error_code": None,
        "error_message": None,
        "content": "Hello",
        "refusal": None,
        "parsed": None,
        "choices": None,
        "embeddings": None,
        "media": None,
        "finish_reason": "stop",
        "model": "gpt-4o-mini-2024-07-18",
        "input_tokens": 100,
        "cached_input_tokens": 0,
        "cache_write_tokens": None,
        "output_tokens": 20,
        "reasoning_tokens": 5,
        "cost_usd": pytest.approx((100 * 0.075 + 20 * 0.3) / 1e6),
        "attempts": 1,
        "sent_as": "batch",
        "batch_id": "batch_1",
        "openai_request_id": "req_a",
    }


def test_what_no_file_answers_is_missing_and_may_be_sent_again(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), request("b")]
    shard.add_send([answer("b", chat_body())])
    landed = shard.land()
    assert [row["status"] for row in shard.rows()] == ["missing", "ok"]
    assert landed.retryable == 1
    assert landed.problems[0].code == "missing"
    assert shard.leftover() == ["a"]


def test_no_file_at_all_leaves_every_request_missing(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), request("b")]
    shard.add_send(ended_as="expired")
    assert shard.land().rows == {"missing": 2}
    assert [row["attempts"] for row in shard.rows()] == [0, 0]  # an expired batch did not run them


def test_success_wins_over_an_error_for_the_same_request(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), request("b")]
    shard.add_send(
        [
            refused("a", 500, "server_error"),
            answer("b", chat_body("first")),
            answer("b", chat_body("second")),
        ],
        [answer("a", chat_body("good"))],
    )
    landed = shard.land()
    assert [row["content"] for row in shard.rows()] == ["good", "first"]
    assert landed.duplicates == 2
    assert landed.spending.answers == 2
    assert landed.replaced.answers == 0  # one batch does not charge twice


def test_lines_of_strangers_are_counted_and_in_no_row(shard: ShardOnDisk) -> None:
    shard.requests = [request("a")]
    shard.add_send(
        [answer("a", chat_body()), answer("zzz", chat_body()), b'{"id": "no custom id"}', b'{"custom_id": 7}']
    )
    landed = shard.land()
    assert landed.strays == 3
    assert len(shard.rows()) == 1


def test_second_send_completes_the_first(shard: ShardOnDisk) -> None:
    shard.requests = [request(custom_id) for custom_id in "abcd"]
    shard.add_send([answer("a", chat_body("1")), refused("b", 500, None), refused("c", 400, "invalid_value")])
    assert shard.leftover() == ["b", "d"]
    shard.add_send([answer("b", chat_body("2"))], sent_as="realtime")
    landed = shard.land()
    rows = shard.rows()
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "missing"]
    assert [row["attempts"] for row in rows] == [1, 2, 1, 2]
    assert [row["sent_as"] for row in rows] == ["batch", "realtime", "batch", None]
    assert rows[1]["cost_usd"] == pytest.approx(2 * rows[0]["cost_usd"])  # real time costs the full price
    assert landed.attempts == {1: 2, 2: 2}
    assert shard.leftover() == ["d"]


def test_good_answer_is_never_sent_again_and_never_replaced(shard: ShardOnDisk) -> None:
    shard.requests = [request("a")]
    shard.add_send([answer("a", chat_body("first"))])
    shard.add_send([answer("a", chat_body("second"))])  # a duplicate batch that was harvested
    landed = shard.land()
    assert shard.rows()[0]["content"] == "first"
    assert shard.leftover() == []
    assert landed.replaced.answers == 1  # paid for, and said so
    assert landed.spending.answers == 1


def test_attempts_are_used_up_by_what_ran_alone(shard: ShardOnDisk) -> None:
    shard.requests = [request("a")]
    for _ in range(4):
        shard.add_send([broken("a", "batch_expired")], ended_as="expired")
    assert shard.leftover(max_attempts=2) == ["a"]
    shard.add_send([refused("a", 500, None)])
    assert shard.leftover(max_attempts=2) == ["a"]
    shard.add_send([refused("a", 500, None)])
    assert shard.leftover(max_attempts=2) == []
    shard.land(max_attempts=2)
    row = shard.rows()[0]
    assert (row["status"], row["attempts"], row["error_code"]) == ("failed", 2, "http_500")


def test_answer_that_breaks_its_schema_is_asked_again_and_kept_if_nothing_better_comes(
    shard: ShardOnDisk,
) -> None:
    schema = {"type": "object", "required": ["x"]}
    shard.requests = [
        request("a", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    ]
    shard.add_send([answer("a", chat_body("{}"))])
    assert shard.leftover() == ["a"]
    shard.add_send([refused("a", 500, None)])
    shard.land()
    row = shard.rows()[0]
    assert (row["status"], row["content"], row["attempts"]) == ("invalid_output", "{}", 2)
    shard.add_send([answer("a", chat_body('{"x": 1}'))])
    landed = shard.land()
    assert shard.rows()[0]["parsed"] == '{"x": 1}'
    assert landed.replaced.answers == 1


def test_format_of_responses_is_checked_too(shard: ShardOnDisk) -> None:
    shard.endpoint = "/v1/responses"
    text_format = {"type": "json_schema", "name": "n", "schema": {"type": "object", "required": ["x"]}}
    shard.requests = [request(custom_id, text={"format": text_format}) for custom_id in "ab"]
    output = {"a": '{"x": 1}', "b": "{}"}
    bodies = {
        name: {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}],
        }
        for name, text in output.items()
    }
    shard.add_send([answer(name, body) for name, body in bodies.items()])
    shard.land()
    assert [row["status"] for row in shard.rows()] == ["ok", "invalid_output"]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_is_no_json_is_the_row_of_its_request(shard: ShardOnDisk, cut: int) -> None:
    shard.requests = [request("a"), request("b"), request("c")]
    torn = answer("b", chat_body("secret"))[:-cut]
    shard.add_send([torn, answer("a", chat_body()), b"no line at all {", answer("c", chat_body())])
    landed = shard.land()
    rows = shard.rows()
    assert [row["status"] for row in rows] == ["ok", "invalid_output", "ok"]
    assert rows[1]["error_code"] == "unreadable_answer"
    assert "secret" not in rows[1]["error_message"]
    assert (landed.strays, landed.retryable) == (1, 1)


def test_what_a_torn_answer_cost_is_counted_where_it_can_be_made_out(shard: ShardOnDisk) -> None:
    shard.requests = [request("a")]
    quoted = answer("a", chat_body('one "two" three'))
    shard.add_send([quoted.replace(b'\\"two', b'"two')])
    landed = shard.land()
    row = shard.rows()[0]
    assert (row["status"], row["error_code"]) == ("invalid_output", "unreadable_answer")
    assert "no JSON" in row["error_message"]
    assert (row["input_tokens"], row["output_tokens"]) == (100, 20)
    assert row["cost_usd"] == pytest.approx((100 * 0.075 + 20 * 0.3) / 1e6)
    assert landed.spending.tokens.input == 100


def test_an_id_inside_a_torn_answer_is_not_taken_for_its_own(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), request("b")]
    shard.add_send(
        [
            b'{"id":"1","custom_id":"a","response":{"body":{"text":""broken","custom_id":"b"}}}',
            b'{"response":{"body":{"text":""broken","custom_id":"b"}},"custom_id":"a"}',
        ]
    )
    assert shard.land().strays == 1
    assert [row["status"] for row in shard.rows()] == ["invalid_output", "missing"]


def test_line_ends_and_separators_do_not_split_answers(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), request("b")]
    odd = "one\u2028two\u0085three\x0b\x0c\x1c"
    lines = [json.dumps(json.loads(answer(i, chat_body(odd))), ensure_ascii=False).encode() for i in "ab"]
    shard.add_send(b"\r\n\n" + lines[0] + b"\r\n  \n" + lines[1])
    shard.land()
    assert [row["content"] for row in shard.rows()] == [odd, odd]


def test_a_byte_order_mark_spoils_no_answer(shard: ShardOnDisk) -> None:
    """As gateways write it that are made with .NET: the first answer of each file was paid again."""
    shard.requests = [request("a"), request("b")]
    shard.add_send(codecs.BOM_UTF8 + b"\n".join(answer(i, chat_body(f"is {i}")) for i in "ab"))
    landed = shard.land()
    assert [(row["status"], row["content"]) for row in shard.rows()] == [("ok", "is a"), ("ok", "is b")]
    assert (landed.strays, landed.retryable) == (0, 0)


@pytest.mark.parametrize(
    "custom_id", ["", " ", "a\nb", 'quote"s', "../../etc/passwd", "\u2028", "\x00", "é", "x" * 10_000]
)
def test_any_id_finds_its_answer(shard: ShardOnDisk, custom_id: str) -> None:
    shard.requests = [request(custom_id)]
    shard.add_send([answer(custom_id, chat_body("found"))])
    shard.land()
    row = shard.rows()[0]
    assert (row["custom_id"], row["content"]) == (custom_id, "found")


def test_one_mad_answer_does_not_hold_up_the_others(shard: ShardOnDisk) -> None:
    deep = b"[" * 5000 + b"]" * 5000
    mad = [
        b'{"custom_id":"m0","response":{"status_code":200,"body":' + deep + b"}}",
        b'{"custom_id":"m1","response":{"status_code":1e999,"body":{"choices":NaN}}}',
        b'{"custom_id":"m2","response":{"status_code":99999999999999999999,"body":{}}}',
        b'{"custom_id":"m3","response":"yes"}',
        b'{"custom_id":"m4","response":{"status_code":200,"body":"{"}}',
        b'{"custom_id":"m5","error":[1]}',
        b'{"custom_id":"m6","response":{"status_code":-1,"request_id":{}}}',
        b'{"custom_id":"m7","response":{"status_code":200,"body":{"choices":[{"message":{"content":"\\ud83d"}}]}}}',
        b'{"custom_id":"m8","response":{"status_code":400,"body":{"error":{"code":["x"],"message":{"a":1}}}}}',
    ]
    shard.requests = [request(f"m{i}") for i in range(len(mad))] + [request("good")]
    shard.add_send([*mad, answer("good", chat_body("fine"))])
    landed = shard.land(keep_response_body=True)
    rows = shard.rows()
    assert len(rows) == len(mad) + 1
    assert rows[-1]["content"] == "fine"
    assert rows[7]["content"] == "\ufffd"
    assert all(row["error_code"] for row in rows[:7])
    assert sum(landed.rows.values()) == len(rows)


def test_same_input_gives_the_same_part(shard: ShardOnDisk) -> None:
    shard.requests = [request(f"r{i}") for i in range(50)]
    shard.add_send([answer(f"r{i}", chat_body()) for i in range(40)])
    first, second = shard.land(), shard.land()
    assert first == second
    assert first.part_sha256 == second.part_sha256
    assert hashlib.sha256(Path(shard.part.path).read_bytes()).hexdigest() == first.part_sha256
    assert Path(shard.part.path).stat().st_size == first.part_bytes


def test_other_number_of_requests_than_planned_writes_nothing(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), request("b")]
    shard.add_send([answer("a", chat_body())])
    planned = shard.shard
    with pytest.raises(AccountingError, match="shard 0: the plan says 2 requests, 1 were read"):
        land_shard(
            list(shard.lines())[:1],
            shard.sends,
            shard.part,
            media=MediaWriter(shard.part, 0),
            shard=planned,
            rules=OutcomeRules(),
        )
    assert not Path(shard.part.path).exists()


def test_request_that_is_none_any_more_names_its_line(shard: ShardOnDisk) -> None:
    shard.requests = [request("a"), b"garbage"]
    shard.add_send([answer("a", chat_body())])
    with pytest.raises(InputChangedError, match=r"^in\.jsonl:2: .*on_existing=restart"):
        shard.land()


def test_problems_keep_three_short_examples(shard: ShardOnDisk) -> None:
    shard.requests = [request(f"{i}" + "x" * 1000) for i in range(10)]
    shard.add_send([refused(f"{i}" + "x" * 1000, 400, "invalid_value", "m" * 1000) for i in range(10)])
    problem = shard.land().problems[0]
    assert (problem.code, problem.count, len(problem.examples)) == ("invalid_value", 10, 3)
    assert all(len(example.custom_id) == 200 and len(example.message) == 300 for example in problem.examples)


def test_leftover_and_failed_lines_are_verbatim(shard: ShardOnDisk, tmp_path: Path) -> None:
    odd = b'{ "custom_id" : "b",  "body" : {"z":1.0,"a":"\\u00e9"} }'
    shard.requests = [request("a"), odd, request("c")]
    shard.add_send([answer("a", chat_body()), refused("b", 500, None), refused("c", 400, None)])
    landed = shard.land()
    lines = find_leftover(shard.lines(), shard.sends, endpoint=CHAT, rules=OutcomeRules())
    place = resolve_plain(str(tmp_path / "leftover" / "00000.2.jsonl"))
    leftover = write_leftover(lines, place, shard=shard.shard)
    assert place.read_bytes() == odd + b"\n"
    assert (leftover.requests, leftover.bytes) == (landed.retryable, len(odd) + 1)
    assert 0 < leftover.input_tokens < shard.shard.input_tokens
    failed = resolve_plain(str(tmp_path / "failed.jsonl"))
    assert write_failed([(shard.lines(), shard.part)], failed) == 2
    assert failed.read_bytes() == odd + b"\n" + shard.requests[2] + b"\n"


def test_files_in_an_object_store_are_read_and_written(shard: ShardOnDisk, s3: ObjectStore) -> None:
    shard.requests = [request(f"r{i}") for i in range(100)]
    raw = [answer(f"r{i}", chat_body("x" * 1000)) + b"\n" for i in reversed(range(100))]
    s3.put("raw/00000.1.output.jsonl", b"".join(raw[:60]))
    s3.put("raw/00000.1.error.jsonl", b"".join(raw[60:]))
    store = s3.filesystem()
    output, error, part = (
        Location(store, f"{s3.bucket}/{key}", s3.uri(key))
        for key in ("raw/00000.1.output.jsonl", "raw/00000.1.error.jsonl", "results/part-00000.parquet")
    )
    sends = [SendFiles(send=1, sent_as="batch", files=(output, error))]
    landed = land_shard(
        shard.lines(), sends, part, media=MediaWriter(part, 0), shard=shard.shard, rules=OutcomeRules()
    )
    assert landed.rows == {"ok": 100}
    assert hashlib.sha256(s3.get("results/part-00000.parquet")).hexdigest() == landed.part_sha256
    assert list(find_failed(shard.lines(), part)) == []


outcomes = st.sampled_from(["ok", "500", "400", "expired", "schema", "absent"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(st.lists(outcomes, min_size=4, max_size=4), min_size=1, max_size=4), seed=st.integers()
)
def test_leftovers_of_any_history_are_those_without_a_good_answer_that_may_run_again(
    tmp_path: Path, history: list[list[str]], seed: int
) -> None:
    """A send carries only what the former left; what landed says is what the leftover holds."""
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "required": ["x"]}}}
    shard = ShardOnDisk(tmp_path, requests=[request(f"r{i}", response_format=form) for i in range(4)])
    lines = {
        "ok": lambda name: answer(name, chat_body('{"x": 1}')),
        "500": lambda name: refused(name, 500, None),
        "400": lambda name: refused(name, 400, None),
        "expired": lambda name: broken(name, "batch_expired"),
        "schema": lambda name: answer(name, chat_body("{}")),
    }
    good: set[str] = set()
    ran = dict.fromkeys(("r0", "r1", "r2", "r3"), 0)
    carried = list(ran)
    for send in history:
        kinds = {name: send[int(name[1])] for name in carried}
        raw = [lines[kind](name) for name, kind in kinds.items() if kind != "absent"]
        random.Random(seed).shuffle(raw)
        shard.add_send(raw)
        good |= {name for name, kind in kinds.items() if kind == "ok"}
        for name, kind in kinds.items():
            ran[name] += kind != "expired"
        carried = [n for n, kind in kinds.items() if kind not in ("ok", "400") and ran[n] < 3]
        assert shard.leftover() == carried
    landed = shard.land()
    rows = {row["custom_id"]: row for row in shard.rows()}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == good
    assert {name: row["attempts"] for name, row in rows.items()} == ran
    assert landed.retryable == len(carried)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "refusal",
                    "usage",
                    "prompt_tokens",
                    "error",
                    "output",
                    "data",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    responses=st.lists(
        json_values | st.fixed_dictionaries({"status_code": json_values, "body": json_values}), max_size=4
    ),
    errors=st.lists(json_values, min_size=4, max_size=4),
    endpoint=st.sampled_from(
        [CHAT, "/v1/responses", "/v1/embeddings", "/v1/moderations", "/v1/completions", "/v1/other"]
    ),
)
def test_whatever_json_came_back_lands_as_rows(
    tmp_path: Path, responses: list[object], errors: list[object], endpoint: str
) -> None:
    form = {"type": "json_object"}
    shard = ShardOnDisk(
        tmp_path, endpoint, requests=[request(f"r{i}", response_format=form) for i in range(5)]
    )
    lines = [
        json.dumps({"custom_id": f"r{i}", "response": response, "error": error}).encode()
        for i, (response, error) in enumerate(zip(responses, errors, strict=False))
    ]
    shard.add_send(lines)
    landed = shard.land(keep_response_body=True)
    rows = shard.rows()
    assert len(rows) == sum(landed.rows.values()) == 5
    assert all((row["status"] == "ok") == (row["error_code"] is None) for row in rows)
    assert {row["status"] for row in rows} <= {"ok", "failed", "invalid_output", "missing"}
