"""Cutting requests into shards, next-fit: a shard is closed by the first request that does not fit.

Shards are contiguous; against an ideal packing that costs one shard in a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from airflow_openai_batch.planning.chunk_tally import CERTAINTY_SHIFT, KIND_BITS, REQUEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from airflow_openai_batch.job.plan import ShardLimits
    from airflow_openai_batch.planning.line_table import Columns


@dataclass(slots=True)
class ShardDraft:
    """A shard in the making: lines ``start`` to ``stop`` of the table, of which only requests count."""

    key: int
    start: int
    stop: int
    requests: int = 0
    bytes: int = 0
    tokens: int = 0
    inputs: int = 0
    doubt: int = 0
    """Index of its certainty."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Requests of one chunk that go into one shard."""

    shard: int
    lines: NDArray[np.int64]
    """Indices into the chunk."""


class Packer:
    """Fed with columns in input order."""

    def __init__(self, limits: ShardLimits) -> None:
        self._limits = limits
        self._line = 0
        self.shards: list[ShardDraft] = []

    def feed(self, columns: Columns) -> Iterator[Piece]:
        """Pack the next lines; yields which went where."""
        first_line = self._line
        self._line += len(columns.flags)
        lines = np.flatnonzero((columns.flags & KIND_BITS) == REQUEST)
        sums = _ShardSums(columns, lines)
        at = 0
        while at < len(lines):
            draft = self.shards[-1] if self.shards else None
            end = at if draft is None else sums.fit(draft, at, self._limits)
            if end == at:
                draft = ShardDraft(int(sums.keys[at]), first_line + int(lines[at]), 0)
                self.shards.append(draft)
                end = sums.fit(draft, at, self._limits)
            assert draft is not None  # noqa: S101 - for the type checker
            sums.add(draft, at, end)
            draft.stop = first_line + int(lines[end - 1]) + 1
            yield Piece(len(self.shards) - 1, lines[at:end])
            at = end


class _ShardSums:
    """Running sums over the requests of a chunk: where a shard ends is a look-up."""

    def __init__(self, columns: Columns, lines: NDArray[np.int64]) -> None:
        self.keys = columns.keys[lines]
        self._bytes = _running(columns.lengths[lines])
        self._tokens = _running(columns.tokens[lines])
        self._inputs = _running(columns.inputs[lines])
        self._doubts = columns.flags[lines] >> CERTAINTY_SHIFT
        self._changes = np.flatnonzero(np.diff(self.keys)) + 1

    def fit(self, draft: ShardDraft, at: int, limits: ShardLimits) -> int:
        """The index after the last request from ``at`` on that fits into the shard."""
        if draft.key != self.keys[at]:
            return at
        change = int(np.searchsorted(self._changes, at, side="right"))
        end = int(self._changes[change]) if change < len(self._changes) else len(self.keys)
        end = min(end, at + limits.max_requests - draft.requests)
        rooms = [
            (self._bytes, limits.max_bytes - draft.bytes),
            (self._inputs, limits.max_embedding_inputs - draft.inputs),
        ]
        if limits.max_tokens is not None:
            rooms.append((self._tokens, limits.max_tokens - draft.tokens))
        for running, room in rooms:
            end = min(end, int(np.searchsorted(running, running[at] + room, side="right")) - 1)
        # A request larger than a limit was rejected before, so that an empty shard always takes one.
        return end if draft.requests else max(end, at + 1)

    def add(self, draft: ShardDraft, at: int, end: int) -> None:
        draft.requests += end - at
        draft.bytes += int(self._bytes[end] - self._bytes[at])
        draft.tokens += int(self._tokens[end] - self._tokens[at])
        draft.inputs += int(self._inputs[end] - self._inputs[at])
        draft.doubt = max(draft.doubt, int(self._doubts[at:end].max()))


def _running(values: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums
