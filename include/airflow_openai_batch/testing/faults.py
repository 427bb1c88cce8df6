"""What a script can say: faults of a batch, of a line, of an HTTP call.

Each is a frozen struct that checks itself, and the same JSON works over the control API.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

BatchOutcome = Literal[
    "completed", "failed", "expired", "cancelled", "validating", "in_progress", "finalizing"
]
LineName = Literal[
    "missing", "duplicate", "string_body", "refusal", "content_filter", "length", "bad_schema", "not_json",
    "empty", "missing_vector", "missing_image", "not_base64", "request_timeout", "batch_expired", "batch_cancelled",
    "unparsable", "no_capacity", "failed_video", "stuck_video",
]  # fmt: skip


class BatchFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of the next batch that matches."""

    batch: BatchOutcome
    """The status it ends in. ``validating``, ``in_progress``, ``finalizing``: it is stuck there."""
    times: int | None = 1
    """How many batches; none for all that match."""

    nth: int | None = None
    """Only the nth batch created, from 1."""
    job_key: str | None = None
    shard: str | int | None = None
    send: str | int | None = None
    metadata: dict[str, str] | None = None
    """Only batches with these pairs."""
    endpoint: str | None = None
    share: float = 1.0
    """Only so large a part of the batches, drawn by the seed."""

    done: int | None = None
    """Requests that ran before it expired or was cancelled; all or, by time, a part by default."""
    total: int | None = None
    """``done=7, total=10`` is seven tenths of the requests, whatever their number."""
    code: str | None = None
    """Of a failed batch; see `refusals.BATCH_MESSAGES`."""
    message: str | None = None
    line_number: int | None = None
    """In the error of a failed batch."""
    limit: int | None = None
    """The number in a refusal for queue room."""

    validating_s: float | None = None
    takes_s: float | None = None
    """Seconds in progress."""
    finalizing_s: float | None = None
    cancelling_s: float | None = None
    list_lag_s: float | None = None

    hide_output_file: bool = False
    """``output_file_id`` is null although requests succeeded, and stays so."""
    file_ids_late_s: float = 0.0
    """Both file ids are null for so long after the batch's end ..."""
    file_ids_late: int = 0
    """... or the first so many times that it is shown after its end."""
    empty_error_file_id: bool = False
    """``error_file_id`` is ``""`` where there is no error file."""
    file_lag: int = 0
    """So many reads of each result file answer 404 first."""
    deleted: tuple[Literal["output", "error"], ...] = ()
    """Result files that somebody deletes as soon as they are there."""
    unfinished: Literal["error_file", "missing"] = "error_file"
    """Where requests that did not run are said so."""
    omit: tuple[Literal["request_counts", "usage", "model", "errors"], ...] = ()
    """Optional fields that are null."""

    def done_of(self, requests: int) -> int | None:
        if self.done is None:
            return None
        done = self.done if self.total is None else round(requests * self.done / self.total)
        return max(0, min(requests, done))


class LineFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of requests, in a batch or in real time. Without a selection: of every one."""

    line: int | LineName
    """A status code (0, 400, 429, 500, 503 ...) or what is wrong with the line. ``no_capacity`` strikes only requests
    through flex."""
    times: int | None = 1
    """How often for each request; none for ever."""

    custom_id: str | list[str] | None = None
    """In batches only: a real-time call has none."""
    position: int | list[int] | None = None
    """0-based line of the batch's file."""
    every: int | None = None
    """Each nth line of the file, or each nth real-time call, from the first."""
    share: float = 1.0
    """So large a part of the requests, drawn by the seed."""
    contains: str | None = None
    """Requests with this text in their JSON."""
    scope: Literal["both", "batch", "realtime"] = "both"
    job_key: str | None = None
    shard: str | int | None = None

    code: str | None = None
    message: str | None = None


class HttpFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of HTTP calls."""

    http: str
    """``"POST /v1/batches"``, ``"/v1/files/*/content"``: ``*`` is one part of a path, ``**`` any rest."""
    times: int | None = 1
    skip: int = 0
    """Let so many matching calls pass first."""
    share: float = 1.0

    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    drop: Literal["before", "after"] | None = None
    """Cut the connection before the call has an effect, or after it, so that only the reply is lost."""
    truncate_bytes: int | None = None
    """Cut the connection after so many bytes of the answer's body."""
    keep_lines: int | None = None
    """End the answer's body in good order after so many whole lines, as a proxy does that gave up."""
    page: str | None = None
    """Answer 200 with this text, an HTML page, in the place of what was asked for."""
    forget_after: bool = False
    """Answer a list as if its ``after`` had not been given."""
    delay_s: float = 0.0
    """Real seconds before anything happens."""
    bytes_per_s: int | None = None
    """Real speed of the answer's body."""


Fault = BatchFault | LineFault | HttpFault
_KINDS: dict[str, type[Fault]] = {"batch": BatchFault, "line": LineFault, "http": HttpFault}


def parse_fault(fields: dict[str, Any]) -> Fault:
    """:raises ValueError: if the fields are no fault; the message says which field and why."""
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        raise ValueError(f"A script needs exactly one of batch=, line=, http=; got {sorted(fields)}.")
    try:
        return msgspec.convert(fields, _KINDS[kinds[0]])
    except msgspec.ValidationError as error:
        raise ValueError(f"script({kinds[0]}=...): {error}") from None
