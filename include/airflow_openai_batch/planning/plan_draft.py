"""From what a scan found to the parts of a plan."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from airflow_openai_batch.job.plan import (
    CERTAINTIES,
    Counts,
    Limits,
    OutputBound,
    Segment,
    Shard,
    ShardLimits,
    Source,
)
from airflow_openai_batch.job.ranges import SegmentReader
from airflow_openai_batch.job.rejected import RejectedLine, SourceNames, merge_rejected
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.planning.duplicates import Duplicates, describe_duplicates, find_duplicates
from airflow_openai_batch.planning.output_bounds import drop_duplicates
from airflow_openai_batch.planning.packing import Packer, ShardDraft
from airflow_openai_batch.planning.staging import must_be_staged, stage_shard

if TYPE_CHECKING:
    from airflow_openai_batch.planning.line_table import LineTable
    from airflow_openai_batch.planning.scan import Scan
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.storage.sources import SourceFile

_REPACK_LINES = 2**17
_ENOUGH_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """All that goes into a plan. Close it: rejected lines lie in a temporary file."""

    sources: tuple[Source, ...]
    limits: Limits
    counts: Counts
    shards: tuple[Shard, ...]
    names: SourceNames
    _scan: Scan
    _files: Sequence[SourceFile]
    _duplicates: Duplicates

    @property
    def bad_count(self) -> int:
        return self.counts.rejected

    @property
    def images(self) -> int:
        """Requests with images in them."""
        return self._scan.images

    def bound_outputs(self) -> tuple[OutputBound, ...]:
        """What the requests allow as output. Once; reads duplicates again to leave them out."""
        drop_duplicates(self._scan.outputs, self._duplicates, self._scan.table, self._files)
        return self._scan.outputs.describe(self.shards)

    def bad_lines(self) -> Iterator[RejectedLine]:
        """Every line that cannot be sent, in input order."""
        repeated = describe_duplicates(self._duplicates, self._scan.table, self._files, self.names)
        return merge_rejected(self._scan.rejected, repeated)

    def stage(self, output: Location) -> tuple[Shard, ...]:
        """The shards, with those copied that cannot be read from the input."""
        objects = [(file.location, file.compression) for file in self._files]
        with contextlib.closing(SegmentReader(objects)) as reader:
            return tuple(
                stage_shard(shard, reader, output) if must_be_staged(shard.segments, self._files) else shard
                for shard in self.shards
            )

    def close(self) -> None:
        self._scan.rejected.close()


def draft_plan(scan: Scan, files: Sequence[SourceFile], limits: ShardLimits) -> PlanDraft:
    """Find duplicates, and with them out of the way describe the shards."""
    table = scan.table
    duplicates = find_duplicates(table, files)
    packer, sha256 = scan.packer, scan.sha256
    if len(duplicates.lines):
        for line in duplicates.lines:
            table.reject(int(line))
        packer, sha256 = _pack_again(table, limits), []
    shards = tuple(_describe_shards(packer.shards, sha256, table))
    if not sha256:
        shards = tuple(_hash_shards(shards, files))
    rejected = scan.rejected.count + len(duplicates.lines)
    return PlanDraft(
        sources=tuple(
            Source(
                uri=file.uri,
                size=file.size,
                etag=file.etag,
                lines=table.lines_of(index),
                compression=file.compression,
            )
            for index, file in enumerate(files)
        ),
        limits=Limits(
            max_requests=limits.max_requests,
            max_bytes=limits.max_bytes,
            max_tokens=limits.max_tokens,
            max_embedding_inputs=limits.max_embedding_inputs,
        ),
        counts=Counts(
            positions=table.positions,
            requests=table.positions - rejected,
            rejected=rejected,
            blank=table.blank,
        ),
        shards=shards,
        names=SourceNames([file.uri for file in files]),
        _scan=scan,
        _files=files,
        _duplicates=duplicates,
    )


def _pack_again(table: LineTable, limits: ShardLimits) -> Packer:
    packer = Packer(limits)
    for start in range(0, len(table), _REPACK_LINES):
        for _ in packer.feed(table.columns(start, start + _REPACK_LINES)):
            pass
    return packer


def _describe_shards(
    drafts: Sequence[ShardDraft], sha256: Sequence[str], table: LineTable
) -> Iterator[Shard]:
    names = list(table.names)
    estimates = _Estimates(table)
    for number, draft in enumerate(drafts):
        model, endpoint = names[draft.key]
        segments: list[Segment] = table.segments(draft.start, draft.stop)
        yield Shard(
            shard=number,
            model=model,
            endpoint=endpoint,
            requests=draft.requests,
            embedding_inputs=draft.inputs if endpoint == Endpoint.EMBEDDINGS else 0,
            bytes=draft.bytes,
            input_tokens=draft.tokens,
            tokens=CERTAINTIES[draft.doubt],
            estimated_tokens=estimates.of(draft),
            sha256=sha256[number] if sha256 else "",
            first_position=segments[0].first_position,
            segments=tuple(segments),
        )


def fingerprint(draft: PlanDraft) -> str:
    """Of inputs, limits and content; not of the time, nor of how exactly tokens were counted."""
    content = [
        [source.uri for source in draft.sources],
        draft.limits,
        draft.counts,
        [
            [shard.model, shard.endpoint, shard.requests, shard.bytes, shard.sha256, shard.first_position]
            for shard in draft.shards
        ],
    ]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


class _Estimates:
    """Tokens of a shard from the lines that were counted in it, where the rest are bounds."""

    def __init__(self, table: LineTable) -> None:
        self._lines = np.frombuffer(table.sample_lines, np.uint64).astype(np.int64)
        self._tokens = np.frombuffer(table.sample_tokens, np.uint32)
        self._bounds = table.tokens_at(self._lines)
        self._ratio = self._tokens.sum() / max(1, self._bounds.sum())

    def of(self, draft: ShardDraft) -> int | None:
        if not len(self._lines) or (self._tokens == self._bounds).all():
            return None
        first, last = np.searchsorted(self._lines, (draft.start, draft.stop))
        ratio = self._ratio
        if last - first >= _ENOUGH_SAMPLES:
            ratio = self._tokens[first:last].sum() / max(1, self._bounds[first:last].sum())
        return min(draft.tokens, round(draft.tokens * float(ratio)))


def _hash_shards(shards: Sequence[Shard], files: Sequence[SourceFile]) -> Iterator[Shard]:
    """Read all shards once more: their bytes are not those that were hashed during the scan."""
    objects = [(file.location, file.compression) for file in files]
    with contextlib.closing(SegmentReader(objects)) as reader:
        for shard in shards:
            digest = hashlib.sha256()
            for segment in shard.segments:
                for block in reader.read(segment):
                    digest.update(block)
            yield msgspec.structs.replace(shard, sha256=digest.hexdigest())
