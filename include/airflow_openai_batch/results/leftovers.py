"""What the next send of a shard carries: the requests that may be sent again."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from airflow_openai_batch.results.raw_index import RawAnswers, SendFiles
from airflow_openai_batch.results.reconcile import Settled, settle_requests
from airflow_openai_batch.results.vector_pieces import cut_to_missing

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.results.outcome import OutcomeRules
    from airflow_openai_batch.storage.location import Location


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """What ``leftover/00000.2.jsonl`` holds."""

    requests: int
    bytes: int
    sha256: str
    input_tokens: int
    """The shard's tokens in proportion to bytes, rounded up: an estimate."""

    def to_event(self) -> dict[str, Any]:
        """The fields of the ledger's event."""
        return {
            "leftover": self.requests,
            "leftover_bytes": self.bytes,
            "leftover_sha256": self.sha256,
            "leftover_tokens": self.input_tokens,
        }


def find_leftover(
    requests: Iterable[RequestLine], sends: Sequence[SendFiles], *, endpoint: str, rules: OutcomeRules
) -> Iterator[RequestLine]:
    """The requests that may be sent again, in input order: retryable, with attempts left, never those
    with a good answer.
    """
    with RawAnswers(sends) as raw:
        for settled in settle_requests(requests, raw, endpoint=endpoint, rules=rules):
            if settled.retryable:
                yield make_again(settled)


def make_again(settled: Settled) -> RequestLine:
    """A request as it is sent again: of embeddings that came in part, the inputs whose vectors did not come."""
    outcome = None if settled.chosen is None else settled.chosen.outcome
    return msgspec.structs.replace(settled.request, line=cut_to_missing(settled.request.line, outcome))


class LeftoverWriter:
    """A file of request lines, each ended by a newline. A context manager: the file appears whole or not at all.

    Without a line there is no file, unless it was begun.
    """

    def __init__(self, place: Location, *, shard: Shard) -> None:
        self._place = place
        self._shard = shard
        self._closing = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._requests = self._size = 0

    def __enter__(self) -> LeftoverWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._closing.__exit__(*error)

    def begin(self) -> BinaryIO:
        """The file, which is opened the first time."""
        if self._file is None:
            self._file = self._closing.enter_context(self._place.open_write())
        return self._file

    def write(self, request: RequestLine) -> None:
        line = request.line + b"\n"
        self.begin().write(line)
        self._digest.update(line)
        self._requests += 1
        self._size += len(line)

    @property
    def written(self) -> Leftover | None:
        """None where there is no file."""
        return None if self._file is None else self.sum()

    def sum(self) -> Leftover:
        """What was written so far."""
        shard = self._shard
        share = min(1.0, self._size / shard.bytes) if shard.bytes else 1.0
        return Leftover(
            requests=self._requests,
            bytes=self._size,
            sha256=self._digest.hexdigest(),
            input_tokens=math.ceil(shard.expected_tokens * share),
        )


def write_leftover(lines: Iterable[RequestLine], place: Location, *, shard: Shard) -> Leftover:
    """The file is there even where nothing is left over."""
    with LeftoverWriter(place, shard=shard) as writer:
        writer.begin()
        for request in lines:
            writer.write(request)
    return writer.sum()
