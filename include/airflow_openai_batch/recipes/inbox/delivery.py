"""The answers to a request file, beside it, in the format and under the name of OpenAI's own output files.

gpt-batch-manager writes ``shard-000-of-079.output.jsonl`` beside ``shard-000-of-079.jsonl``: what OpenAI returned.
Here a file may have become several batches, with leftovers sent again, so that the lines are brought together: one for
each request, verbatim, in the order of the file. Of embeddings that came in pieces the line has all vectors. What has
no answer goes to ``.error.jsonl``, as OpenAI has it.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
import pyarrow.parquet as pq

from airflow_openai_batch.errors import AccountingError, JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.rejected import RejectedLine
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.lenient_json import UnreadableJSONError
from airflow_openai_batch.openai_api.result_line import read_result_line, write_error_line
from airflow_openai_batch.recipes.inbox.pending_files import find_content
from airflow_openai_batch.results.landing_summary import find_unfinished
from airflow_openai_batch.results.raw_index import RawAnswers, SendFiles
from airflow_openai_batch.storage.sources import describe_file
from airflow_openai_batch.tables.join.answer_reader import AnswerReader
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_openai_batch.job.plan import Plan, Shard
    from airflow_openai_batch.recipes.inbox.inbox import Inbox
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

_RAW = re.compile(r"(?P<shard>\d+)\.(?P<send>\d+)\.(?:output|error)(?:\.\d+)?\.jsonl")
_COLUMNS = ["position", "custom_id", "status_code", "error_code", "error_message", "openai_request_id"]
_ROWS = 5_000
_VECTORS = ("embeddings", "input_tokens")
_OK = 200


@dataclass(slots=True)
class Delivery:
    """What was written: ``answers`` to the output, ``errors`` to the error file."""

    answers: int = 0
    errors: int = 0


def deliver_outputs(inbox: Inbox, job_uri: str) -> list[dict[str, Any]] | None:
    """Write the output of every file that a job is for, once all its shards have landed; None while they have not.

    Whichever shard lands last delivers; two that land at once write the same. The job directory stays, so that a file
    that lost its output gets it again without a request. A file whose output cannot be written holds up no other; its
    error comes last.

    :raises AccountingError: if the lines written are not as many as the file has requests.
    """
    place = inbox.open_job(job_uri)
    plan = directory.read_plan(place)
    if plan is None:
        raise JobError(f"{place.uri}: there is no plan.json; clear the split.")
    unfinished = sum(1 for _ in find_unfinished(plan, place))
    if unfinished:
        log.info(
            "%s of %s are not done; the last one delivers.", unfinished, number_of(len(plan.shards), "shard")
        )
        return None
    delivered: list[dict[str, Any]] = []
    failures: list[Exception] = []
    for name in inbox.read_names(place):
        try:
            delivered.append(_deliver_file(inbox, name, place, plan))
        except Exception as error:  # each store has its own; the others get their answers all the same
            log.error("%s: its answers could not be delivered: %s", name, error)
            failures.append(error)
    if failures:
        raise failures[0]
    return delivered


def _deliver_file(inbox: Inbox, name: str, place: Location, plan: Plan) -> dict[str, Any]:
    source = inbox.place.child(name)
    if (sha256 := find_content(inbox, name, place)) is None:
        log.info("%s is gone or has another content now: nothing to deliver for it.", name)
        return {"file": source.uri, "output": None}
    inbox.note_begun(name)  # two files: one may be there when this ends, and no later run would touch it
    found = _write(plan, place, inbox.output(name), inbox.error(name))
    if not found.errors:
        inbox.error(name).remove()
    inbox.write_delivered(name, describe_file(source), sha256)
    log.info(
        "%s: %s, %s.",
        inbox.output(name).uri,
        number_of(found.answers, "answer"),
        number_of(found.errors, "error"),
    )
    return {
        "file": source.uri,
        "output": inbox.output(name).uri,
        "answers": found.answers,
        "errors": found.errors,
    }


def _write(plan: Plan, place: Location, output: Location, error: Location) -> Delivery:
    found = Delivery()
    with (
        output.open_write(for_people=True) as good,
        error.open_write(for_people=True) as bad,
        AnswerReader(plan, lambda shard: place.child(directory.part(shard)), _VECTORS) as vectors,
    ):
        for shard in plan.shards:
            _write_shard(place, shard, vectors, good, bad, found)
        for line in _read_rejected(place):
            bad.write(_make_error(line.position, line.custom_id, line.code, line.message))
            found.errors += 1
        written = found.answers + found.errors
        if written != plan.counts.positions:  # neither file appears then
            raise AccountingError(
                f"{place.uri}: has {plan.counts.positions:,} lines, {written:,} were delivered."
            )
    return found


def _write_shard(
    place: Location, shard: Shard, vectors: AnswerReader, good: BinaryIO, bad: BinaryIO, found: Delivery
) -> None:
    is_embedding = shard.endpoint == Endpoint.EMBEDDINGS
    with RawAnswers(_find_sends(place, shard.shard)) as raw:
        for row in _read_rows(place.child(directory.part(shard.shard))):
            places = raw.list_places(raw.take(row["custom_id"]))
            line = _choose(raw, places, row["openai_request_id"])
            if line is not None and is_embedding and len(places) > 1:
                line = _put_together(line, vectors, row["position"])
            answered = line is not None and row["status_code"] == _OK
            if line is None:
                line = _make_error(row["position"], row["custom_id"], row["error_code"], row["error_message"])
            (good if answered else bad).write(line.rstrip(b"\n") + b"\n")
            found.answers += answered
            found.errors += not answered


def _choose(raw: RawAnswers, places: Sequence[int], request_id: str | None) -> bytes | None:
    """The line that the row was made from: of several, the one with the row's request id."""
    if len(places) == 1:
        return raw.read(places[0])
    lines = [raw.read(place) for place in places]
    for line in lines:
        with contextlib.suppress(UnreadableJSONError):
            response = read_result_line(line).response
            if response is not None and response.request_id == request_id:
                return line
    return lines[-1] if lines else None


def _put_together(line: bytes, rows: AnswerReader, position: int) -> bytes:
    """The line with all vectors of the row, where several sends have brought them: each alone has some, and counts
    them from 0. A line that has as many as the row stays as it is."""
    (row,) = rows.take(np.array([position])).to_pylist()
    vectors = row["embeddings"] or []
    try:
        root = lenient_json.decode(line)
        body = root["response"]["body"]
        given = [each["embedding"] for each in body["data"]]
    except (UnreadableJSONError, KeyError, TypeError):
        return line  # it brought none
    if not vectors or len(given) == len(vectors):
        return line
    is_packed = any(isinstance(each, str) for each in given)
    data = [
        {"object": "embedding", "index": index, "embedding": _pack(vector) if is_packed else vector}
        for index, vector in enumerate(vectors)
        if vector is not None
    ]
    tokens = row["input_tokens"]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return lenient_json.encode(
        root | {"response": root["response"] | {"body": body | {"data": data} | usage}}
    ).encode()


def _pack(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _find_sends(place: Location, shard: int) -> list[SendFiles]:
    by_send: dict[int, list[Location]] = {}
    folder = place.child(directory.RAW)
    for name in folder.names():
        match = _RAW.fullmatch(name)
        if match and int(match["shard"]) == shard:
            by_send.setdefault(int(match["send"]), []).append(folder.child(name))
    return [
        SendFiles(send=send, sent_as="batch", files=tuple(files)) for send, files in sorted(by_send.items())
    ]


def _read_rows(part: Location) -> Iterator[dict[str, Any]]:
    with part.open_read() as file, pq.ParquetFile(file) as rows:
        for batch in rows.iter_batches(_ROWS, columns=_COLUMNS):
            yield from batch.to_pylist()


def _read_rejected(place: Location) -> Iterator[RejectedLine]:
    try:
        file = place.child(directory.REJECTED).open_read()
    except FileNotFoundError:
        return
    with file:
        for line in file:
            yield msgspec.json.decode(line, type=RejectedLine)


def _make_error(position: int, custom_id: str | None, code: str | None, message: str | None) -> bytes:
    return write_error_line(f"line_{position + 1}", custom_id, code, message) + b"\n"
