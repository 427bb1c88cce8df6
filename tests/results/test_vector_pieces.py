"""A request that got some of its vectors is asked for the others alone, and all that came stands in its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.shard_on_disk import EMBEDDINGS, ShardOnDisk, answer, broken, refused, request

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

MODEL = "text-embedding-3-small"
VECTORS = {"a": [1.0, 0.0], "b": [2.0, 0.0], "c": [3.0, 0.0], "d": [4.0, 0.0]}
TEXTS = list(VECTORS)


def respond(items: list[dict[str, Any]], **changes: Any) -> bytes:
    """An answer that costs a dollar cent in a batch."""
    usage = {"prompt_tokens": 1_000_000, "total_tokens": 1_000_000}
    return answer("r", {"model": MODEL, "data": items, "usage": usage, **changes})


def give(sent: list[str], *wanted: str, **changes: Any) -> bytes:
    """Of what was sent, the vectors of these texts, in the order in which they are named."""
    return respond([{"index": sent.index(text), "embedding": VECTORS[text]} for text in wanted], **changes)


@pytest.fixture
def shard(tmp_path: Path) -> ShardOnDisk:
    asked = request("r", model=MODEL, input=TEXTS, dimensions=2)
    return ShardOnDisk(tmp_path, endpoint=EMBEDDINGS, model=MODEL, requests=[asked])


def read_inputs(leftover: tuple[Location, ...]) -> list[Any]:
    return [json.loads(line)["body"]["input"] for line in leftover[0].read_bytes().splitlines()]


def land_row(shard: ShardOnDisk, **rules: Any) -> dict[str, Any]:
    landed = shard.land(**rules)
    row = shard.rows()[0]
    assert (row["status"] == "ok") == (row["embeddings"] == list(VECTORS.values()))
    paid = landed.spending.cost_usd + landed.replaced.cost_usd
    billed = landed.spending.tokens.input + landed.replaced.tokens.input
    assert (paid, billed) == (pytest.approx(0.01 * billed / 1_000_000), billed)
    assert landed.spending.answers == 1
    return row | {"paid_usd": paid, "retryable": landed.retryable}


def test_vectors_of_several_sends_come_together_in_any_order(shard: ShardOnDisk) -> None:
    shard.add_send([give(TEXTS, "d", "b")])
    row = land_row(shard)
    assert row["embeddings"] == [None, [2.0, 0.0], None, [4.0, 0.0]]
    assert row["error_message"].endswith("of 4 inputs 2 have no vectors (index 0, 2, counted from 0).")
    leftover = shard.write_leftover()
    assert read_inputs(leftover) == [["a", "c"]]
    shard.add_send([give(["a", "c"], "c", "a")], leftover=leftover, sent_as="realtime")
    landed = shard.land(keep_response_body=True)
    row = shard.rows()[0]
    assert row["embeddings"] == list(VECTORS.values())
    assert (row["status"], row["attempts"], row["error_code"]) == ("ok", 2, None)
    assert (row["input_tokens"], row["cost_usd"]) == (2_000_000, pytest.approx(0.01 + 0.02))
    assert (row["sent_as"], row["batch_id"]) == ("realtime", "batch_2")
    assert row["response_body"] is None, "no single one has all of them"
    assert (landed.retryable, landed.replaced.cost_usd) == (0, 0.0)
    assert (landed.spending.answers, landed.spending.tokens.input) == (1, 2_000_000)


def test_a_third_send_brings_what_the_second_still_lacked(shard: ShardOnDisk) -> None:
    shard.add_send([give(TEXTS, "d")])
    second = shard.write_leftover()
    assert read_inputs(second) == [["a", "b", "c"]]
    shard.add_send([give(["a", "b", "c"], "c", "a")], leftover=second)
    assert land_row(shard)["embeddings"] == [[1.0, 0.0], None, [3.0, 0.0], [4.0, 0.0]]
    third = shard.write_leftover()
    assert read_inputs(third) == [["b"]]
    shard.add_send([give(["b"], "b")], leftover=third)
    row = land_row(shard)
    assert (row["status"], row["attempts"], row["cost_usd"]) == ("ok", 3, pytest.approx(0.03))


@pytest.mark.parametrize(
    "line",
    [refused("r", 500, None), broken("r", "batch_expired"), refused("r", 400, "invalid_value"), respond([])],
    ids=["500", "expired", "400", "nothing"],
)
def test_what_came_stays_whatever_the_next_send_meets(shard: ShardOnDisk, line: bytes) -> None:
    shard.add_send([give(TEXTS, "a", "d")])
    shard.add_send([line], leftover=shard.write_leftover())
    row = land_row(shard)
    assert (row["status"], row["error_code"]) == ("invalid_output", "missing_parts")
    assert row["embeddings"] == [[1.0, 0.0], None, None, [4.0, 0.0]]
    if row["retryable"]:
        again = shard.write_leftover()
        assert read_inputs(again) == [["b", "c"]]
        shard.add_send([give(["b", "c"], "b", "c")], leftover=again)
        assert land_row(shard)["status"] == "ok"


def test_after_the_last_attempt_a_row_keeps_the_vectors_that_came(shard: ShardOnDisk) -> None:
    shard.add_send([give(TEXTS, "a", "d")])
    shard.add_send([give(["b", "c"], "c")], leftover=shard.write_leftover())
    row = land_row(shard, max_attempts=2)
    assert (row["status"], row["retryable"], row["paid_usd"]) == ("invalid_output", 0, pytest.approx(0.02))
    assert row["embeddings"] == [[1.0, 0.0], None, [3.0, 0.0], [4.0, 0.0]]


def test_equal_inputs_share_the_vector_that_came_for_one_of_them(tmp_path: Path) -> None:
    asked = request("r", model=MODEL, input=["a", "a", "b", "a", "c"])
    shard = ShardOnDisk(tmp_path, endpoint=EMBEDDINGS, model=MODEL, requests=[asked])
    shard.add_send([respond([{"index": at, "embedding": VECTORS["a"]} for at in (0, 3)])])
    leftover = shard.write_leftover()
    assert read_inputs(leftover) == [["b", "c"]]
    shard.add_send([give(["b", "c"], "c", "b")], leftover=leftover)
    shard.land()
    assert shard.rows()[0]["embeddings"] == [VECTORS[text] for text in "aabac"]


def test_a_leftover_of_an_earlier_release_carries_all_inputs(shard: ShardOnDisk, tmp_path: Path) -> None:
    shard.add_send([give(TEXTS, "a", "d")])
    leftover = shard.write_leftover()
    leftover[0].write_bytes(shard.requests[0] + b"\n")
    shard.add_send([give(TEXTS, "d", "c", "b")], leftover=leftover)
    assert land_row(shard)["status"] == "ok"


def test_of_a_send_whose_leftover_is_gone_only_a_whole_answer_counts(shard: ShardOnDisk) -> None:
    shard.add_send([give(TEXTS, "a", "d")])
    shard.add_send([give(["b", "c"], "c")], leftover=())
    row = land_row(shard)
    assert row["embeddings"] == [[1.0, 0.0], None, None, [4.0, 0.0]]
    assert read_inputs(shard.write_leftover()) == [["b", "c"]]
    shard.add_send([give(TEXTS, *TEXTS)], leftover=())
    assert land_row(shard)["status"] == "ok"


@pytest.mark.parametrize(
    "spoil",
    [{"model": "another"}, {"data": [{"index": at, "embedding": [1.0, 2.0, 3.0]} for at in (0, 1)]}],
    ids=["another model", "another length"],
)
def test_vectors_that_do_not_go_together_are_not_put_together(tmp_path: Path, spoil: dict[str, Any]) -> None:
    asked = request("r", model=MODEL, input=TEXTS)
    shard = ShardOnDisk(tmp_path, endpoint=EMBEDDINGS, model=MODEL, requests=[asked])
    shard.add_send([give(TEXTS, "a", "d")])
    shard.add_send([give(["b", "c"], "b", "c", **spoil)], leftover=shard.write_leftover())
    row = land_row(shard)
    assert row["embeddings"] == [[1.0, 0.0], None, None, [4.0, 0.0]]
    assert row["retryable"] == 1


def test_inputs_keep_their_bytes(tmp_path: Path) -> None:
    line = b'{ "custom_id" : "r", "body": {"z": 1.0, "model": "m", "input": ["\\u00e9", [1, 2], "\xc3\xa9", "x"]}}'
    shard = ShardOnDisk(tmp_path, endpoint=EMBEDDINGS, model=MODEL, requests=[line])
    shard.add_send([respond([{"index": at, "embedding": [1.0, 0.0]} for at in (0, 3)])])
    leftover = shard.write_leftover()
    assert b'"z":1.0' in leftover[0].read_bytes()
    assert b'[[1, 2],"\xc3\xa9"]' in leftover[0].read_bytes()


@pytest.mark.parametrize("text", [[17, 18, 19], "a text", ["a text"]])
def test_a_single_input_is_asked_again_as_it_is(tmp_path: Path, text: Any) -> None:
    asked = [request(name, model=MODEL, input=text) for name in ("r", "s")]
    shard = ShardOnDisk(tmp_path, endpoint=EMBEDDINGS, model=MODEL, requests=asked)
    shard.add_send([respond([])])
    leftover = shard.write_leftover()
    assert read_inputs(leftover) == [text, text]
    shard.add_send([respond([{"index": 0, "embedding": [1.0, 2.0]}])], leftover=leftover)
    shard.land()
    assert [row["embeddings"] for row in shard.rows()] == [[[1.0, 2.0]], None]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(TEXTS), min_size=2, max_size=6),
    history=st.lists(
        st.sampled_from(["500", "expired"]) | st.sets(st.integers(0, 5)), min_size=1, max_size=5
    ),
)
def test_whatever_a_server_leaves_out_no_vector_is_wrong_and_none_that_came_is_asked_again(
    tmp_path: Path, texts: list[str], history: list[str | set[int]]
) -> None:
    asked = request("r", model=MODEL, input=texts)
    shard = ShardOnDisk(tmp_path, endpoint=EMBEDDINGS, model=MODEL, requests=[asked])
    open_, leftover, paid = texts, None, 0
    for came in history:
        if isinstance(came, str):
            line = refused("r", 500, None) if came == "500" else broken("r", "batch_expired")
        else:
            paid += 1
            data = [{"index": at, "embedding": VECTORS[text]} for at, text in enumerate(open_) if at in came]
            line = respond(data[::-1])
        shard.add_send([line], leftover=leftover)
        landed = shard.land(max_attempts=9)
        row = shard.rows()[0]
        vectors = row["embeddings"] or [None] * len(texts)
        assert all(found in (None, VECTORS[text]) for text, found in zip(texts, vectors, strict=True))
        assert landed.spending.tokens.input + landed.replaced.tokens.input == paid * 1_000_000
        if row["status"] == "ok":
            assert None not in vectors
            return
        leftover = shard.write_leftover(max_attempts=9)
        (open_,) = read_inputs(leftover)
        assert open_ == [text for text, found in zip(texts, vectors, strict=True) if found is None]
