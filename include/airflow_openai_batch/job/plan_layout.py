"""How ``plan.json`` is laid out, so that the task of one shard reads some kilobytes of it: where each of 100,000
tasks reads all of 6 MB, these are 600 GB.

It is JSON, and other releases read it as such. First comes the head: what is said of the job as a whole, and where
blocks of the rows lie that follow, a source or a shard a line.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

import msgspec

from airflow_openai_batch.job.plan import Plan, PlanHead, Shard, Source

BEGIN_BYTES = 32 * 2**10
"""What a reader fetches first: all of a plan of 100 shards, the head of one of 30,000."""
BLOCK_BYTES = 8 * 2**10
"""A block ends with the row that reaches this."""

_FIRST = b'{"head_bytes":%10d,'
_HEAD_BYTES = re.compile(rb'\{"head_bytes":( {0,9}\d{1,10}),')
"""Not as a tool for JSON would write it that has read the file: where rows lie is not true any more then."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Rows that are read together."""

    first: int
    """Number of its first row."""
    start: int
    """Where that begins, in bytes after the head."""
    crc32: int
    """Of the block's bytes: a restart may put another plan into the place while this one is read."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows of one kind lie."""

    rows: int
    end: int
    """Where the last one ends, in bytes after the head."""
    blocks: tuple[Block, ...]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The tables that follow the head."""

    sources: Table
    shards: Table


class LaidOutHead(PlanHead, frozen=True, kw_only=True):
    """The head of ``plan.json``."""

    contents: Contents


def encode_plan(plan: Plan) -> bytes:
    """The content of ``plan.json``."""
    sources, shards = _encode_rows(plan.sources), _encode_rows(plan.shards)
    begin, between, end = b',\n"sources":[\n', b'],\n"shards":[\n', b"]}\n"
    shards_at = len(begin) + sum(map(len, sources)) + len(between)
    contents = Contents(sources=_lay_out(sources, len(begin)), shards=_lay_out(shards, shards_at))
    said = {name: getattr(plan, name) for name in PlanHead.__struct_fields__}
    head = msgspec.json.encode(LaidOutHead(**said, contents=contents))[1:-1]
    size = len(_FIRST % 0) + len(head)
    return b"".join((_FIRST % size, head, begin, *sources, between, *shards, end))


def find_head(begin: bytes) -> int | None:
    """How many bytes the head of a ``plan.json`` has that begins so; None where it is not laid out like this."""
    found = _HEAD_BYTES.match(begin)
    return int(found[1]) if found is not None and len(found[0]) == len(_FIRST % 0) else None


def _encode_rows(rows: Sequence[Source] | Sequence[Shard]) -> list[bytes]:
    lines = [msgspec.json.encode(row) + b",\n" for row in rows]
    return [*lines[:-1], *(line[:-2] + b"\n" for line in lines[-1:])]


def _lay_out(rows: Sequence[bytes], start: int) -> Table:
    return Table(rows=len(rows), blocks=tuple(_find_blocks(rows, start)), end=start + sum(map(len, rows)))


def _find_blocks(rows: Sequence[bytes], start: int) -> Iterator[Block]:
    first = size = crc32 = 0
    for number, row in enumerate(rows, start=1):
        size, crc32 = size + len(row), zlib.crc32(row, crc32)
        if size >= BLOCK_BYTES or number == len(rows):
            yield Block(first, start, crc32)
            first, start, size, crc32 = number, start + size, 0, 0
