"""The names inside a job directory, and its plan.

One directory in object storage holds all there is to know of a job; whoever has it can go on.
No name is made from anything that stands in the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.core.errors import JobError, NewerReleaseError
from airflow_openai_batch.core.plan import SCHEMA_VERSION, Plan

if TYPE_CHECKING:
    from airflow_openai_batch.core.storage import Location

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
STAGED = "staged"
GENERATIONS = "generations"
SPENT = "spent"

FILES = frozenset({PLAN, REJECTED, FAILED, REPORT_JSON, REPORT_MARKDOWN, BREAKER, KNOWN_BATCHES})
"""Every file directly in the job directory."""
FOLDERS = frozenset({STATE, RAW, LEFTOVER, RESULTS, STAGED, GENERATIONS, SPENT})
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


def _dot(part: int | None) -> str:
    return "" if part is None else f".{part:04d}"


def leftover(shard: int, send: int, first: int | None = None) -> str:
    """What this send carries, where that is not the whole shard; ``first``: a sample of it."""
    return f"{LEFTOVER}/{shard:05d}.{send}{'' if first is None else f'.first-{first}'}.jsonl"


def part(shard: int) -> str:
    """One row per request of the shard."""
    return f"{RESULTS}/part-{shard:05d}.parquet"


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
        data = place.read_bytes()
    except FileNotFoundError:
        return None
    return parse_plan(place, data)


def parse_plan(place: Location, data: bytes) -> Plan:
    """The plan that was read from there.

    :raises JobError: as `read_plan`.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:  # before anything else is read, which may have changed
            raise NewerReleaseError(
                f"{place.uri}: has schema version {version}, this release reads up to {SCHEMA_VERSION}. "
                "Upgrade airflow-provider-openai-batch where this task runs."
            )
        return Plan.from_json(data)
    except msgspec.DecodeError as error:
        raise JobError(
            f"{place.uri}: is there but is no plan of this package ({error}). "
            "Use an empty output directory, or remove the file if nobody needs it."
        ) from error


class _Version(msgspec.Struct):
    schema_version: int = SCHEMA_VERSION
