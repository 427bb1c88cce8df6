"""Plain answers become rows many at once, and these are the rows that reading each by itself makes.

A landing that keeps response bodies reads each by itself, so every landing here is done both ways.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_openai_batch.openai_api.own_prices import OwnPrice, OwnPrices
from airflow_openai_batch.openai_api.plain_answers import PLAIN_READERS
from airflow_openai_batch.results.raw_index import KEPT_BYTES
from fixtures.odd_answers import BODIES, MODELS, draw_odd_shard, list_odd_responses
from fixtures.shard_on_disk import ShardOnDisk, answer, chat_body, request

SHARDS = int(os.environ.get("ODD_SHARDS", "40"))


def land_both_ways(shard: ShardOnDisk, own_prices: OwnPrices, **rules: Any) -> tuple[list[Any], list[Any]]:
    """Rows and summary of each way, as far as they can be the same."""
    found = []
    for keep_response_body in (False, True):
        landed = shard.land(keep_response_body=keep_response_body, own_prices=own_prices, **rules)
        summary = msgspec.to_builtins(landed, str_keys=True)
        for name in ("part_bytes", "part_sha256"):
            del summary[name]
        rows = shard.rows()
        for row in rows:
            del row["response_body"]
        found.append([rows, summary])
    return found[0], found[1]


def approximate(value: Any) -> Any:
    """Sums of floats depend on their order."""
    if isinstance(value, dict):
        return {name: approximate(each) for name, each in value.items()}
    return pytest.approx(value) if isinstance(value, float) else value


@pytest.mark.parametrize("endpoint", BODIES)
def test_answers_as_the_reference_shows_them_are_plain(endpoint: str) -> None:
    found = PLAIN_READERS[endpoint].read(answer("a", BODIES[endpoint]), 0)
    assert found is not None
    assert found.custom_id == "a"
    assert found.request_id == "req_a"


@pytest.mark.parametrize("endpoint", BODIES)
@pytest.mark.parametrize("model", MODELS)
def test_whatever_makes_a_difference_makes_it_both_ways(tmp_path: Path, endpoint: str, model: str) -> None:
    shard = ShardOnDisk(tmp_path, endpoint)
    lines = []
    for number, response in enumerate(list_odd_responses(endpoint, model)):
        shard.requests.append(request(f"r{number}", input="text"))
        lines.append(
            json.dumps({"id": "batch_req_1", "custom_id": f"r{number}", "response": response}).encode()
        )
    shard.add_send(lines)
    (rows, summary), (expected, expected_summary) = land_both_ways(shard, OwnPrices())
    assert rows == expected
    assert summary == approximate(expected_summary)


def test_odd_answers_make_the_same_rows_both_ways(tmp_path: Path) -> None:
    prices = (OwnPrices(), OwnPrices({"gpt-4o": OwnPrice.of(3, 7)}))
    plain = 0
    for seed in range(SHARDS):
        shard = draw_odd_shard(seed, tmp_path)
        rules = {"accept": frozenset({"truncated"})} if seed % 3 == 0 else {}
        (rows, summary), (expected, expected_summary) = land_both_ways(shard, prices[seed % 2], **rules)
        assert rows == expected, f"seed {seed}"
        assert summary == approximate(expected_summary), f"seed {seed}"
        plain += sum(row["status"] == "ok" for row in rows)
    assert plain > 10 * SHARDS


def test_answers_beyond_what_is_kept_in_memory_are_read_when_their_row_is_made(tmp_path: Path) -> None:
    """Plain ones of both kinds, and odd ones, stand between each other in the input."""
    shard = ShardOnDisk(tmp_path)
    numbers = list(range(KEPT_BYTES // 90_000))
    shard.requests = [request(f"r{number}") for number in numbers]
    random.Random(7).shuffle(numbers)
    for half in (numbers[::2], numbers[1::2]):
        shard.add_send(
            [
                answer(
                    f"r{number}",
                    chat_body(f"{number} " * 40_000, finish_reason="length" if number % 5 == 0 else "stop"),
                )
                for number in half
            ]
        )
    (rows, summary), (expected, expected_summary) = land_both_ways(shard, OwnPrices())
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(len(numbers))]
    assert rows == expected
    assert summary == approximate(expected_summary)
