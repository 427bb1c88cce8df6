"""A vector stands beside the input it is of, or the request is asked again and says what was missing."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest

from fixtures.shard_on_disk import EMBEDDINGS, ShardOnDisk, answer, request

MODERATIONS = "/v1/moderations"
TEXTS = ["a", "b", "c"]


def item(index: int | None, *numbers: float) -> dict[str, Any]:
    vector = {"embedding": list(numbers or (float(index or 0), 1.0))}
    return vector if index is None else {**vector, "index": index}


def land(folder: Path, data: list[Any], given: Any = None, **asked: Any) -> dict[str, Any]:
    asked = {"model": "text-embedding-3-small", "input": TEXTS if given is None else given, **asked}
    shard = ShardOnDisk(
        folder, endpoint=EMBEDDINGS, model="text-embedding-3-small", requests=[request("r", **asked)]
    )
    usage = {"prompt_tokens": 1_000_000, "total_tokens": 1_000_000}
    shard.add_send([answer("r", {"model": "text-embedding-3-small", "data": data, "usage": usage})])
    landed = shard.land()
    row = shard.rows()[0]
    assert row["cost_usd"] == pytest.approx(0.01)  # paid whatever it is
    assert landed.retryable == (row["status"] != "ok")
    return row


@pytest.mark.parametrize(
    "data",
    [
        [item(2), item(0), item(1)],
        [item(None, 0.0, 1.0), item(None, 1.0, 1.0), item(None, 2.0, 1.0)],
        [
            {"index": index, "embedding": base64.b64encode(struct.pack("<2f", index, 1.0)).decode()}
            for index in (1, 2, 0)
        ],
    ],
    ids=["shuffled", "without numbers", "base64"],
)
def test_vectors_stand_at_the_place_of_their_inputs(tmp_path: Path, data: list[Any]) -> None:
    row = land(tmp_path, data, dimensions=2)
    assert row["status"] == "ok"
    assert row["embeddings"] == [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]


WRONG = {
    # The server may as well have left out another and counted anew: nothing tells.
    "the last left out": ([item(0), item(1)], "missing_parts", "(index 2, "),
    "all left out": ([], "missing_parts", "of 3 inputs 3 have no vectors (index 0, 1, 2, "),
    "one twice": ([item(0), item(0), item(2)], "unreadable_answer", "two embeddings have the index 0"),
    "one too many": (
        [item(0), item(1), item(2), item(3)],
        "unreadable_answer",
        "has the index 3, with 3 inputs",
    ),
    "a negative one": ([item(0), item(-1), item(1)], "unreadable_answer", "has the index -1"),
    "one without a number": ([item(0), item(None), item(2)], "unreadable_answer", "has the index None"),
    "fewer, without numbers": (
        [item(None), item(None)],
        "unreadable_answer",
        "2 embeddings without an index for 3",
    ),
    "one of another length": ([item(0), item(1), item(2, 1.0)], "unreadable_answer", "have 1 to 2 numbers"),
    "empty ones": (
        [{"index": at, "embedding": []} for at in range(3)],
        "unreadable_answer",
        "an embedding is empty",
    ),
    "other dimensions": (
        [item(at, 1.0, 2.0, 3.0) for at in range(3)],
        "unreadable_answer",
        "have 3 numbers, not the 2 dimensions asked for",
    ),
    "half a float": (
        [item(0), item(1), {"index": 2, "embedding": "AAA="}],
        "unreadable_answer",
        "neither numbers nor",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_vector_comes_beside_the_wrong_input(tmp_path: Path, name: str) -> None:
    data, code, words = WRONG[name]
    row = land(tmp_path, data, dimensions=2)
    assert (row["status"], row["error_code"], row["embeddings"]) == ("invalid_output", code, None)
    assert words in row["error_message"]


def test_one_left_out_takes_no_other_with_it(tmp_path: Path) -> None:
    row = land(tmp_path, [item(2), item(0)], dimensions=2)
    assert (row["status"], row["error_code"]) == ("invalid_output", "missing_parts")
    assert "of 3 inputs 1 have no vectors (index 1, counted" in row["error_message"]
    assert row["embeddings"] == [[0.0, 1.0], None, [2.0, 1.0]]


@pytest.mark.parametrize("given", ["a text", [17, 18, 19], ["a text"], [[17, 18, 19]]])
def test_one_input_in_any_form_has_one_vector(tmp_path: Path, given: Any) -> None:
    assert land(tmp_path, [item(0)], given)["embeddings"] == [[0.0, 1.0]]
    assert land(tmp_path, [item(0), item(1)], given)["status"] == "invalid_output"


def test_many_missing_are_named_by_the_first(tmp_path: Path) -> None:
    row = land(tmp_path, [item(0)], [f"text {number}" for number in range(100)])
    assert row["error_message"].endswith("(index 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 89 more, counted from 0).")


def test_results_of_a_moderation_are_counted_too(tmp_path: Path) -> None:
    shard = ShardOnDisk(
        tmp_path,
        endpoint=MODERATIONS,
        model="omni-moderation-latest",
        requests=[request(name, input=TEXTS) for name in "ab"],
    )
    results = [{"flagged": False}] * 3
    shard.add_send([answer("a", {"results": results}), answer("b", {"results": results[:2]})])
    shard.land()
    good, bad = shard.rows()
    assert good["status"] == "ok"
    assert (bad["status"], bad["error_code"], bad["parsed"]) == ("invalid_output", "missing_parts", None)
