"""The emulator without HTTP: everything the API does, driven by a clock.

Simulations use it as it is (`MemoryBlobs`, a virtual clock, no threads); the server puts HTTP in front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_openai_batch.testing.blobs import Blobs, MemoryBlobs
from airflow_openai_batch.testing.books import Books
from airflow_openai_batch.testing.checks import check_flex, check_request
from airflow_openai_batch.testing.clock import Clock, Ticker
from airflow_openai_batch.testing.files import BATCH_RETENTION_S, Files, StoredFile, expiry_of
from airflow_openai_batch.testing.lifecycle import Lifecycle
from airflow_openai_batch.testing.rates import EmulatedRates
from airflow_openai_batch.testing.refusals import ApiError, missing
from airflow_openai_batch.testing.replies.answers import Answer, Answers
from airflow_openai_batch.testing.requests import (
    CountTokens,
    estimate_tokens,
)
from airflow_openai_batch.testing.responder import ReplyPlace, Responder
from airflow_openai_batch.testing.script import Script
from airflow_openai_batch.testing.settings import Settings
from airflow_openai_batch.testing.videos import Videos

if TYPE_CHECKING:
    from airflow_openai_batch.testing.batches import Batch

JSON = dict[str, Any]


class Emulator:
    """OpenAI's files, batches and models, in one process.

    Not thread-safe: the server holds a lock around it. Methods raise `ApiError` where OpenAI would answer
    with another status than 200, and return what it would answer otherwise.

    :param clock: anything with ``now()``; real time by default.
    :param blobs: where file contents lie; in memory by default.
    :param count_tokens: input tokens of a request body; a quarter of the characters by default.
    :param inline_bytes: batches with larger files wait for `Lifecycle.work`; by default none does.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        clock: Ticker | None = None,
        blobs: Blobs | None = None,
        count_tokens: CountTokens = estimate_tokens,
        detailed_books: bool = True,
        inline_bytes: int | None = None,
    ) -> None:
        self.clock: Ticker = clock if clock is not None else Clock()
        self.settings = settings if settings is not None else Settings()
        self._first_settings = self.settings
        self._blobs = blobs if blobs is not None else MemoryBlobs()
        self._detailed_books = detailed_books
        self._inline_bytes = inline_bytes
        self.answers = Answers(count_tokens, settings=lambda: self.settings)
        self._start()

    def _start(self) -> None:
        self._made = 0
        self._calls = 0
        self.script = Script(self.settings.seed)
        self.books = Books(detail=self._detailed_books)
        self.files = Files(self._blobs)
        self._responder = Responder(
            answers=self.answers,
            script=self.script,
            books=self.books,
            clock=self.clock,
            settings=lambda: self.settings,
        )
        self._limits = EmulatedRates()
        self.batches = Lifecycle(
            clock=self.clock,
            settings=lambda: self.settings,
            files=self.files,
            script=self.script,
            books=self.books,
            new_id=self.new_id,
            respond_for=self._responder.respond_for,
            count_tokens=self.answers.count_tokens,
            inline_bytes=self._inline_bytes,
        )

    def reset(self) -> None:
        """Forget files, batches, script, books and changed settings. The clock goes on."""
        self.batches.close()
        self._blobs.clear()
        self.settings = self._first_settings
        self.answers.answer = None
        self.answers.videos = Videos()
        self._start()

    def configure(self, **changes: Any) -> None:
        """Change settings from now on. :raises TypeError: for a setting that does not exist."""
        self.settings = dataclasses.replace(self.settings, **changes)

    @property
    def answer(self) -> Answer | None:
        return self.answers.answer

    @answer.setter
    def answer(self, answer: Answer | None) -> None:
        self.answers.answer = answer

    def new_id(self, prefix: str) -> str:
        self._made += 1
        digest = blake2b(f"{self.settings.seed}|{self._made}".encode(), digest_size=16).hexdigest()
        return f"{prefix}{digest}"

    # -- files ---------------------------------------------------------------------------------

    def upload(
        self,
        data: bytes | Iterable[bytes],
        *,
        filename: str = "batch.jsonl",
        purpose: str = "batch",
        expires_after: Any = None,
    ) -> JSON:
        """Store a file in one go."""
        file_id = self.new_id("file-")
        with self.files.writer(file_id) as writer:
            writer.writelines([data] if isinstance(data, bytes) else data)
        return self.finish_upload(file_id, filename=filename, purpose=purpose, expires_after=expires_after)

    def finish_upload(
        self, file_id: str, *, filename: str, purpose: str | None, expires_after: Any = None
    ) -> JSON:
        """Make a file of content that was written to ``files.writer(file_id)``."""
        now = self.clock.now()
        size = self.files.size(file_id)
        try:
            rules = self.settings.rules
            if not purpose:
                raise missing("purpose")
            if purpose not in rules.purposes:
                raise ApiError(400, f"'{purpose[:50]}' is not one of {list(rules.purposes)} - 'purpose'")
            rules.check_expiry(expires_after, "expires_after")
            is_batch = purpose == rules.batch_purpose
            if is_batch and not filename.endswith(".jsonl"):
                raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")
            if is_batch and size > self.settings.max_file_bytes:
                raise ApiError(413, "File is too large.")
            expires_at = expiry_of(expires_after, now, param="expires_after")
        except ApiError:
            self.files.discard(file_id)
            raise
        if expires_at is None and is_batch:
            expires_at = now + BATCH_RETENTION_S
        processed_at = now + self.settings.processing_s
        file = self.files.add(StoredFile(file_id, filename, purpose, size, now, expires_at, processed_at))
        return self._show_file(file)

    def get_file(self, file_id: str) -> JSON:
        self.batches.settle()
        if not self.settings.file_objects:
            raise ApiError(405, "Method Not Allowed")
        return self._show_file(self.files.get(file_id))

    def _show_file(self, file: StoredFile) -> JSON:
        return self.settings.rules.show_file(self._skewed(file.to_json(self.clock.now())))

    def delete_file(self, file_id: str) -> JSON:
        self.batches.settle()
        return self.files.delete(file_id)

    def list_files(
        self,
        *,
        after: str | None = None,
        limit: int = 10_000,
        order: str = "desc",
        purpose: str | None = None,
    ) -> Any:
        _check_limit(limit, 10_000)
        self.batches.settle()
        rules = self.settings.rules
        if not rules.has_pages:
            after, limit = None, _ALL
        if not rules.tells_purposes_apart:
            purpose = None
        files, more = self.files.page(after=after, limit=limit, order=order, purpose=purpose)
        return rules.show_list(_list([self._show_file(file) for file in files], more))

    def open_content(self, file_id: str) -> tuple[BinaryIO, StoredFile]:
        self.batches.settle()
        file = self.files.get(file_id)
        return self.files.open(file_id), file

    def read_content(self, file_id: str) -> bytes:
        with self.open_content(file_id)[0] as content:
            return content.read()

    # -- batches -------------------------------------------------------------------------------

    def create_batch(self, params: Any, told: dict[str, str] | None = None) -> JSON:
        """:param told: what is known of the batch where its server keeps no metadata, for scripts and books."""
        return self.settings.rules.show_created(self._shown(self.batches.create(params, told)))

    def get_batch(self, batch_id: str) -> JSON:
        return self._shown(self.batches.get(batch_id))

    def cancel_batch(self, batch_id: str) -> JSON:
        return self._shown(self.batches.cancel(batch_id))

    def list_batches(self, *, after: str | None = None, limit: int = 20) -> Any:
        _check_limit(limit, 100)
        settings = self.settings
        rules, most = settings.rules, min(limit, settings.list_page_most or limit)
        batches, more = self.batches.page(*((after, most) if rules.has_pages else (None, _ALL)))
        if not rules.has_pages:
            batches.reverse()
        page = _list([self._shown(batch) for batch in batches], more)
        if not settings.list_has_more:
            del page["has_more"]
        return rules.show_list(page)

    def _shown(self, batch: Batch) -> JSON:
        shown = self._skewed(batch.to_json(self.clock.now()))
        if not self.settings.keeps_metadata:
            shown["metadata"] = None
        return self.settings.rules.show_batch(shown)

    def _skewed(self, shown: JSON) -> JSON:
        """With all times as this server's clock has them."""
        skew = int(self.settings.clock_skew_s)
        if not skew:
            return dict(shown)
        return {
            name: value + skew if name.endswith("_at") and isinstance(value, int) else value
            for name, value in shown.items()
        }

    def kept_batches(self, job_key: str) -> list[str]:
        """Batches of a job_key that were neither refused nor cancelled: at most one should be."""
        dropped = ("failed", "cancelling", "cancelled")
        ids = self.books.batches_by_job_key.get(job_key, ())
        return [batch_id for batch_id in ids if self.batches.get(batch_id).status not in dropped]

    def occupy_queue(self, model: str, tokens: int = 0, requests: int = 0) -> None:
        """Let strangers of the organisation put so much into the queue; negative numbers take it out."""
        self.books.enqueue(model, tokens, requests)

    # -- videos --------------------------------------------------------------------------------

    def get_video(self, video_id: str) -> JSON:
        return self.answers.videos.look_at(video_id, self.clock.now())

    def read_video(self, video_id: str) -> bytes:
        return self.answers.videos.read_content(video_id, self.clock.now())

    # -- models --------------------------------------------------------------------------------

    def call(self, endpoint: str, body: Any) -> tuple[JSON, dict[str, str]]:
        """Answer in real time.

        :return: the body and the x-ratelimit headers.
        """
        settings = self.settings
        if isinstance(body, dict) and body.get("stream"):
            raise ApiError(400, "The emulator does not stream.", code="unsupported_value", param="stream")
        check_request(body, endpoint, settings.models)
        flex = body.get("service_tier") == "flex"
        if flex:
            check_flex(body, endpoint, settings.flex_models)
        tokens = self.answers.count_tokens(body, endpoint)
        headers = self._limits.take(
            body.get("model", ""),
            tokens,
            self.clock.now(),
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            burst_s=settings.burst_s,
        )
        position, self._calls = self._calls, self._calls + 1
        mode = "flex" if flex else "realtime"
        reply = self._responder.reply(body, ReplyPlace(mode, endpoint, position, None, {}, tokens))
        if reply.status != 200:
            error = reply.body.get("error", {})
            raise ApiError(
                reply.status or 500, error.get("message", ""), code=error.get("code"), headers=headers
            )
        return reply.body, headers


_ALL = 1 << 60


def _list(data: list[JSON], has_more: bool) -> JSON:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def _check_limit(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise ApiError(
            400,
            f"Invalid 'limit': integer out of range. Expected a value between 1 and {most}, but got "
            f"{limit} instead.",
            code="integer_out_of_range",
            param="limit",
        )
