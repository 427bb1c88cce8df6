"""The plan: what the splitter decided, and all that later steps need to know of the input.

A shard is byte ranges of the input, not a copy. ``plan.json`` is written last by the splitter and
is the commit mark of the split; it is never changed afterwards.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

from airflow_openai_batch.openai_api.model_ends import ModelEnd  # noqa: TC001 - msgspec reads it

SCHEMA_VERSION = 1
"""Raised when an older reader could misread the file."""

Certainty = Literal["exact", "upper", "lower"]
CERTAINTIES: tuple[Certainty, ...] = get_args(Certainty)
"""From the most certain to the least: of a sum holds the last that holds of a part, since something unknown makes the
whole a lower bound."""
"""How ``input_tokens`` relates to what OpenAI's queue will count.

``exact``: counted. ``upper``: a safe upper bound (bytes, or the most an image can cost).
``lower``: something cannot be known from the request (``previous_response_id``, file ids, hosted tools).
"""

CountImages = Literal["formula", "text"]
"""How ``input_tokens`` counts an image that stands in the request as a data URL: by what the model reads and
OpenAI bills (``formula``), or as the text that it is in the file (``text``). Which of them the batch queue goes by
is not documented.
"""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One input object, as it was when it was split."""

    uri: str
    size: int
    """Bytes as stored (compressed, where it is)."""
    etag: str
    """What tells one version of the object from another: ETag, or size and mtime on a local disk."""
    lines: int = 0
    compression: Literal["gzip", "zstd"] | None = None


class Segment(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A run of request lines with nothing between them: bytes ``start`` to ``end`` (exclusive).

    The bytes are those of the source, or of the shard's staged file where ``Shard.staged`` is set;
    ``source``, ``first_line`` and ``first_position`` always speak of the original input.
    """

    source: int
    """Index into ``Plan.sources``."""
    start: int
    end: int
    first_line: int
    """1-based line number of the first request, in its source."""
    first_position: int
    """0-based position of the first request, over the whole input. Blank lines have no position,
    rejected lines have one."""
    requests: int


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Contiguous requests of one model and one endpoint: what becomes one batch."""

    shard: int
    model: str
    endpoint: str
    requests: int
    embedding_inputs: int = 0
    """Texts to embed, over all requests of the shard (0 for other endpoints)."""
    bytes: int
    """Size of the file to upload: the segments joined with a newline where a source lacks its last."""
    input_tokens: int
    tokens: Certainty = "exact"
    estimated_tokens: int | None = None
    """Where ``input_tokens`` is a bound by bytes: what counting a sample of the lines says."""
    sha256: str
    """Of exactly those bytes."""
    first_position: int
    segments: tuple[Segment, ...] = ()
    """Empty where ``segments_file`` is set."""
    staged: str | None = None
    """Name of the staged copy inside the job directory, for instance ``staged/00000.jsonl``."""
    segments_file: str | None = None
    """Name of the file with the segments, where there are more than a plan should hold."""

    @property
    def expected_tokens(self) -> int:
        """For costs, where a bound would mislead: the sample's estimate if there is one."""
        return self.input_tokens if self.estimated_tokens is None else self.estimated_tokens


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that the plan was cut by."""

    max_requests: int
    max_bytes: int
    max_tokens: int | None
    max_embedding_inputs: int = 50_000


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. ``positions == requests + rejected``."""

    positions: int
    requests: int
    rejected: int
    blank: int


class OutputBound(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one model and endpoint allow as output, over the whole plan."""

    model: str
    endpoint: str
    requests: int
    bounded_tokens: int
    """Sum of ``max_tokens`` (or what the endpoint calls it), times ``n``, of the requests that have one."""
    unbounded_requests: int
    """Requests that may be answered at any length."""
    unbounded_choices: int
    """Answers that these ask for: more than one each where ``n`` says so."""
    dearer_requests: int = 0
    """Requests that ask for a service tier above the standard price, which they get one by one."""


class PlanHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan says of the job as a whole: it does not grow with the input."""

    schema_version: int = SCHEMA_VERSION
    fingerprint: str
    """Of inputs, limits and content; the same for the same three, whoever splits."""
    generation: int = 1
    """Raised by ``on_existing=restart``: the only way to pay again."""
    created_at: float
    """Unix seconds. The only field, with ``created_by``, that differs between two equal splits."""
    created_by: str = ""
    """The run that wrote it (``dag_id/run_id``), so that a retried restart does not restart again."""
    limits: Limits
    counts: Counts
    outputs: tuple[OutputBound, ...] = ()
    """By model and endpoint; empty in plans of releases that did not look at it. No part of the fingerprint."""
    count_images: CountImages = "formula"
    """How images in the requests were counted."""
    model_ends: tuple[ModelEnd, ...] = ()
    """Of its models that end, as far as was known when it was made. No part of the fingerprint."""

    @property
    def name(self) -> str:
        """Short, for ledgers: the same wherever the job directory is moved."""
        return f"{self.fingerprint[:16]}.{self.generation}"


class Plan(PlanHead, frozen=True, kw_only=True):
    """The content of ``plan.json``, which `plan_layout` writes."""

    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """:raises msgspec.DecodeError: if the bytes are no plan."""
        return msgspec.json.decode(data, type=cls)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLimits:
    """What a shard may hold. Checks itself.

    :raises ConfigError: for a value OpenAI would refuse.
    """

    max_requests: int = 50_000
    max_bytes: int = 100_000_000
    max_tokens: int | None = None
    max_embedding_inputs: int = field(default=50_000)

    def __post_init__(self) -> None:
        from airflow_openai_batch.errors import ConfigError

        if not 1 <= self.max_requests <= 50_000:
            raise ConfigError(
                f"max_requests_per_shard={self.max_requests}: must be 1 to 50,000 (OpenAI's limit per batch)."
            )
        if not 1 <= self.max_bytes <= 200_000_000:
            raise ConfigError(
                f"max_bytes_per_shard={self.max_bytes}: must be 1 to 200,000,000 (OpenAI's limit per input file)."
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(
                f"max_tokens_per_shard={self.max_tokens}: must be at least 1; leave it empty for no limit."
            )


def job_key(output_uri: str, fingerprint: str, generation: int, shard: int, send: int) -> str:
    """The name of one sending of one shard, the same whoever computes it: 64 hexadecimal digits."""
    text = f"{output_uri.rstrip('/')}|{fingerprint}|{generation}|{shard}|{send}"
    return hashlib.sha256(text.encode()).hexdigest()
