"""How the lines of a scan are counted: in this process or in workers, exactly or by a bound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_openai_batch.core.chunk_counter import ChunkCounter, CountRules
from airflow_openai_batch.core.errors import ConfigError
from airflow_openai_batch.core.scan import CountChunks, SourceChunk, count_overlong

if TYPE_CHECKING:
    from airflow_openai_batch.core.plan import ShardLimits
    from airflow_openai_batch.core.sources import SourceFile
    from airflow_openai_batch.core.tally import ChunkTally, CountMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How input tokens are counted. Checks itself.

    :param mode: ``exact`` counts every request; ``bound`` takes bytes for tokens (a safe upper bound) and counts
        a sample for the estimate; ``auto`` is exact where ``max_tokens`` can bind a shard, else bound.
    :param counter: ``tiktoken``; ``toktok`` (several times as fast, needs the extra ``fast``); ``auto``
        takes toktok for large inputs if it agrees with tiktoken on a sample.
    :param workers: processes that count; 0 for none, None for one per core up to four where the input is large.
    :raises ConfigError: for a value that is none of these.
    """

    mode: Literal["auto", "exact", "bound"] = "auto"
    counter: Literal["auto", "tiktoken", "toktok"] = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "exact", "bound"):
            raise ConfigError(f"count_tokens={self.mode!r}: must be auto, exact or bound.")
        if self.counter not in ("auto", "tiktoken", "toktok"):
            raise ConfigError(f"counter={self.counter!r}: must be auto, tiktoken or toktok.")
        if self.workers is not None and not 0 <= self.workers <= 64:
            raise ConfigError(f"workers={self.workers}: must be 0 to 64.")

    def mode_for(self, limits: ShardLimits) -> CountMode:
        """No text has more tokens than bytes: a limit above the bytes of a shard cannot bind."""
        if self.mode != "auto":
            return self.mode
        return "exact" if limits.max_tokens is not None and limits.max_tokens < limits.max_bytes else "bound"


@contextlib.contextmanager
def open_counting(
    counting: Counting, limits: ShardLimits, files: Sequence[SourceFile]
) -> Iterator[CountChunks]:
    """What counts the chunks of a scan; workers end with the block."""
    rules = CountRules(
        mode=counting.mode_for(limits),
        max_tokens=limits.max_tokens,
        max_line_bytes=limits.max_bytes,
        max_embedding_inputs=limits.max_embedding_inputs,
    )
    yield _InProcess(rules)


class _InProcess:
    def __init__(self, rules: CountRules) -> None:
        self._counter = ChunkCounter(rules)
        self._limit = rules.max_line_bytes

    def __call__(self, chunks: Iterable[SourceChunk]) -> Iterator[tuple[SourceChunk, ChunkTally]]:
        for item in chunks:
            overlong = item.chunk.overlong_bytes
            yield item, count_overlong(item.chunk, self._limit) if overlong else self._counter.count(item.chunk.data)
