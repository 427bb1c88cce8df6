"""The life of batches, driven by the clock alone: nothing here sleeps, threads or draws real chance.

Every call first lets happen, in the order of time, what was due since the last one. Work on large files
can be left to `Lifecycle.work`; the batch then waits for it in the status it is in.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_openai_batch.testing.batches import TERMINAL, Batch, check_creation, count_days
from airflow_openai_batch.testing.files import BATCH_RETENTION_S, Files, StoredFile, expiry_of
from airflow_openai_batch.testing.landing import BatchLanding, Respond
from airflow_openai_batch.testing.rates import CreateLimit
from airflow_openai_batch.testing.refusals import ApiError, batch_error
from airflow_openai_batch.testing.requests import CountTokens, base_model
from airflow_openai_batch.testing.scan import RequestScan

if TYPE_CHECKING:
    from airflow_openai_batch.testing.books import Books
    from airflow_openai_batch.testing.clock import Ticker
    from airflow_openai_batch.testing.faults import BatchFault
    from airflow_openai_batch.testing.script import Script
    from airflow_openai_batch.testing.settings import Settings

JSON = dict[str, Any]

_WHOLE = 1 << 60
_T = TypeVar("_T")


class Lifecycle:
    """All batches.

    :param new_id: makes an id with a prefix.
    :param respond_for: gives, for a batch, what answers its lines.
    :param inline_bytes: larger input files are left to `work`; none does everything at once.
    """

    def __init__(
        self,
        *,
        clock: Ticker,
        settings: Callable[[], Settings],
        files: Files,
        script: Script,
        books: Books,
        new_id: Callable[[str], str],
        respond_for: Callable[[Batch], Respond],
        count_tokens: CountTokens,
        inline_bytes: int | None = None,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._files = files
        self._script = script
        self._books = books
        self._new_id = new_id
        self._respond_for = respond_for
        self._count_tokens = count_tokens
        self._batches: dict[str, Batch] = {}
        self._due: list[tuple[float, int, str, int]] = []
        self._pushed = 0
        self._pending: dict[str, RequestScan | BatchLanding] = {}
        self._create_limit = CreateLimit()
        self._inline_bytes = inline_bytes

    # -- what the API offers -------------------------------------------------------------------

    def create(self, params: Any, told: dict[str, str] | None = None) -> Batch:
        """:param told: see `Emulator.create_batch`.
        :raises ApiError: 400 or 429."""
        self.settle()
        now, settings = self._clock.now(), self._settings()
        check_creation(params, settings.rules)
        policy = params.get("output_expires_after")
        expiry_of(policy, now, param="output_expires_after")
        file = self._files.find(params["input_file_id"])
        self._check_input(file)
        self._create_limit.take(now, settings.creates_per_hour)
        metadata = params.get("metadata")
        if not settings.rules.keeps_metadata:  # an upload is called by the key of its send
            metadata = told or {"job_key": "" if file is None else file.filename.removesuffix(".jsonl")}
        number = len(self._batches) + 1
        batch = Batch(
            id=self._new_id("batch_"),
            number=number,
            input_file_id=params["input_file_id"],
            endpoint=params["endpoint"],
            metadata=metadata,
            created_at=now,
            expires_at=now + settings.window_s * count_days(params["completion_window"]),
            completion_window=params["completion_window"],
            output_expires_s=policy["seconds"] if policy else None,
        )
        fault = self._script.strike_batch(number, metadata or {}, batch.endpoint)
        if fault is not None:
            batch.fault = fault
        self._batches[batch.id] = batch
        self._books.batches_by_job_key[(metadata or {}).get("job_key", "")].append(batch.id)
        if file is not None:
            self._files.pin(file.id)
        self._schedule(batch, now + _either(batch.fault.validating_s, settings.validating_s))
        return batch

    def _check_input(self, file: StoredFile | None) -> None:
        wanted = self._settings().rules.batch_purpose
        if file is not None and file.purpose != wanted:
            raise ApiError(
                400,
                f"Invalid file purpose: expected '{wanted}', got '{file.purpose}'.",
                param="input_file_id",
            )
        if file is not None and self._clock.now() < file.processed_at:
            raise ApiError(
                400, f"The file {file.id} is not processed yet. Try again later.", param="input_file_id"
            )

    def get(self, batch_id: str) -> Batch:
        """:raises ApiError: 404."""
        self.settle()
        return self._known(batch_id)

    def page(self, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        """:return: one page, newest first, and whether there are more."""
        self.settle()
        mark = self._known(after).number if after is not None else len(self._batches) + 1
        now, lag = self._clock.now(), self._settings().list_lag_s
        page: list[Batch] = []
        for batch in reversed(self._batches.values()):
            if batch.number >= mark or batch.created_at + _either(batch.fault.list_lag_s, lag) > now:
                continue
            if len(page) == limit:
                return page, True
            page.append(batch)
        return page, False

    def cancel(self, batch_id: str) -> Batch:
        """:raises ApiError: 404 or 409."""
        self.settle()
        batch = self._known(batch_id)
        if batch.status in TERMINAL:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        if batch.status != "cancelling":
            self._start_cancelling(batch, self._clock.now())
        return batch

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches.values())

    def _known(self, batch_id: str) -> Batch:
        try:
            return self._batches[batch_id]
        except KeyError:
            raise ApiError(404, f"No batch found with id '{batch_id}'.") from None

    # -- time ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let happen all that is due by now."""
        now = self._clock.now()
        self._files.expire(now)
        while self._due and self._due[0][0] <= now:
            at, _, batch_id, stage = heapq.heappop(self._due)
            batch = self._batches[batch_id]
            if batch.stage == stage:
                self._advance(batch, at)

    @property
    def next_due(self) -> float | None:
        """When something happens next, for a harness that skips the time between."""
        return self._due[0][0] if self._due else None

    def _schedule(self, batch: Batch, at: float) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (at, self._pushed, batch.id, batch.stage))

    def work(self, lines: int) -> bool:
        """Do some of the work that was left; true if there is more."""
        for batch_id, work in self._pending.items():
            if work.step(lines):
                del self._pending[batch_id]
                self._schedule(self._batches[batch_id], self._clock.now())
                self.settle()
            break
        return bool(self._pending)

    def close(self) -> None:
        """Leave the work that is under way: close its files."""
        for work in self._pending.values():
            work.close()
        self._pending.clear()

    def _is_worked(self, batch: Batch, work: RequestScan | BatchLanding, size_bytes: int) -> bool:
        if work.done:
            return True
        if self._inline_bytes is not None and size_bytes > self._inline_bytes:
            self._pending[batch.id] = work
            return False
        return work.step(_WHOLE)

    # -- the states ----------------------------------------------------------------------------

    def _advance(self, batch: Batch, at: float) -> None:
        match batch.status:
            case "validating":
                self._leave_validating(batch, at)
            case "in_progress":
                self._leave_in_progress(batch, at)
            case "finalizing":
                self._end(batch, "completed", at)
            case "cancelling":
                self._end(batch, "cancelled", at)

    def _leave_validating(self, batch: Batch, at: float) -> None:
        fault, settings = batch.fault, self._settings()
        if fault.batch == "validating":
            return None
        try:
            size = self._files.size(batch.input_file_id)
        except (KeyError, FileNotFoundError):
            return self._fail(batch, at, [self._error("invalid_request", batch, param="file_id")])
        if batch.scan is None:
            source = self._files.open(batch.input_file_id)
            batch.scan = RequestScan(source, batch.endpoint, settings, self._count_tokens)
        if not self._is_worked(batch, batch.scan, size):
            return None
        scan = batch.scan
        batch.model, batch.requests, batch.input_tokens = scan.model, scan.requests, scan.input_tokens
        errors = self._scripted_failure(batch, fault) or scan.errors or self._refusal_of_queue(batch)
        if errors:
            return self._fail(batch, at, errors)
        batch.queued = (scan.queue, scan.input_tokens, scan.requests)
        self._books.enqueue(*batch.queued)
        batch.enter("in_progress", at)
        takes_s = settings.in_progress_s + settings.per_request_s * scan.requests
        batch.takes_s = _either(fault.takes_s, takes_s)
        if fault.batch != "in_progress":
            ends_at = at + batch.takes_s
            self._schedule(
                batch, min(ends_at, batch.expires_at) if settings.rules.expires_batches else ends_at
            )
        return None

    def _leave_in_progress(self, batch: Batch, at: float) -> None:
        fault = batch.fault
        ran_out = batch.stamps["in_progress"] + batch.takes_s > batch.expires_at
        if self._settings().rules.expires_batches and (fault.batch == "expired" or ran_out):
            self._end(batch, "expired", at)
        elif fault.batch == "cancelled":
            self._start_cancelling(batch, at)
        else:
            batch.enter("finalizing", at)
            if fault.batch != "finalizing":
                self._schedule(batch, at + _either(fault.finalizing_s, self._settings().finalizing_s))

    def _start_cancelling(self, batch: Batch, at: float) -> None:
        if batch.status == "finalizing":
            batch.done_at_cancel = _either(batch.fault.done_of(batch.requests), batch.requests)
        elif batch.fault.batch == "cancelled":
            batch.done_at_cancel = _either(batch.fault.done_of(batch.requests), batch.requests // 2)
        else:
            batch.done_at_cancel = batch.done_by(at)
        batch.enter("cancelling", at)
        self._schedule(batch, at + _either(batch.fault.cancelling_s, self._settings().cancelling_s))

    def _fail(self, batch: Batch, at: float, errors: list[JSON]) -> None:
        batch.errors = errors
        for error in errors:
            self._books.refusals[error["code"] or "no code"] += 1
        self._close(batch, "failed", at)

    def _end(self, batch: Batch, status: str, at: float) -> None:
        """Land what ran, then end: batch by batch the only place where lines are answered."""
        if "in_progress" in batch.stamps:
            landing = batch.landing or self._start_landing(batch, status, at)
            if not self._is_worked(batch, landing, landing.size_bytes):
                return
            self._store_results(batch, landing, at)
        self._close(batch, status, at)

    def _close(self, batch: Batch, status: str, at: float) -> None:
        batch.enter(status, at)
        self._books.outcomes[status] += 1
        if batch.queued is not None:
            self._books.release(*batch.queued)
            batch.queued = None
        batch.scan = batch.landing = None
        left = self._pending.pop(batch.id, None)
        if left is not None:
            left.close()
        self._files.unpin(batch.input_file_id)

    # -- results -------------------------------------------------------------------------------

    def _start_landing(self, batch: Batch, status: str, at: float) -> BatchLanding:
        assert batch.scan is not None  # noqa: S101 - a batch in progress was scanned
        done, code = batch.requests, None
        if status == "expired":
            scripted = batch.fault.done_of(batch.requests)
            by_time = batch.requests // 2 if batch.fault.batch == "expired" else batch.done_by(at)
            done, code = _either(scripted, by_time), "batch_expired"
        elif status == "cancelled":
            done, code = _either(batch.done_at_cancel, 0), "batch_cancelled"
        batch.result_ids = (self._new_id("file-"), self._new_id("file-"))
        batch.landing = BatchLanding(
            batch_id=batch.id,
            source=self._files.open(batch.input_file_id),
            offsets=batch.scan.offsets,
            tokens=batch.scan.tokens,
            due=done,
            unfinished_code=code if batch.fault.unfinished == "error_file" else None,
            respond=self._respond_for(batch),
            output=self._files.writer(batch.result_ids[0]),
            errors=self._files.writer(batch.result_ids[1]),
            seed=f"{self._settings().seed}|{batch.id}",
        )
        return batch.landing

    def _store_results(self, batch: Batch, landing: BatchLanding, at: float) -> None:
        batch.counts = (landing.completed, landing.failed)
        batch.usage = (landing.input_tokens, landing.output_tokens)
        output_id, error_id = batch.result_ids
        # A file of which every line was lost is there all the same, and says how long it is.
        holds_output = landing.output_lines or landing.lost
        batch.output_file_id = self._store(batch, output_id, "output", holds_output, at)
        batch.error_file_id = self._store(batch, error_id, "error", landing.error_lines, at)
        if batch.fault.hide_output_file:
            batch.output_file_id = None
        if batch.fault.empty_error_file_id and batch.error_file_id is None:
            batch.error_file_id = ""

    def _store(self, batch: Batch, file_id: str, what: str, lines: int, at: float) -> str | None:
        if not lines:
            self._files.discard(file_id)
            return None
        self._files.add(
            StoredFile(
                id=file_id,
                filename=f"{batch.id}_{what}.jsonl",
                purpose="batch_output",
                size=self._files.size(file_id),
                created_at=at,
                expires_at=at + _either(batch.output_expires_s, BATCH_RETENTION_S),
                lag=batch.fault.file_lag,
            )
        )
        if what in batch.fault.deleted:
            self._files.drop(file_id)
        return file_id

    # -- refusals ------------------------------------------------------------------------------

    def _refusal_of_queue(self, batch: Batch) -> list[JSON]:
        """Tokens first, then requests, by model, over all batches and strangers."""
        settings, model = self._settings(), base_model(batch.model or "")
        asked = (
            ("token_limit_exceeded", settings.queue_limits, self._books.enqueued[model], batch.input_tokens),
            (
                "request_limit_exceeded",
                settings.queue_request_limits,
                self._books.enqueued_requests[model],
                batch.requests,
            ),
        )
        for code, limits, held, wanted in asked:
            limit = limits.get(model, limits.get("*"))
            if limit is not None and held + wanted > limit:
                return [self._error(code, batch, limit=limit)]
        return []

    def _scripted_failure(self, batch: Batch, fault: BatchFault) -> list[JSON]:
        if fault.batch != "failed":
            return []
        code = fault.code or "token_limit_exceeded"
        limits = self._settings().queue_limits
        limit = _either(fault.limit, limits.get(batch.model or "", 2_000_000))
        param = "file_id" if code == "invalid_request" else None
        error = self._error(code, batch, limit=limit, line=fault.line_number, param=param)
        if fault.message is not None:
            error["message"] = fault.message
        return [error]

    def _error(self, code: str, batch: Batch, **values: Any) -> JSON:
        settings, model = self._settings(), batch.model or "unknown"
        names: dict[str, Any] = {
            "model": model,
            "organization": settings.organization,
            "file_id": batch.input_file_id,
        }
        error = batch_error(code, **names, **values)
        worded = settings.rules.word_refusal(code, model=model, limit=values.get("limit", 0))
        return {**error, "message": worded or error["message"]}


def _either(value: _T | None, default: _T) -> _T:
    return default if value is None else value
