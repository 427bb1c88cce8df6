"""What the next send of a shard carries: the requests that may be sent again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.results.raw_index import RawAnswers, SendFiles
from airflow_openai_batch.results.reconcile import settle_requests
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
    with a good answer. Of embeddings that came in part, the inputs whose vectors did not come.

    """
    with RawAnswers(sends) as raw:
        for settled in settle_requests(requests, raw, endpoint=endpoint, rules=rules):
            if settled.retryable:
                outcome = None if settled.chosen is None else settled.chosen.outcome
                yield settled.request._replace(line=cut_to_missing(settled.request.line, outcome))


def write_leftover(lines: Iterable[RequestLine], place: Location, *, shard: Shard) -> Leftover:
    """Write request lines, each ended by a newline; the file appears whole or not at all."""
    digest = hashlib.sha256()
    requests = size = 0
    with place.open_write() as file:
        for request in lines:
            line = request.line + b"\n"
            digest.update(line)
            file.write(line)
            requests += 1
            size += len(line)
    share = min(1.0, size / shard.bytes) if shard.bytes else 1.0
    return Leftover(
        requests=requests,
        bytes=size,
        sha256=digest.hexdigest(),
        input_tokens=math.ceil(shard.expected_tokens * share),
    )
