"""A look at an input as the splitter takes it, without a job: what is wrong with it, and what it would become."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import fsspec

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.inputs import Listing, list_sources
from airflow_openai_batch.job.plan import Plan
from airflow_openai_batch.job.ranges import SegmentReader
from airflow_openai_batch.planning.count_chunks import Counting, open_counting
from airflow_openai_batch.planning.plan_draft import PlanDraft, draft_plan, fingerprint
from airflow_openai_batch.planning.scan import ScanProgress, scan_sources
from airflow_openai_batch.storage.location import Location

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Shard, ShardLimits
    from airflow_openai_batch.storage.location import Resolver


@dataclass(frozen=True)
class Survey:
    """What a scan found."""

    draft: PlanDraft
    listing: Listing
    counting: Counting

    @cached_property
    def plan(self) -> Plan:
        """What a split would write, but that nothing is copied: its shards all point into the input."""
        return Plan(
            fingerprint=fingerprint(self.draft),
            created_at=0.0,
            sources=self.draft.sources,
            limits=self.draft.limits,
            counts=self.draft.counts,
            shards=self.draft.shards,
            outputs=self.draft.bound_outputs(),
            count_images=self.counting.count_images,
        )

    def write_shards(self, folder: Location) -> Iterator[tuple[Shard, Location]]:
        """Write each shard as a file that can be uploaded, and yield it when it is there.

        :raises InputChangedError: if the bytes are not those that were scanned.
        """
        objects = [(file.location, file.compression) for file in self.listing.files]
        with contextlib.closing(SegmentReader(objects)) as reader:
            for shard in self.draft.shards:
                place = folder.child(shard_file(shard.shard))
                _copy_shard(shard, reader, place)
                yield shard, place


def shard_file(shard: int) -> str:
    """``shard-00000.jsonl``"""
    return f"shard-{shard:05d}.jsonl"


@contextlib.contextmanager
def survey_input(
    inputs: str | Sequence[str],
    *,
    resolve: Resolver,
    limits: ShardLimits,
    counting: Counting | None = None,
    progress: Callable[[ScanProgress], None] | None = None,
) -> Iterator[Survey]:
    """Scan an input once. Writes nothing, asks nobody.

    :param inputs: as in `split.split_job`.
    :raises ConfigError: if nothing is named.
    :raises InputError: if the input cannot be read, or is no JSON Lines.
    """
    counting = counting or Counting()
    nowhere = Location(fsspec.filesystem("memory"), "/no-job", "memory://no-job")
    listing = list_sources(inputs, nowhere, resolve)
    with open_counting(counting, limits, listing.files) as count_chunks:
        scan = scan_sources(listing.files, limits, count_chunks, progress)
    with contextlib.ExitStack() as stack:
        stack.callback(scan.rejected.close)
        yield Survey(draft_plan(scan, listing.files, limits), listing, counting)


def _copy_shard(shard: Shard, reader: SegmentReader, place: Location) -> None:
    digest = hashlib.sha256()
    with place.open_write() as file:
        for segment in shard.segments:
            for block in reader.read(segment):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != shard.sha256:
            raise InputChangedError(
                f"{place.uri}: the input changed while it was split. Split it when it is complete."
            )
