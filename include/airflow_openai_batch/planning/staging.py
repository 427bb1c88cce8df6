"""Copies of shards that cannot be read as ranges of the input: compressed, or in too many pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job import directory

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Segment, Shard
    from airflow_openai_batch.job.ranges import SegmentReader
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.storage.sources import SourceFile

MAX_SEGMENTS_IN_PLAN = 1_000


def must_be_staged(segments: Sequence[Segment], files: Sequence[SourceFile]) -> bool:
    """Whether reading these segments from the input would cost too much every time."""
    if len(segments) > MAX_SEGMENTS_IN_PLAN:
        return True
    return any(files[segment.source].compression is not None for segment in segments)


def stage_shard(shard: Shard, reader: SegmentReader, output: Location) -> Shard:
    """Copy a shard into the job directory; returned is the shard with segments that point into the copy.

    :param reader: the same for all shards, so that a compressed source is read once.
    :raises InputChangedError: if the bytes are not those that were scanned.
    """
    name = directory.staged_shard(shard.shard)
    digest = hashlib.sha256()
    at = 0
    segments: list[Segment] = []
    with output.child(name).open_write() as staged:
        for segment in shard.segments:
            start = at
            for block in reader.read(segment):
                digest.update(block)
                staged.write(block)
                at += len(block)
            segments.append(msgspec.structs.replace(segment, start=start, end=at))
        if digest.hexdigest() != shard.sha256:
            raise InputChangedError(
                f"shard {shard.shard}: the input changed while it was split. Split it when it is complete."
            )
    if len(segments) <= MAX_SEGMENTS_IN_PLAN:
        return msgspec.structs.replace(shard, segments=tuple(segments), staged=name)
    listing = directory.staged_segments(shard.shard)
    output.child(listing).write_bytes(msgspec.json.encode(segments))
    return msgspec.structs.replace(shard, segments=(), staged=name, segments_file=listing)
