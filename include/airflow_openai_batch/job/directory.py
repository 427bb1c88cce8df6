"""The names inside a job directory, and its plan.

One directory in object storage holds all there is to know of a job; whoever has it can go on.
No name is made from anything that stands in the input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from airflow_openai_batch.errors import JobError, NewerReleaseError
from airflow_openai_batch.job.plan import SCHEMA_VERSION, Plan, PlanHead
from airflow_openai_batch.openai_api.endpoints import BY_URL

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Segment, Shard
    from airflow_openai_batch.storage.location import Location

_Part = TypeVar("_Part", bound=PlanHead)

PLAN = "plan.json"
REJECTED = "rejected.jsonl"
FAILED = "failed.jsonl"
REPORT_JSON = "report.json"
BREAKER = "breaker.json"
KNOWN_BATCHES = "known_batches.json"
REPORT_MARKDOWN = "report.md"

STATE = "state"
RAW = "raw"
LEFTOVER = "leftover"
RESULTS = "results"
MEDIA = "media"
STAGED = "staged"
GENERATIONS = "generations"
SPENT = "spent"
WITHOUT_FLEX = "without_flex"
PACES = "paces"

FILES = frozenset({PLAN, REJECTED, FAILED, REPORT_JSON, REPORT_MARKDOWN, BREAKER, KNOWN_BATCHES})
"""Every file directly in the job directory."""
FOLDERS = frozenset({STATE, RAW, LEFTOVER, RESULTS, MEDIA, STAGED, GENERATIONS, SPENT, WITHOUT_FLEX, PACES})
"""Every folder directly in the job directory."""


def state_folder(shard: int) -> str:
    """Where the ledger of a shard lies."""
    return f"{STATE}/{shard:05d}"


def raw_output(shard: int, send: int, part: int | None = None) -> str:
    """What OpenAI returned to a send, verbatim; ``part`` counts the segments of a real-time send from 1."""
    return f"{RAW}/{shard:05d}.{send}.output{_dot(part)}.jsonl"


def raw_error(shard: int, send: int, part: int | None = None) -> str:
    """The error file that goes with `raw_output`."""
    return f"{RAW}/{shard:05d}.{send}.error{_dot(part)}.jsonl"


def raw_videos(shard: int, send: int, part: int | None = None) -> str:
    """What became of the videos that a send has begun, in segments, as `raw_output`."""
    return f"{RAW}/{shard:05d}.{send}.videos{_dot(part)}.jsonl"


def _dot(part: int | None) -> str:
    return "" if part is None else f".{part:04d}"


def leftover(shard: int, send: int, first: int | None = None) -> str:
    """What this send carries, where that is not the whole shard; ``first``: a sample of it."""
    return f"{LEFTOVER}/{shard:05d}.{send}{'' if first is None else f'.first-{first}'}.jsonl"


def part(shard: int) -> str:
    """One row per request of the shard."""
    return f"{RESULTS}/part-{shard:05d}.parquet"


MOST_PLAN_BYTES = 2**30
"""Of 100,000 shards a plan has a twentieth."""


def media_folder(shard: int) -> str:
    """The files that answers of the shard brought."""
    return f"{MEDIA}/shard-{shard:05d}"


def staged_shard(shard: int) -> str:
    """The copy of a shard whose requests cannot be read as ranges of the input."""
    return f"{STAGED}/{shard:05d}.jsonl"


def staged_segments(shard: int) -> str:
    """The segments of a shard that has more of them than a plan should hold."""
    return f"{STAGED}/{shard:05d}.segments.json"


def generation_folder(generation: int) -> str:
    """Where the files of a generation lie after a restart."""
    return f"{GENERATIONS}/{generation:04d}"


def read_plan(output: Location) -> Plan | None:
    """The plan of a job directory; None where it has none.

    :raises JobError: if there is a ``plan.json`` that is not one of ours.
    :raises NewerReleaseError: if it is one that this release does not understand.
    """
    place = output.child(PLAN)
    output.fs.invalidate_cache()
    try:
        data = place.read_within(MOST_PLAN_BYTES)
    except FileNotFoundError:
        return None
    return parse_plan(place, data)


def parse_plan(place: Location, data: bytes) -> Plan:
    """The plan that was read from there.

    :raises JobError: as `read_plan`.
    """
    plan = decode_plan(place, data, Plan)
    if (problem := find_foreign(plan)) is not None:
        raise make_foreign_error(place, f"it says {problem}")
    return plan


def decode_plan(place: Location, data: bytes, kind: type[_Part]) -> _Part:
    """A plan or its head, as it stands there.

    :raises JobError: as `read_plan`.
    """
    try:
        version = msgspec.json.decode(data, type=_PlanVersion).schema_version
        if version > SCHEMA_VERSION:  # before anything else is read, which may have changed
            raise NewerReleaseError(
                f"{place.uri}: has schema version {version}, this release reads up to {SCHEMA_VERSION}. "
                "Upgrade airflow-provider-openai-batch where this task runs."
            )
        plan = msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise make_foreign_error(place, str(error)) from error
    if plan.generation < 1:
        raise make_foreign_error(place, f"it says generation {plan.generation}")
    return plan


def make_foreign_error(place: Location, why: str) -> JobError:
    return JobError(
        f"{place.uri}: is there but is no plan of this package ({why}). "
        "Use an empty output directory, or remove the file if nobody needs it."
    )


def find_foreign(plan: Plan) -> str | None:
    """What no plan of ours says; None for one that may be ours.

    It is read from a place that others may write to as well: a name in it becomes a path, an endpoint the address that
    the account's key is sent to. So there are only those that are known, and a shard has its own.
    """
    found = (find_foreign_shard(shard, number, len(plan.sources)) for number, shard in enumerate(plan.shards))
    return next(filter(None, found), None)


def find_foreign_shard(shard: Shard, number: int, sources: int) -> str | None:
    """As `find_foreign`, of the shard that stands in a place.

    :param sources: how many the plan has.
    """
    if shard.shard != number:
        return f"shard {shard.shard} in the place of shard {number}"
    problem = _find_in_shard(shard, sources)
    return None if problem is None else f"shard {number}: {problem}"


def _find_in_shard(shard: Shard, sources: int) -> str | None:
    if shard.endpoint not in BY_URL:
        return f"endpoint {shard.endpoint[:100]!r}"
    if shard.staged not in (None, staged_shard(shard.shard)):
        return f"staged copy {shard.staged[:100]!r}"
    if shard.segments_file not in (None, staged_segments(shard.shard)):
        return f"segments in {shard.segments_file[:100]!r}"
    return find_foreign_segment(shard.segments, sources)


def find_foreign_segment(segments: Iterable[Segment], sources: int) -> str | None:
    """As `find_foreign`.

    :param sources: how many the plan has.
    """
    for segment in segments:
        if not (
            0 <= segment.source < sources and 0 <= segment.start <= segment.end and segment.requests >= 0
        ):
            return f"segment {segment.source}, {segment.start} to {segment.end}"
    return None


class _PlanVersion(msgspec.Struct):
    schema_version: int = SCHEMA_VERSION
