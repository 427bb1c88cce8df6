"""Split an input into shards: the one function that the Airflow operator calls, and what it returns."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from airflow_openai_batch.errors import (
    BadLinesError,
    EmptyInputError,
    InputChangedError,
    InputError,
    JobExistsError,
)
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.generations import last_generation, put_aside
from airflow_openai_batch.job.inputs import Listing, list_sources
from airflow_openai_batch.job.plan import Limits, Plan, ShardLimits
from airflow_openai_batch.job.plan_layout import encode_plan
from airflow_openai_batch.job.rejected import SourceNames, write_rejected
from airflow_openai_batch.openai_api.model_ends import (
    NO_MODEL_ENDS,
    ModelEnd,
    ModelEnds,
    day_of,
    describe_ends,
    refuse_gone,
)
from airflow_openai_batch.planning.count_chunks import Counting, open_counting
from airflow_openai_batch.planning.foreign_formats import is_no_json_at_all, name_foreign_format
from airflow_openai_batch.planning.plan_draft import PlanDraft, draft_plan, fingerprint
from airflow_openai_batch.planning.scan import ScanProgress, scan_sources
from airflow_openai_batch.planning.token_notices import describe_images, describe_token_doubts
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.storage.location import Location, Resolver
    from airflow_openai_batch.storage.sources import SourceFile

__all__ = ["ChooseLimits", "Counting", "ScanProgress", "SplitResult", "split_job"]

OnBadLine = Literal["fail", "reject"]
OnEmpty = Literal["fail", "skip"]
OnExisting = Literal["resume", "fail", "restart"]
ChooseLimits = Callable[["Sequence[SourceFile]"], ShardLimits]
"""By what is known of the input once it is listed, since listing it may take long."""


@dataclass(frozen=True, slots=True)
class SplitResult:
    """The plan in force, whether this call made it, and what a person should know."""

    plan: Plan
    created: bool
    notices: tuple[str, ...] = ()


def split_job(
    inputs: str | Sequence[str],
    output: Location,
    *,
    resolve: Resolver,
    limits: ShardLimits | ChooseLimits,
    counting: Counting | None = None,
    on_bad_line: OnBadLine = "fail",
    on_empty: OnEmpty = "fail",
    on_existing: OnExisting = "resume",
    run_key: str = "",
    now: float,
    max_shards: int | None = None,
    progress: Callable[[ScanProgress], None] | None = None,
    model_ends: ModelEnds = NO_MODEL_ENDS,
) -> SplitResult:
    """Scan the input once and write ``plan.json``, or return the plan that is there already.

    :param inputs: a URI, a glob, or an ordered list of them; ``.jsonl``, ``.jsonl.gz`` or ``.jsonl.zst``.
    :param output: the job directory.
    :param resolve: how a URI becomes a place.
    :param limits: of a shard, or what chooses them by the files that the input has.
    :param on_bad_line: ``fail``: any line that cannot be sent is an error; ``reject``: it goes to
        ``rejected.jsonl`` and the rest is split.
    :param on_empty: ``skip``: no request at all gives a plan without shards.
    :param on_existing: where a plan is there: ``resume`` goes on with it if the input is the same (its limits
        stand), ``restart`` begins a new generation and is the only way to pay again.
    :param run_key: of this run, for instance ``dag_id/run_id``: a retry of it does not restart again.
    :param now: Unix seconds.
    :param max_shards: more than these are refused before anything is written.
    :param model_ends: what is known of the ends of models, where the requests will go to.
    :raises ConfigError: for a parameter that cannot be used.
    :raises InputError: if the input cannot be split; see `airflow_openai_batch.errors` for the kinds.
    :raises JobExistsError: if a plan is there and ``on_existing`` is ``fail``.
    """
    existing = directory.read_plan(output)
    is_retry = existing is not None and bool(run_key) and existing.created_by == run_key
    if existing is not None and on_existing == "fail" and not is_retry:
        raise JobExistsError(
            f"{output.uri}: has a plan already (generation {existing.generation}). Choose another output "
            "directory, on_existing=resume to go on with it, or on_existing=restart to pay again."
        )
    listing = list_sources(inputs, output, resolve)
    wanted = SplitRun(
        output=output,
        limits=limits if isinstance(limits, ShardLimits) else limits(listing.files),
        counting=counting or Counting(),
        on_bad_line=on_bad_line,
        on_empty=on_empty,
        run_key=run_key,
        now=now,
        max_shards=max_shards,
        progress=progress,
        model_ends=model_ends,
        way_out=_NEW_RUN if on_existing == "restart" else _WAY_OUT,
    )
    if existing is not None and (on_existing != "restart" or is_retry):
        return wanted.resume(existing, listing)
    return wanted.create(listing, existing)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRun:
    """The parameters of one split."""

    output: Location
    limits: ShardLimits
    counting: Counting
    on_bad_line: OnBadLine
    on_empty: OnEmpty
    run_key: str
    now: float
    max_shards: int | None
    progress: Callable[[ScanProgress], None] | None
    model_ends: ModelEnds = NO_MODEL_ENDS
    way_out: str
    """Where the input is not that of the plan."""
    notices: list[str] = field(default_factory=list)

    def create(self, listing: Listing, existing: Plan | None) -> SplitResult:
        """Scan, put aside what a restart replaces, and write the plan last."""
        self.notices.extend(listing.notices)
        with contextlib.closing(self._scan(listing, self.limits, self.counting)) as draft:
            self._refuse_bad(draft, listing, may_write=existing is None)
            self._refuse_empty(draft, listing, may_write=existing is None)
            self._refuse_many(len(draft.shards))
            ends = self._find_ends(draft.shards)
            refuse_gone(ends, day_of(self.now), _name_inputs(listing))
            found = directory.read_plan(self.output)
            if (found and found.generation) != (existing and existing.generation):
                return self._join(found, fingerprint(draft))
            generation = self._begin_generation(existing)
            self._write_rejected(draft)
            plan = Plan(
                fingerprint=fingerprint(draft),
                generation=generation,
                created_at=self.now,
                created_by=self.run_key,
                sources=draft.sources,
                limits=draft.limits,
                counts=draft.counts,
                shards=draft.stage(self.output),
                outputs=draft.bound_outputs(),
                count_images=self.counting.count_images,
                model_ends=ends,
            )
        self.notices.extend(
            describe_token_doubts(
                plan.shards,
                self.counting.mode_for(self.limits, listing.files),
                self.counting.deployments,
            )
        )
        self.notices.extend(describe_images(draft.images, plan.count_images))
        self.notices.extend(describe_ends(ends, day_of(self.now)))
        if draft.bad_count:
            self.notices.append(
                f"{draft.bad_count:,} lines could not be sent and are in {self.output.child(directory.REJECTED).uri}."
            )
        return self._commit(plan)

    def resume(self, plan: Plan, listing: Listing) -> SplitResult:
        """The plan that is there, if the input is still what it was made from.

        :raises InputChangedError: if it is not.
        """
        self.notices.extend(listing.notices)
        self._compare_names(plan, listing)
        self._refuse_many(len(plan.shards))
        self._check_ends(plan)
        asked = limits_of(self.limits)
        if asked != plan.limits:
            self.notices.append(
                f"{self.output.uri}: goes on with its plan, whose limits stand: {describe_limits(plan.limits)}; "
                f"asked for were {describe_limits(asked)}."
            )
        if self.counting.count_images != plan.count_images:
            self.notices.append(
                f"{self.output.uri}: goes on with its plan, which counts images as {plan.count_images}; asked for was "
                f"{self.counting.count_images}. Where nothing was sent yet, another output directory costs nothing."
            )
        if any(
            (source.size, source.etag) != (file.size, file.etag)
            for source, file in zip(plan.sources, listing.files, strict=True)
        ):
            self._compare_content(plan, listing)
        return SplitResult(plan, created=False, notices=tuple(self.notices))

    def _find_ends(self, shards: Iterable[Shard]) -> tuple[ModelEnd, ...]:
        return self.model_ends.find((shard.model for shard in shards), day_of(self.now))

    def _check_ends(self, plan: Plan) -> None:
        """A job that was begun goes on to its report with what it has; one that was not begins with nothing."""
        ends, today = self._find_ends(plan.shards), day_of(self.now)
        if any(end.is_past(today) for end in ends) and not self._was_begun():
            refuse_gone(ends, today, self.output.uri)
        self.notices.extend(describe_ends(ends, today))

    def _was_begun(self) -> bool:
        return bool(self.output.child(directory.STATE).names(recursive=True))

    def _scan(self, listing: Listing, limits: ShardLimits, counting: Counting) -> PlanDraft:
        with open_counting(counting, limits, listing.files) as count_chunks:
            scan = scan_sources(listing.files, limits, count_chunks, self.progress)
        try:
            return draft_plan(scan, listing.files, limits)
        except BaseException:
            scan.rejected.close()
            raise

    def _compare_names(self, plan: Plan, listing: Listing) -> None:
        planned = [source.uri for source in plan.sources]
        found = [file.uri for file in listing.files]
        if planned == found:
            return
        if len(planned) == len(found) == 1:
            names = SourceNames([*planned, *found])
            raise InputChangedError(
                f"{self.output.uri}: was planned for {names.name(0)}, now it is {names.name(1)}. Under its old name a "
                f"file that was renamed goes on, and costs nothing. {self.way_out}"
            )
        new = [uri for uri in found if uri not in planned]
        gone = [uri for uri in planned if uri not in found]
        changes = [f"new is {uri}" for uri in new[:3]] + [f"missing is {uri}" for uri in gone[:3]]
        raise InputChangedError(
            f"{self.output.uri}: was planned for {number_of(len(planned), 'input file')}, now there are {len(found):,}"
            f" ({'; '.join(changes) or 'in another order'}). {self.way_out}"
        )

    def _compare_content(self, plan: Plan, listing: Listing) -> None:
        """Same names, other versions: a file that was touched or copied still has the same requests."""
        for source, file in zip(plan.sources, listing.files, strict=True):
            if source.size != file.size and file.compression is None:
                raise InputChangedError(
                    f"{file.uri}: changed since it was planned ({file.size:,} bytes instead of {source.size:,}). "
                    f"{self.way_out}"
                )
        limits = ShardLimits(**msgspec.structs.asdict(plan.limits))
        counting = dataclasses.replace(self.counting, count_images=plan.count_images)
        with contextlib.closing(self._scan(listing, limits, counting)) as draft:
            if fingerprint(draft) != plan.fingerprint:
                raise InputChangedError(
                    f"{self.output.uri}: the input changed since it was planned. {self.way_out}"
                )
        self.notices.append(
            f"{self.output.uri}: input files are newer than the plan but hold the same requests; going on with it."
        )

    def _refuse_bad(self, draft: PlanDraft, listing: Listing, *, may_write: bool) -> None:
        if not draft.bad_count or self.on_bad_line == "reject":
            return
        all_bad = not draft.counts.requests
        if all_bad and (foreign := _name_format(draft, listing)):
            raise BadLinesError(
                f"{_name_inputs(listing)}: no line is JSON; it looks like {foreign}. {_FORMAT}"
            )
        first = [draft.names.describe(line) for line, _ in zip(draft.bad_lines(), range(10), strict=False)]
        more = f"\n  ... and {draft.bad_count - len(first):,} more" if draft.bad_count > len(first) else ""
        count = (
            f"{draft.bad_count:,} {'line' if draft.bad_count == 1 else 'lines'} of {draft.counts.positions:,}"
        )
        raise BadLinesError(
            f"{count} cannot be sent{self._put_rejected(draft, may_write)}; nothing was. "
            + (_FORMAT if all_bad else "Mend them, or set on_bad_line=reject to leave them out.")
            + "\n  "
            + "\n  ".join(first)
            + more
        )

    def _refuse_empty(self, draft: PlanDraft, listing: Listing, *, may_write: bool) -> None:
        if draft.counts.requests or self.on_empty == "skip":
            return
        way_out = "Set on_empty=skip if that may happen."
        if not listing.files:
            problem = "no file matches"
        elif draft.bad_count:
            problem = f"none of {number_of(draft.bad_count, 'line')} can be sent"
            problem += self._put_rejected(draft, may_write)
            if foreign := _name_format(draft, listing):
                problem, way_out = f"no line is JSON; it looks like {foreign}", _FORMAT
        elif draft.counts.blank:
            problem = f"has no requests, only {number_of(draft.counts.blank, 'blank line')}"
        else:
            problem = "is empty"
        raise EmptyInputError(f"{_name_inputs(listing)}: {problem}. {way_out}")

    def _refuse_many(self, shards: int) -> None:
        if self.max_shards is not None and shards > self.max_shards:
            raise InputError(
                f"The input makes {shards:,} shards, but [core] max_map_length of Airflow allows "
                f"{self.max_shards:,} mapped tasks. Raise AIRFLOW__CORE__MAX_MAP_LENGTH to {shards:,} or "
                "more for all components, or make shards larger."
            )

    def _begin_generation(self, existing: Plan | None) -> int:
        """The number of the new plan; what there is of an old one is put aside."""
        generation = max(existing.generation if existing else 0, last_generation(self.output))
        if generation:
            put_aside(self.output, generation)
        return generation + 1

    def _put_rejected(self, draft: PlanDraft, may_write: bool) -> str:
        """Where a person finds them, in words. Beside a plan, the file belongs to that plan."""
        if not may_write:
            return ""
        self._write_rejected(draft)
        return f" (all are in {self.output.child(directory.REJECTED).uri})"

    def _write_rejected(self, draft: PlanDraft) -> None:
        place = self.output.child(directory.REJECTED)
        if draft.bad_count:
            write_rejected(draft.bad_lines(), place)
        else:
            place.remove()

    def _commit(self, plan: Plan) -> SplitResult:
        """Write the plan, unless another splitter was faster."""
        if self.output.child(directory.PLAN).create_exclusive(encode_plan(plan)):
            return SplitResult(plan, created=True, notices=tuple(self.notices))
        return self._join(directory.read_plan(self.output), plan.fingerprint)

    def _join(self, winner: Plan | None, own: str) -> SplitResult:
        """Go on with a plan that another run wrote while this one was splitting.

        :raises JobExistsError: if it is not the plan that this run would have written.
        """
        if winner is None or winner.fingerprint != own:
            raise JobExistsError(
                f"{self.output.uri}: another run wrote a plan for other input or limits at the same time. "
                "Choose an output directory for each."
            )
        return SplitResult(winner, created=False, notices=tuple(self.notices))


_FORMAT = 'Each line must be one request: {"custom_id": ..., "method": "POST", "url": ..., "body": {...}}.'
_WAY_OUT = "Choose another output directory, or on_existing=restart to begin anew and pay again for what was answered."
_NEW_RUN = (
    "This run has begun anew already. Trigger a new run with on_existing=restart, which pays again for what was "
    "answered, or choose another output directory."
)


def _name_inputs(listing: Listing) -> str:
    more = len(listing.named) - 1
    return listing.named[0] + (f" and {number_of(more, 'more input')}" if more else "")


def _name_format(draft: PlanDraft, listing: Listing) -> str | None:
    """What it is instead, where no line is JSON and that can be told."""
    if draft.counts.requests or not is_no_json_at_all(draft.bad_lines()):
        return None
    return name_foreign_format(listing.files[0])


def limits_of(limits: ShardLimits) -> Limits:
    """As they stand in a plan."""
    return Limits(
        max_requests=limits.max_requests,
        max_bytes=limits.max_bytes,
        max_tokens=limits.max_tokens,
        max_embedding_inputs=limits.max_embedding_inputs,
    )


def describe_limits(limits: Limits) -> str:
    tokens = "no limit of" if limits.max_tokens is None else f"{limits.max_tokens:,}"
    return f"{limits.max_requests:,} requests, {limits.max_bytes:,} bytes, {tokens} tokens"
