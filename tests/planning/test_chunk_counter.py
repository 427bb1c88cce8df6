"""Lines that are counted many at once come to what each comes to by itself."""

from __future__ import annotations

import functools
import json
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_openai_batch.planning.chunk_counter import ChunkCounter, CountRules
from airflow_openai_batch.planning.chunk_tally import HASH, INPUTS, KEY, KIND_BITS, REQUEST, TOKENS
from fixtures.job import chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.planning.chunk_tally import ChunkTally


def other(custom_id: str, url: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def chat(custom_id: str, text: str = "Say something.", **body: Any) -> str:
    messages = [{"role": "user", "content": text}]
    return other(custom_id, "/v1/chat/completions", **{"model": "gpt-4o-mini", "messages": messages, **body})


LINES = [
    *(chat(f"plain-{number}") for number in range(5)),
    chat("allowed", max_tokens=100),
    chat("allowed, completion", max_completion_tokens=50, max_tokens=100),
    chat("several", n=3),
    chat("several allowed", n=3, max_tokens=10),
    chat("dearer", service_tier="priority"),
    chat("another model", model="gpt-6-luna"),
    chat("beyond what is safe", text="long " * 60),
    chat("too long for a shard", text="never " * 400),
    chat("with a tool", tools=[{"type": "function", "function": {"name": "f"}}]),
    chat("streams", stream=True),
    chat(""),
    other("responses", "/v1/responses", model="gpt-4o-mini", input="Say something."),
    other("embeddings", "/v1/embeddings", model="text-embedding-3-small", input=["a", "b"]),
    '{"custom_id": "a", "custom_id": "b"}',
    f"{chat('two on')} {chat('a line')}",
    chat("key of another order").replace('{"custom_id"', '{"x": 1, "custom_id"'),
    chat("id by numbers").replace('"custom_id"', '"custom\\u005fid"'),
    chat("id twice").replace('"method"', '"custom_id": "z", "method"'),
    chat("id twice, once by numbers").replace('"method"', '"custom\\u005fid": "z", "method"'),
    *chat("on two lines").replace('"url"', '\n"url"').split("\n"),
    chat("ends with a space") + " ",
    chat("ends as on Windows") + "\r",
    "no JSON",
    "",
    " \t",
]
MORE = [line.encode() for line in LINES] + [b'{"custom_id": "\xff"}']


def rules(mode: Any) -> CountRules:
    return CountRules(mode=mode, max_tokens=200, max_line_bytes=2_000, max_embedding_inputs=50_000)


def unpack(tally: ChunkTally) -> list[tuple[Any, ...]]:
    """All that is known of each line; numbers of one that is no request are nobody's."""
    keys = array(KEY, tally.keys)
    columns = (array(TOKENS, tally.tokens), array(HASH, tally.hashes), array(INPUTS, tally.inputs))
    lines = zip(tally.flags, *columns, strict=True)
    return [
        (flags, tally.names[keys[index]], *numbers) if flags & KIND_BITS == REQUEST else (flags,)
        for index, (flags, *numbers) in enumerate(lines)
    ]


def outputs_of(tally: ChunkTally) -> dict[tuple[str, str], tuple[int, ...]]:
    found = zip(tally.names, tally.outputs, strict=True)
    return {name: (sums.tokens, sums.unbounded, sums.choices, sums.dearer) for name, sums in found}


@functools.cache
def count_alone(mode: str, line: bytes) -> ChunkTally:
    """The careful way, which lines go that have a blank one among them."""
    return ChunkCounter(rules(mode)).count(line + b"\n\n")


def check(mode: str, lines: list[bytes]) -> None:
    together = ChunkCounter(rules(mode)).count(b"".join(line + b"\n" for line in lines))
    alone = [count_alone(mode, line) for line in lines]
    assert unpack(together) == [unpack(tally)[0] for tally in alone]
    rejected = [
        (index, each.code, each.message, each.custom_id)
        for index, tally in enumerate(alone)
        for each in tally.rejections
    ]
    assert [(each.index, each.code, each.message, each.custom_id) for each in together.rejections] == rejected
    sums: dict[tuple[str, str], Counter[int]] = {}
    for tally in alone:
        for name, counts in outputs_of(tally).items():
            sums.setdefault(name, Counter()).update(dict(enumerate(counts)))
    assert outputs_of(together) == {name: tuple(sums[name][field] for field in range(4)) for name in sums}
    assert together.names == list(sums), "in the order in which they first stand there"


@pytest.mark.parametrize("mode", ["exact", "bound"])
@settings(deadline=None)
@given(runs=st.lists(st.tuples(st.sampled_from(MORE), st.sampled_from([1, 2, 64])), max_size=8))
def test_together_as_alone(mode: str, runs: list[tuple[bytes, int]]) -> None:
    check(mode, [line for line, times in runs for _ in range(times)])


@pytest.mark.parametrize("mode", ["exact", "bound"])
def test_each_kind_of_line_among_plain_ones(mode: str) -> None:
    for line in MORE:
        check(mode, [MORE[0], line, MORE[1]])
        check(mode, [line] * 64)


def test_one_line_in_so_many_is_counted_for_the_estimate() -> None:
    every = rules("bound").sample_every
    lines = [chat_line(str(number)) for number in range(3 * every)]
    lines[5] = ""
    tally = ChunkCounter(rules("bound")).count("\n".join(lines).encode())
    assert [line for line, _ in tally.samples] == [0, every, 2 * every]
    exact = ChunkCounter(rules("exact")).count("\n".join(lines).encode())
    counted = array(TOKENS, exact.tokens)
    assert [tokens for _, tokens in tally.samples] == [counted[line] for line, _ in tally.samples]
