"""What is known of a model, whoever says it, and what of one that is newer than all that is known."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from airflow_openai_batch.job.plan import Shard
from airflow_openai_batch.openai_api.model_table import read_model_table
from airflow_openai_batch.openai_api.models import (
    context_tokens,
    encoding_of,
    find_price_entry,
    find_stand_in,
    most_output_tokens,
)
from airflow_openai_batch.openai_api.prices import price_answer
from airflow_openai_batch.openai_api.tiers import enqueued_tokens, tokens_per_minute
from airflow_openai_batch.planning.token_notices import describe_token_doubts


def make_shard(model: str) -> Shard:
    return Shard(
        shard=0, model=model, endpoint="/v1/chat/completions", requests=1, bytes=1, input_tokens=1, sha256="",
        first_position=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "window", "output", "queue"),
    [
        ("gpt-6-luna", 1_050_000, 128_000, 2_000_000),
        ("gpt-6.1-sol", 1_050_000, 128_000, 1_500_000),  # in the queue like gpt-5.6-sol
        ("gpt-5.6-luna-2026-07-09", 1_050_000, 128_000, 5_000_000),
        ("gpt-5.4-mini", 400_000, 128_000, 5_000_000),
        ("gpt-5.2", 400_000, 128_000, 1_500_000),
        ("gpt-4.1", 1_047_576, 32_768, 90_000),  # not the 1,000,000 that genai-prices rounds to
        ("ft:gpt-4o-mini-2024-07-18:us::1", 128_000, 16_384, 2_000_000),
        ("gpt-3.5-turbo-instruct", 4_096, 4_096, None),
        ("gpt-4", 8_192, 8_192, None),  # older than those of its family whose queue is known
        ("o3", 200_000, 100_000, None),
        ("text-embedding-3-small", 8_192, None, 3_000_000),
        # Newer than all that is known.
        ("gpt-6.3-luna", 1_050_000, 128_000, 2_000_000),
        ("gpt-7-luna-2027-02-01", 1_050_000, 128_000, 2_000_000),
        ("gpt-6.2-sol", 1_050_000, 128_000, 1_500_000),
        ("gpt-6.10-terra", 1_050_000, 128_000, None),
        ("gpt-7", 1_050_000, 128_000, 1_500_000),
        ("gpt-6.5-mini", 400_000, 128_000, 5_000_000),
        # Of no family.
        ("gpt-7-nebula", None, None, None),
        ("my-deployment", None, None, None),
        ("llama-3.3-70b", None, None, None),
    ],
)
def test_limits_of_a_model(model: str, window: int | None, output: int | None, queue: int | None) -> None:
    assert (context_tokens(model), most_output_tokens(model)) == (window, output)
    assert enqueued_tokens(model, "1") == queue
    assert (tokens_per_minute(model, "5") is None) == (queue is None)


def test_what_stands_in_for_a_newer_model_is_said_once_and_its_price_is_not_taken_over() -> None:
    shards = [make_shard("gpt-6.3-luna"), make_shard("gpt-6.3-luna"), make_shard("gpt-6-luna")]
    told = [each for each in describe_token_doubts(shards, "exact") if "Not known here yet" in each]
    assert told == [
        "Not known here yet, so counted and limited like the youngest of the family that is: gpt-6.3-luna like "
        "gpt-6-luna (1,050,000 tokens to read, 128,000 to write). Prices are not taken over."
    ]
    assert encoding_of("gpt-6.3-luna")[0] == encoding_of("gpt-6-luna")[0]
    assert price_answer("gpt-6.3-luna", "batch", 1, 1) is None


def test_nothing_stands_in_for_what_is_known_or_has_no_family() -> None:
    for model in ("gpt-6-luna", "gpt-5.2", "my-deployment", "gpt-4o-mini-2024-07-18"):
        assert find_stand_in(model) is None


def test_the_table_holds_only_what_the_library_lacks() -> None:
    """A window that genai-prices has by now is not kept beside it."""
    for name, row in read_model_table().models.items():
        entry = find_price_entry(name)
        if row.context_tokens is not None and entry is not None:
            assert entry.context_window != row.context_tokens, (
                f"{name}: take context_tokens out of models.toml"
            )


def test_every_row_says_where_it_is_from_and_when() -> None:
    table = read_model_table()
    for row in {*table.models.values(), *table.queues.values(), *table.ends.values()}:
        assert len(row.source) > 10
        assert date(2026, 11, 1) <= row.read <= datetime.now(UTC).date()


def test_dags_are_parsed_without_reading_prices() -> None:
    """They name the default model alone, and a third of a second at each parse would be for nothing."""
    code = "import sys, airflow_openai_batch.openai_api.models; print('genai_prices' in sys.modules)"
    include = Path(__file__).resolve().parents[2] / "include"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(include)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
