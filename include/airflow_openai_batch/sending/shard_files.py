"""One shard's files in the job directory and its input, for the driver: what is sent, and what lands."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_openai_batch.errors import JobError, NoPlanError, RemoteError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.open_plan import open_plan
from airflow_openai_batch.job.plan import job_key
from airflow_openai_batch.job.request_line import RequestLine
from airflow_openai_batch.job.shard_reader import CheckedStream, ShardReader
from airflow_openai_batch.openai_api.batch import final_time
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.openai_api.results_check import VIDEOS_UNFINISHED
from airflow_openai_batch.results.leftovers import Leftover, LeftoverWriter, find_leftover, write_leftover
from airflow_openai_batch.results.media_files import MediaWriter
from airflow_openai_batch.results.outcome import NOT_SENT, OutcomeRules
from airflow_openai_batch.results.raw_index import SendFiles
from airflow_openai_batch.sending.realtime.segments import Segments
from airflow_openai_batch.sending.result_files import fetch_results
from airflow_openai_batch.sending.video_files import VideoCollector, check_collected, open_video_segments
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.job.open_plan import OpenPlan
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.job.shard_state import Content, Ended, ShardState
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.openai_api.server_objects import FileView
    from airflow_openai_batch.results.landing_summary import LandingSummary
    from airflow_openai_batch.storage.location import Location, Resolver

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingRules:
    """How answers become rows."""

    outcomes: OutcomeRules = field(default_factory=OutcomeRules)
    keep_response_body: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingOutcome:
    """What a landing found: either something is left over or the shard is done."""

    landed: LandingSummary
    leftover: Leftover | None

    @property
    def refused_for_account(self) -> int:
        """Requests that are left over because the account may not ask or cannot pay."""
        return 0 if self.leftover is None else self.landed.refused_for_account


@dataclass(frozen=True, kw_only=True)
class ShardFiles:
    """Where one shard's bytes come from and go to."""

    output: Location
    plan: OpenPlan
    shard: Shard
    resolve: Resolver
    rules: LandingRules
    most_bytes: int | None = None
    """Of a result file, where there is little room."""

    @property
    def name(self) -> str:
        """For logs: a task may drive many shards."""
        return f"Shard {self.shard.shard}"

    def key(self, send: int) -> str:
        """The ``job_key`` of a send, by which its batch is found."""
        plan = self.plan.head
        return job_key(self.output.uri, plan.fingerprint, plan.generation, self.shard.shard, send)

    def describe(self, state: ShardState) -> dict[str, str]:
        """The metadata of the batch that carries the current send."""
        return {
            "job_key": self.key(state.send),
            "shard": str(self.shard.shard),
            "send": str(state.send),
            "model": self.shard.model[:512],
            "requests": str(state.content.requests),
            "input_tokens": str(state.content.input_tokens),
        }

    @property
    def state_folder(self) -> Location:
        return self.output.child(directory.state_folder(self.shard.shard))

    @cached_property
    def reader(self) -> ShardReader:
        return ShardReader(self.plan.sources, self.shard, self.output, self.resolve)

    def upload(self, name: str, state: ShardState, client: BatchClient) -> FileView:
        """Upload what the current send carries.

        :raises InputChangedError: if the bytes are not those of the plan (or of the leftover).
        """
        with self._open_content(state.content) as stream:
            stream.check_first()  # not even the call is begun with what is wrong
            try:
                return client.upload(name, cast("BinaryIO", stream))
            except RemoteError:
                if (
                    stream.problem is not None
                ):  # the client takes what reading raises for a fault of the network
                    raise stream.problem from None
                raise

    def _open_content(self, content: Content) -> CheckedStream:
        if content.leftover_send:
            return self.reader.open_leftover(
                content.leftover_send, content.bytes, content.sha256, first=content.first
            )
        return self.reader.open_upload()

    def read_content(self, content: Content) -> Iterator[RequestLine]:
        """The requests that a send carries.

        :raises InputChangedError: if the bytes are not those of the plan (or of the leftover).
        """
        with self._open_content(content) as stream:
            for number, line in enumerate(io.BufferedReader(stream, READ_BYTES), start=1):
                yield RequestLine(number - 1, stream.name, number, line.rstrip(b"\n"))

    def write_sample(self, requests: int, state: ShardState) -> Leftover:
        """Write down what is open of the shard's first requests as what the current send carries."""
        lines: Iterable[RequestLine] = itertools.islice(self._lines(), requests)
        if state.ended:  # a former, smaller sample
            lines = self._find_leftover(lines, self._describe_sends(state))
        place = self.output.child(directory.leftover(self.shard.shard, state.send, requests))
        return write_leftover(lines, place, shard=self.shard)

    def _find_leftover(
        self, lines: Iterable[RequestLine], sends: Sequence[SendFiles]
    ) -> Iterator[RequestLine]:
        return find_leftover(lines, sends, endpoint=self.shard.endpoint, rules=self.rules.outcomes)

    def fetch(
        self, state: ShardState, client: BatchClient, gives_up: Collection[str] = ()
    ) -> dict[int, tuple[str, ...]]:
        """Bring into ``raw/`` what batches returned and is not there yet, or is not what it should be.

        :param gives_up: doubts that hold nothing up any more.
        :return: by send, the kinds of files that the server does not have (any more).
        :raises UnprovenError: if results are not there, or not what their batch promises.
        """
        gone = {
            ended.send: fetch_results(
                ended,
                self._raw(ended.send),
                client,
                checked=ended.send <= state.landed_send,
                gives_up=gives_up,
                most_bytes=self.most_bytes,
            )
            for ended in state.ended
        }
        return {send: kinds for send, kinds in gone.items() if kinds}

    def collect_videos(self, state: ShardState, client: BatchClient, gives_up: Collection[str] = ()) -> None:
        """Fetch the videos that batches have begun, as far as they are made.

        :raises UnprovenError: if some of the current send are not, and that is not given up.
        """
        if self.shard.endpoint != Endpoint.VIDEOS:
            return
        collector = VideoCollector(output=self.output, shard=self.shard.shard, client=client.videos)
        left = {
            send.send: collector.collect(send, self._lines())
            for send in self._describe_sends(state)  # a former one may be made by now, but holds nothing up
        }
        if VIDEOS_UNFINISHED not in gives_up:
            check_collected({send: count for send, count in left.items() if send > state.landed_send})
        elif count := sum(left.values()):
            log.warning("%s: waits no longer for %s.", self.name, number_of(count, "video"))

    def land(
        self, state: ShardState, *, final: bool = False, own_prices: OwnPrices = NO_OWN_PRICES
    ) -> LandingOutcome:
        """Write the part from what is in ``raw/``, and the leftover if there is one.

        :param final: nothing is sent again, so nothing is left over.
        :param own_prices: of the connection that paid.
        :raises AccountingError: if input, plan and rows do not agree.
        """
        from airflow_openai_batch.results.landing import (
            land_shard,  # numpy and pyarrow: nobody else here needs them
        )

        place = self.output.child(directory.leftover(self.shard.shard, state.send + 1))
        with LeftoverWriter(place, shard=self.shard) as writer:
            landed = land_shard(
                self._lines(),
                self._describe_sends(state),
                self.output.child(directory.part(self.shard.shard)),
                media=MediaWriter(self.output, self.shard.shard),
                shard=self.shard,
                rules=self.rules.outcomes,
                keep_response_body=self.rules.keep_response_body,
                leftover=None if final else writer,
                own_prices=own_prices,
            )
        leftover = writer.written
        unsent = sum(problem.count for problem in landed.problems if problem.code == NOT_SENT)
        counts = landed.rows | {"missing": landed.rows.get("missing", 0) - unsent}
        rows = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()) if count)
        log.info("%s: landed %s requests: %s.", self.name, f"{landed.requests - unsent:,}", rows or "none")
        if unsent and final:
            log.info("%s: %s were not sent, since the deadline came first.", self.name, f"{unsent:,}")
        if unsent and not final:
            log.info("%s: %s were not sent, since they are not part of the sample.", self.name, f"{unsent:,}")
        if leftover is not None and leftover.requests > unsent:
            again = number_of(leftover.requests - unsent, "request")
            log.info("%s: %s may be sent again.", self.name, again)
        return LandingOutcome(landed=landed, leftover=leftover)

    def _lines(self) -> Iterable[RequestLine]:
        return self.reader.lines()

    def _raw(self, send: int) -> dict[str, Location]:
        number = self.shard.shard
        return {
            "output": self.output.child(directory.raw_output(number, send)),
            "error": self.output.child(directory.raw_error(number, send)),
        }

    def _describe_sends(self, state: ShardState) -> list[SendFiles]:
        return [self._describe(ended, forgiven=ended.send <= state.forgiven_through) for ended in state.ended]

    def _describe(self, ended: Ended, *, forgiven: bool) -> SendFiles:
        if ended.batch_id is None:
            files = self.open_segments(ended.send).places()
        else:
            files = tuple(place for place in self._raw(ended.send).values() if place.exists())
        if self.shard.endpoint == Endpoint.VIDEOS:
            files = (*files, *open_video_segments(self.output, self.shard.shard, ended.send).places())
        return SendFiles(
            send=ended.send,
            sent_as="batch" if ended.batch_id else "realtime",
            batch_id=ended.batch_id,
            completed_at=final_time(ended.times),
            ended_as=ended.status,
            carried=ended.carried,
            leftover=self._find_carried(ended.content),
            leftover_sha256=None if ended.content is None else ended.content.sha256,
            gone=ended.gone,
            hurried=ended.is_hurried,
            forgiven=forgiven,
            files=files,
        )

    def _find_carried(self, content: Content | None) -> tuple[Location, ...] | None:
        """The leftover file, where a send may have carried other lines than the input's."""
        if content is None or not content.leftover_send or self.shard.endpoint != Endpoint.EMBEDDINGS:
            return None
        place = self.output.child(directory.leftover(self.shard.shard, content.leftover_send, content.first))
        return (place,) if place.exists() else ()

    def open_segments(self, send: int) -> Segments:
        """Where the answers of a send in real time lie."""
        return Segments(self.output, self.shard.shard, send)


def open_shard(output: Location, number: int, resolve: Resolver, rules: LandingRules) -> ShardFiles:
    """:raises NoPlanError: if there is no plan.
    :raises JobError: if it has no such shard."""
    plan = open_plan(output)
    if plan is None:
        raise NoPlanError(output.uri)
    if not 0 <= number < len(plan.shards):
        raise JobError(
            f"{output.uri}: the plan has {len(plan.shards)} shards and none with the number {number}. "
            "Another run restarted this job; clear the split of this run to take up the new plan."
        )
    return ShardFiles(output=output, plan=plan, shard=plan.shards[number], resolve=resolve, rules=rules)
