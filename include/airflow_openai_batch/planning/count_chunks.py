"""How the lines of a scan are counted: in this process or in workers, exactly or by a bound."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments
from airflow_openai_batch.openai_api.models import DEFAULT_MODEL
from airflow_openai_batch.planning.chunk_counter import SAMPLE_EVERY, ChunkCounter, CountRules, tally_overlong
from airflow_openai_batch.planning.chunks import Chunk, SourceChunk
from airflow_openai_batch.planning.count_pool import CountPool
from airflow_openai_batch.requests.request import BadLineError, read_request
from airflow_openai_batch.requests.tokens.token_samples import sample_requests
from airflow_openai_batch.storage.this_machine import count_usable_cores

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import CountImages, ShardLimits
    from airflow_openai_batch.planning.chunk_tally import ChunkTally, CountMode
    from airflow_openai_batch.planning.scan import CountChunks
    from airflow_openai_batch.requests.tokens.counters import CounterName
    from airflow_openai_batch.storage.sources import SourceFile

_log = logging.getLogger(__name__)

_MAX_DEFAULT_WORKERS = 4
_WORTH_WORKERS_BYTES: dict[CountMode, int] = {"exact": 20_000_000, "bound": 250_000_000}
"""Below, starting them (0.7 s each) takes longer than counting here."""
_COUNTED_ANYWAY_BYTES = 10_000_000
"""Below, exact counting takes less than a second."""
_MANY_BYTES = 500_000_000
"""From here on a quarter of the lines that else are counted for the estimate is enough, still some hundred: counting
them is a tenth of the work where no others are counted."""
_COMPRESSION_RATIO = 5
"""Of JSON; only to guess how much there is to count."""
_CHECKED_BYTES = 256 * 2**10
"""Of the input, that are counted twice before a faster counter is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How input tokens are counted. Checks itself.

    :param mode: ``exact`` counts every request; ``bound`` takes bytes for tokens (a safe upper bound) and counts
        a sample for the estimate; ``auto`` is exact where ``max_tokens`` can bind a shard or the input is
        small, else bound.
    :param counter: ``tiktoken``; ``toktok`` (several times as fast, needs the extra ``fast``); ``auto``
        takes toktok for large inputs if it is installed and agrees with tiktoken on a sample.
    :param count_images: images in the requests by the ``formula`` that they are billed by, or as the ``text`` that
        they are in the file.
    :param deployments: which models are behind names that are none.
    :param workers: processes that count; 0 for none, None for one per core up to four where the input is large.
    :raises ConfigError: for a value that is none of these.
    """

    mode: Literal["auto", "exact", "bound"] = "auto"
    counter: Literal["auto", "tiktoken", "toktok"] = "auto"
    count_images: CountImages = "formula"
    workers: int | None = None
    deployments: Deployments = NO_DEPLOYMENTS

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "exact", "bound"):
            raise ConfigError(f"count_tokens={self.mode!r}: must be auto, exact or bound.")
        if self.counter not in ("auto", "tiktoken", "toktok"):
            raise ConfigError(f"counter={self.counter!r}: must be auto, tiktoken or toktok.")
        if self.count_images not in ("formula", "text"):
            raise ConfigError(f"count_images={self.count_images!r}: must be formula or text.")
        if self.counter == "toktok" and not _has_toktok():
            raise ConfigError(
                "counter='toktok': toktok-rs is not installed: pip install 'airflow-provider-openai-batch[fast]'"
            )
        if self.workers is not None and not 0 <= self.workers <= 64:
            raise ConfigError(f"workers={self.workers}: must be 0 to 64.")

    def mode_for(self, limits: ShardLimits, files: Sequence[SourceFile]) -> CountMode:
        """No text has more tokens than bytes: a limit above the bytes of a shard cannot bind. A small input is
        counted all the same, since a person looks at its number."""
        if self.mode != "auto":
            return self.mode
        binds = limits.max_tokens is not None and limits.max_tokens < limits.max_bytes
        return "exact" if binds or _guess_bytes(files) < _COUNTED_ANYWAY_BYTES else "bound"

    def workers_for(self, mode: CountMode, files: Sequence[SourceFile]) -> int:
        """How many processes count this input."""
        if self.workers is not None:
            return self.workers
        if _guess_bytes(files) < _WORTH_WORKERS_BYTES[mode] or not sys.executable:
            return 0
        return min(_MAX_DEFAULT_WORKERS, count_usable_cores())


def _guess_bytes(files: Sequence[SourceFile]) -> int:
    return sum(file.size * (_COMPRESSION_RATIO if file.compression else 1) for file in files)


def _has_toktok() -> bool:
    return importlib.util.find_spec("toktok") is not None


@contextlib.contextmanager
def open_counting(
    counting: Counting, limits: ShardLimits, files: Sequence[SourceFile]
) -> Iterator[CountChunks]:
    """What counts the chunks of a scan; workers end with the block."""
    mode = counting.mode_for(limits, files)
    workers = counting.workers_for(mode, files)
    counter: CounterName = "tiktoken"
    # For a sample it would not pay to load two and compare.
    wanted = counting.counter == "auto" and workers > 0 and mode == "exact" and _has_toktok()
    if wanted or counting.counter == "toktok":
        counter = "toktok"
    rules = CountRules(
        mode=mode,
        counter=counter,
        max_tokens=limits.max_tokens,
        max_line_bytes=limits.max_bytes,
        max_embedding_inputs=limits.max_embedding_inputs,
        count_images=counting.count_images,
        models=dict(counting.deployments.models),
        sample_every=SAMPLE_EVERY * (4 if _guess_bytes(files) > _MANY_BYTES else 1),
    )
    with contextlib.ExitStack() as stack:
        yield _Counting(rules, workers, [file.uri for file in files], stack)


class _Counting:
    """Starts what counts when the first chunk is there, since that is what a faster counter is checked on."""

    def __init__(
        self, rules: CountRules, workers: int, uris: Sequence[str], stack: contextlib.ExitStack
    ) -> None:
        self._rules = rules
        self._workers = workers
        self._uris = uris
        self._stack = stack

    def __call__(self, chunks: Iterable[SourceChunk]) -> Iterator[tuple[SourceChunk, ChunkTally]]:
        chunks = iter(chunks)
        ahead = list(itertools.islice(chunks, 1 + self._workers))
        if not ahead:
            return
        if self._rules.counter == "toktok" and self._rules.mode == "exact":
            yield from self._count_checked(ahead, chunks)
        else:
            yield from self._open(self._rules)(itertools.chain(ahead, chunks))

    def _open(self, rules: CountRules) -> _ChunkTallier:
        return self._stack.enter_context(self._start(rules))

    def _start(self, rules: CountRules) -> _ChunkTallier:
        return CountPool(rules, self._workers, self._uris) if self._workers else _InProcess(rules)

    def _count_checked(
        self, ahead: Sequence[SourceChunk], chunks: Iterator[SourceChunk]
    ) -> Iterator[tuple[SourceChunk, ChunkTally]]:
        """Count a sample with both; tiktoken runs in a process of its own, so that its memory is given back.

        :param ahead: as many chunks as keep all workers busy meanwhile: each needs half a second to begin.
        """
        fast = self._open(self._rules)
        exact_rules = msgspec.structs.replace(self._rules, counter="tiktoken")
        source, first, _ = ahead[0]
        sample = SourceChunk(source, Chunk(first.offset, _sample(first.data)), 0)
        alone = _Counting(exact_rules, min(1, self._workers), self._uris, self._stack)
        with alone._start(exact_rules) as exact:
            both = [counter.submit(sample) for counter in (exact, fast)]
            begun = [(item, fast.submit(item)) for item in ahead]
            exact_tally, fast_tally = (tally.result() for tally in both)
        if exact_tally.tokens == fast_tally.tokens:
            for item, tally in begun:
                yield item, tally.result()
            yield from fast(chunks)
            return
        _log.warning("toktok counts other than tiktoken on a sample of this input; tiktoken counts instead.")
        self._stack.close()
        yield from self._open(exact_rules)(itertools.chain(ahead, chunks))


def _sample(data: bytes) -> bytes:
    """Whole lines from the beginning of a chunk, and texts in many scripts for the same model."""
    lines = data[: data.rfind(b"\n", 0, _CHECKED_BYTES) + 1]
    model = DEFAULT_MODEL
    with contextlib.suppress(BadLineError):
        model = read_request(lines.partition(b"\n")[0]).model
    return sample_requests(model) + lines


class _ChunkTallier(Protocol):
    """What counts chunks, for as long as its block lasts."""

    def __enter__(self) -> _ChunkTallier: ...
    def __exit__(self, *exception: object) -> None: ...
    def __call__(self, chunks: Iterable[SourceChunk]) -> Iterator[tuple[SourceChunk, ChunkTally]]: ...
    def submit(self, item: SourceChunk) -> Future[ChunkTally]: ...


class _InProcess:
    def __init__(self, rules: CountRules) -> None:
        self._counter = ChunkCounter(rules)
        self._limit = rules.max_line_bytes

    def __enter__(self) -> _InProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, chunks: Iterable[SourceChunk]) -> Iterator[tuple[SourceChunk, ChunkTally]]:
        for item in chunks:
            yield item, self._count(item)

    def submit(self, item: SourceChunk) -> Future[ChunkTally]:
        counted: Future[ChunkTally] = Future()
        counted.set_result(self._count(item))
        return counted

    def _count(self, item: SourceChunk) -> ChunkTally:
        if item.chunk.overlong_bytes:
            return tally_overlong(item.chunk, self._limit)
        return self._counter.count(item.chunk.data)
