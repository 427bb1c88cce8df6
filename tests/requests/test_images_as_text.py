"""Images in requests: billed by a formula, and in the queue perhaps counted as the text that they are."""

from __future__ import annotations

import base64
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.planning.split import Counting
from airflow_openai_batch.requests.tokens.counters import exact_counter
from fixtures.split_input import request_line, split, write_lines

IMAGE_TOKENS = 85 + 170  # one tile of 512 by 512 for gpt-4o


def data_url(size: int = 3_000) -> str:
    """A PNG of 512 by 512 pixels by its header, the rest noise."""
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 512, 512)
    noise = random.Random(size).randbytes(size)
    return "data:image/png;base64," + base64.b64encode(header + noise).decode()


def image_line(custom_id: str, url: str, model: str = "gpt-4o") -> str:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return request_line(custom_id, model=model, messages=[{"role": "user", "content": content}])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [image_line(f"{n}", data_url(3_000 + n)) for n in range(4)]
    return write_lines(tmp_path / "in.jsonl", lines)


@pytest.mark.parametrize("mode", ["exact", "bound"])
def test_as_text_the_queue_gets_all_of_it_and_the_bill_what_the_model_reads(
    tmp_path: Path, source: Path, mode: Any
) -> None:
    usual = split(source, tmp_path / "usual").plan.shards[0]
    counting = Counting(mode=mode, count_images="text", workers=0)
    shard = split(source, tmp_path / "job", counting=counting).plan.shards[0]
    as_text = sum(exact_counter("o200k_base").count([data_url(3_000 + n) for n in range(4)]))
    assert usual.input_tokens == 4 * (IMAGE_TOKENS + 3 + 1 + 3)
    exact = usual.input_tokens - 4 * IMAGE_TOKENS + as_text
    assert shard.input_tokens == exact if mode == "exact" else shard.input_tokens > exact
    assert shard.expected_tokens == pytest.approx(usual.input_tokens, rel=0.05)  # a sample


def test_an_image_that_is_long_as_text_is_not_too_long_for_the_model(tmp_path: Path) -> None:
    line = image_line("a", data_url(300_000))  # more tokens than gpt-4o can read, as text
    source = write_lines(tmp_path / "in.jsonl", [line])
    plan = split(source, tmp_path / "job", counting=Counting(count_images="text", workers=0)).plan
    assert plan.counts.requests == 1
    assert plan.shards[0].input_tokens > 128_000


def test_shards_keep_the_limit_as_it_is_counted(tmp_path: Path, source: Path) -> None:
    options = {"max_tokens": 6_000}
    assert len(split(source, tmp_path / "usual", **options).plan.shards) == 1
    counting = Counting(count_images="text", workers=0)
    plan = split(source, tmp_path / "job", counting=counting, **options).plan
    assert len(plan.shards) > 1
    assert all(shard.input_tokens <= 6_000 for shard in plan.shards)


@pytest.mark.parametrize("count_images", ["formula", "text"])
def test_one_notice_says_that_the_queue_may_count_otherwise(
    tmp_path: Path, source: Path, count_images: Any
) -> None:
    counting = Counting(count_images=count_images, workers=0)
    notices = split(source, tmp_path / "job", counting=counting).notices
    (notice,) = [notice for notice in notices if "images in them" in notice]
    assert "4 requests" in notice
    other = "text" if count_images == "formula" else "formula"
    assert f"count_images={other}" in notice


def test_images_at_a_web_address_are_no_text_of_the_request(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [image_line("a", "https://example.com/cat.png")])
    usual = split(source, tmp_path / "usual")
    as_text = split(source, tmp_path / "job", counting=Counting(count_images="text", workers=0))
    assert as_text.plan.shards[0].input_tokens == usual.plan.shards[0].input_tokens
    assert not any("images in them" in notice for notice in (*usual.notices, *as_text.notices))


def test_a_job_goes_on_counting_as_it_was_planned(tmp_path: Path, source: Path) -> None:
    counting = Counting(count_images="text", workers=0)
    plan = split(source, tmp_path / "job", counting=counting, max_tokens=6_000).plan
    source.touch()  # newer, with the same content: it is scanned again
    again = split(source, tmp_path / "job", max_tokens=6_000)
    assert again.plan == plan
    assert any("counts images as text; asked for was formula" in notice for notice in again.notices)


def test_processes_count_images_the_same_way(tmp_path: Path, source: Path) -> None:
    alone = Counting(count_images="text", workers=0)
    pooled = Counting(count_images="text", workers=1)
    plans = [split(source, tmp_path / f"{n}", counting=each).plan for n, each in enumerate((alone, pooled))]
    assert plans[0].shards == plans[1].shards
