"""What a split keeps, whatever the input: every request once, in order, within the limits."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_openai_batch.errors import EmptyInputError, InputError
from airflow_openai_batch.job.shard_reader import ShardReader
from airflow_openai_batch.planning.split import Counting
from airflow_openai_batch.requests.tokens import count_request_tokens
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.split_input import read_rejected, read_shards, request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan

LINES = st.one_of(
    st.builds(
        lambda number, text, model: request_line(f"id-{number}", text, model=model),
        st.integers(0, 60),
        st.text(max_size=30),
        st.sampled_from(["gpt-4o", "gpt-4o", "gpt-4o", "gpt-4o-mini"]),
    ),
    st.builds(
        lambda number, texts: json.dumps(
            {
                "custom_id": f"id-{number}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": "text-embedding-3-small", "input": texts},
            }
        ),
        st.integers(61, 90),
        st.lists(st.text(max_size=5), min_size=1, max_size=4),
    ),
    st.sampled_from(["", "  ", "nonsense", "[]", '{"custom_id": 1}', request_line("x", stream=True)]),
)


def store(path: Path, content: bytes, kind: str) -> Path:
    path = path.with_name(path.name + kind)
    packed = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[kind](content)
    path.write_bytes(packed)
    return path


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_request_is_in_one_shard_in_order(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a reading of the same files line by line, with blank and bad lines, BOMs, CRLF and no last newline."""
    folder = tmp_path_factory.mktemp("split")
    sources: list[Path] = []
    expected: list[tuple[int, str, int, bytes]] = []
    rejected: list[tuple[str, int]] = []
    seen: set[str] = set()
    position = 0
    for number in range(data.draw(st.integers(1, 3))):
        lines = data.draw(st.lists(LINES, max_size=25))
        end = data.draw(st.sampled_from(["\n", "\r\n"]))
        content = end.join(lines) + data.draw(st.sampled_from(["", end]))
        bom = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
        kind = data.draw(st.sampled_from(["", "", ".gz", ".zst"]))
        if content.lstrip().startswith("["):
            content = "\n" + request_line(f"first-{number}") + "\n" + content
        path = store(folder / f"{number}.jsonl", bom + content.encode(), kind)
        sources.append(path)
        for line_number, line in enumerate(content.encode().split(b"\n"), start=1):
            if not line.strip():
                continue
            custom_id = json.loads(line).get("custom_id") if line.startswith(b"{") else None
            if b"stream" in line or not isinstance(custom_id, str) or custom_id in seen:
                rejected.append((str(path), line_number))
            else:
                seen.add(custom_id)
                expected.append((position, str(path), line_number, line))
            position += 1
    limits = {
        "max_requests": data.draw(st.integers(1, 20)),
        "max_bytes": data.draw(st.integers(400, 3_000)),
        "max_tokens": data.draw(st.none() | st.integers(150, 600)),
        "max_embedding_inputs": data.draw(st.integers(4, 12)),
    }
    job = folder / "job"

    plan = split(sources, job, on_bad_line="reject", on_empty="skip", **limits).plan

    shards = read_shards(plan, job)
    assert [msgspec.structs.astuple(line) for shard in shards for line in shard] == expected
    assert [(line["source"], line["line_number"]) for line in read_rejected(job)] == rejected
    assert plan.counts.positions == position == len(expected) + len(rejected)
    assert (plan.counts.requests, plan.counts.rejected) == (len(expected), len(rejected))
    check_shards(plan, job, limits)


def can_bind(limits: dict[str, Any]) -> bool:
    return limits["max_tokens"] is not None and limits["max_tokens"] < limits["max_bytes"]


def check_shards(plan: Plan, job: Path, limits: dict[str, Any]) -> None:
    """Bytes and digests are those of the upload; no limit is broken; no shard was closed too early."""
    output = resolve_plain(str(job))
    for shard in plan.shards:
        upload = ShardReader(plan.sources, shard, output, resolve_plain).open_upload().read()
        requests = [json.loads(line) for line in upload.splitlines(keepends=False) if line]
        assert len(upload) == shard.bytes <= limits["max_bytes"]
        assert upload.endswith(b"\n")
        assert hashlib.sha256(upload).hexdigest() == shard.sha256
        assert len(requests) == shard.requests <= limits["max_requests"]
        assert {request["body"]["model"] for request in requests} == {shard.model}
        assert {request["url"] for request in requests} == {shard.endpoint}
        assert shard.embedding_inputs <= limits["max_embedding_inputs"]
        tokens = sum(count_request_tokens(request["body"], request["url"]).tokens for request in requests)
        assert shard.input_tokens == tokens  # so small an input is always counted
        assert not can_bind(limits) or tokens <= limits["max_tokens"]
    for before, after in zip(plan.shards, plan.shards[1:], strict=False):
        first = ShardReader(plan.sources, after, output, resolve_plain)
        line = next(iter(first.lines())).line + b"\n"
        body = json.loads(line)["body"]
        tokens = count_request_tokens(body, after.endpoint).tokens if can_bind(limits) else len(line) - 1
        inputs = len(body["input"]) if "input" in body else 0
        assert (
            (before.model, before.endpoint) != (after.model, after.endpoint)
            or before.requests == limits["max_requests"]
            or before.bytes + len(line) > limits["max_bytes"]
            or before.input_tokens + tokens > (limits["max_tokens"] or 1e9)
            or before.embedding_inputs + inputs > limits["max_embedding_inputs"]
        )


def test_mixed_models_and_endpoints_never_share_a_shard(tmp_path: Path) -> None:
    lines = [
        request_line("a", model="gpt-4o"),
        request_line("b", model="gpt-4o"),
        request_line("c", model="gpt-4o-mini"),
        request_line("d", url="/v1/responses", body={"model": "gpt-4o-mini", "input": "x"}),
        request_line("e", model="gpt-4o"),
    ]
    plan = split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job").plan
    assert [(shard.model, shard.endpoint, shard.requests) for shard in plan.shards] == [
        ("gpt-4o", "/v1/chat/completions", 2),
        ("gpt-4o-mini", "/v1/chat/completions", 1),
        ("gpt-4o-mini", "/v1/responses", 1),
        ("gpt-4o", "/v1/chat/completions", 1),
    ]


def test_nothing_is_copied_for_plain_input(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request_line(str(number)) for number in range(10)])
    split(source, tmp_path / "job")
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["plan.json"]


def test_a_shard_in_very_many_pieces_is_staged(tmp_path: Path) -> None:
    """A blank line after each request would be a range of its own for each."""
    lines = [line for number in range(3_000) for line in (request_line(str(number)), "")]
    plan = split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job", max_requests=2_000).plan
    first, second = plan.shards
    assert (first.staged, first.segments_file) == ("staged/00000.jsonl", "staged/00000.segments.json")
    assert (second.staged, len(second.segments)) == (None, 1_000)
    assert (tmp_path / "job" / "staged" / "00000.jsonl").stat().st_size == first.bytes
    assert len((tmp_path / "job" / "plan.json").read_bytes()) < 200_000
    shards = read_shards(plan, tmp_path / "job")
    assert [line.line_number for shard in shards for line in shard] == list(range(1, 6_000, 2))
    assert [line.position for shard in shards for line in shard] == list(range(3_000))


def test_the_plan_depends_on_the_input_only(tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "in.jsonl", [request_line(str(number), "x" * number) for number in range(300)]
    )
    plans = [
        split(source, tmp_path / name, max_requests=7, now=now, run_key=name).plan
        for name, now in (("one", 1.0), ("two", 2.0))
    ]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert plans[0].shards == plans[1].shards
    other = split(source, tmp_path / "three", max_requests=8).plan
    assert other.fingerprint != plans[0].fingerprint


def test_bound_counts_no_text_but_estimates_from_a_sample(tmp_path: Path) -> None:
    lines = [
        request_line(str(number), "a few words of English, and some more " * 20) for number in range(2_000)
    ]
    source = write_lines(tmp_path / "in.jsonl", lines)
    exact = split(source, tmp_path / "exact", counting=Counting(mode="exact", workers=0)).plan.shards[0]
    bound = split(source, tmp_path / "bound", counting=Counting(mode="bound")).plan.shards[0]
    assert split(source, tmp_path / "auto").plan.shards[0].tokens == "exact"  # so small an input is counted
    assert (exact.tokens, bound.tokens) == ("exact", "upper")
    assert bound.input_tokens == bound.bytes - bound.requests
    assert exact.estimated_tokens is None
    assert bound.estimated_tokens == pytest.approx(exact.input_tokens, rel=0.02)


def test_a_limit_that_can_bind_is_counted_exactly(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request_line(str(number)) for number in range(100)])
    plan = split(source, tmp_path / "job", max_tokens=95).plan  # 9 tokens each
    assert {shard.tokens for shard in plan.shards} == {"exact"}
    assert [shard.requests for shard in plan.shards] == [10] * 10


@pytest.mark.parametrize("mode", ["exact", "bound"])
def test_requests_that_can_never_fit_are_rejected_with_the_number(tmp_path: Path, mode: Any) -> None:
    lines = [request_line("fits"), request_line("long", "word " * 500), request_line("fits, too", "a" * 300)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    counting = Counting(mode=mode, workers=0)
    plan = split(source, tmp_path / "job", on_bad_line="reject", max_tokens=200, counting=counting).plan
    assert plan.counts.requests == 2
    (line,) = read_rejected(tmp_path / "job")
    assert (line["custom_id"], line["code"]) == ("long", "too_many_tokens")
    assert "has 508 input tokens, limit 200 per shard" in line["message"]
    assert "max_tokens_per_shard" in line["message"]


def test_a_request_over_the_context_of_its_model_is_rejected(tmp_path: Path) -> None:
    embedding = {"model": "text-embedding-3-small", "input": ["short", "word " * 9_000]}
    lines = [
        request_line("chat", "word " * 9_000, model="gpt-4"),
        request_line("same for a model not known here", "word " * 9_000, model="mystery-1"),
        request_line("embedding", url="/v1/embeddings", body=embedding),
    ]
    plan = split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job", on_bad_line="reject").plan
    assert [shard.model for shard in plan.shards] == ["mystery-1"]
    messages = [line["message"] for line in read_rejected(tmp_path / "job")]
    assert messages == [
        "the request has 9,008 tokens, limit 8,192 of gpt-4. Shorten it",
        "an input text has 9,001 tokens, limit 8,192 of text-embedding-3-small. Shorten it",
    ]


@pytest.mark.parametrize("length", [2_000, 9_000_000])
def test_a_line_over_the_limit_is_rejected_without_being_kept(tmp_path: Path, length: int) -> None:
    lines = [
        request_line("a"),
        request_line("b", "x" * length),
        request_line("c"),
        request_line("d", "y" * length),
    ]
    source = write_lines(tmp_path / "in.jsonl", lines)
    plan = split(source, tmp_path / "job", on_bad_line="reject", max_bytes=1_500).plan
    assert [line.line_number for shard in read_shards(plan, tmp_path / "job") for line in shard] == [1, 3]
    rejected = read_rejected(tmp_path / "job")
    assert [(line["line_number"], line["position"], line["code"]) for line in rejected] == [
        (2, 1, "too_long"),
        (4, 3, "too_long"),
    ]
    assert rejected[0]["message"].startswith(
        f"request has {len(lines[1]) + 1:,} bytes, limit 1,500 per shard"
    )


def test_more_shards_than_airflow_maps_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request_line(str(number)) for number in range(30)])
    message = r"makes 30 shards, but \[core\] max_map_length .* allows 20 .*MAX_MAP_LENGTH to 30"
    with pytest.raises(InputError, match=message):
        split(source, tmp_path / "job", max_requests=1, max_shards=20)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("content", [b"", b"\n \r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_input_without_requests(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    with pytest.raises(EmptyInputError, match=r"in\.jsonl: (is empty|has no .*)\. Set on_empty=skip"):
        split(source, tmp_path / "job")
    plan = split(source, tmp_path / "job", on_empty="skip").plan
    assert (plan.shards, plan.counts.requests, len(plan.sources)) == ((), 0, 1)


def test_what_is_uncertain_about_tokens_is_said_once(tmp_path: Path) -> None:
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    lines = [
        request_line("a", model="gpt-9"),
        request_line("b", model="gpt-9"),
        request_line(
            "c", url="/v1/responses", body={"model": "gpt-4o", "input": "x", "previous_response_id": "r"}
        ),
        request_line("d", messages=[{"role": "user", "content": image}]),
    ]
    result = split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job", max_tokens=60_000)
    assert [shard.tokens for shard in result.plan.shards] == ["exact", "lower", "upper"]
    unknown, newer, lower, images = result.notices
    assert "gpt-9" in unknown
    assert "o200k_base" in unknown
    assert "gpt-9 like gpt-5.5 (1,050,000 tokens to read" in newer
    assert lower.startswith("Input tokens of 1 shards are a lower bound")
    assert "counted with the most they can cost" in images


def test_progress_is_told(tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "in.jsonl", [request_line(str(number), "x" * 5_000) for number in range(1_000)]
    )
    told: list[str] = []
    split(source, tmp_path / "job", progress=lambda progress: told.append(str(progress)))
    assert len(told) >= 3
    assert told[-1].startswith("Read 100% of")
    assert told[-1].endswith("1,000 lines, 1 shard.")


def test_a_shard_has_no_more_pictures_than_one_result_file_should_bring(tmp_path: Path) -> None:
    body = {"model": "gpt-image-2", "prompt": "A cat"}
    lines = [
        request_line(str(n), url="/v1/images/generations", body={**body, "n": 4 if n < 300 else 1})
        for n in range(1_600)
    ]
    plan = split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out").plan
    assert [shard.requests for shard in plan.shards] == [250, 850, 500]  # 1,000 pictures each: 4 x 50 + 800
    assert {shard.embedding_inputs for shard in plan.shards} == {0}
