"""Cutting a stream into whole lines, wherever the blocks it comes in happen to end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_openai_batch.planning.chunks import cut_chunks

LINES = st.lists(st.integers(0, 80), max_size=60)


@given(
    lengths=LINES,
    ended=st.booleans(),
    bom=st.booleans(),
    cuts=st.lists(st.integers(1, 70), min_size=1, max_size=40),
    chunk_bytes=st.integers(1, 100),
    max_line_bytes=st.integers(10, 60),
)
def test_every_byte_is_in_one_chunk_at_its_offset(
    lengths: list[int], ended: bool, bom: bool, cuts: list[int], chunk_bytes: int, max_line_bytes: int
) -> None:
    lines = [bytes([97 + number % 26]) * length for number, length in enumerate(lengths)]
    content = (b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + (b"\n" if ended and lines else b"")
    blocks, at = [], 0
    while at < len(content):
        size = cuts[len(blocks) % len(cuts)]
        blocks.append(content[at : at + size])
        at += size

    chunks = list(cut_chunks(blocks, max_line_bytes=max_line_bytes, uri="x", chunk_bytes=chunk_bytes))

    at = 3 if bom else 0
    kept_whole = 0
    for chunk in chunks:
        assert chunk.offset == at
        end = at + (chunk.overlong_bytes or len(chunk.data))
        if chunk.overlong_bytes:
            assert b"\n" not in content[at : end - 1], "one line at a time"
            assert chunk.overlong_bytes > max_line_bytes
        else:
            assert chunk.data == content[at:end]
            kept_whole = max(kept_whole, len(chunk.data))
        assert end == len(content) or content[end - 1 : end] == b"\n"
        at = end
    assert at == len(content)
    assert kept_whole <= chunk_bytes + max_line_bytes + max(map(len, blocks), default=0)
