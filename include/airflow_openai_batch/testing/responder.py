"""One request, one reply: checks, the script's line faults, the answer, and the entry in the books."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.testing.checks import check_request
from airflow_openai_batch.testing.landing import Reply, Respond
from airflow_openai_batch.testing.refusals import STATUS_CODES, ApiError, message_for
from airflow_openai_batch.testing.replies.answers import SPOILS, Answers
from airflow_openai_batch.testing.replies.shapes import usage_of
from airflow_openai_batch.testing.requests import BATCH_ENDPOINTS, canonical, digest_of

if TYPE_CHECKING:
    from airflow_openai_batch.testing.batches import Batch
    from airflow_openai_batch.testing.books import Books
    from airflow_openai_batch.testing.clock import Ticker
    from airflow_openai_batch.testing.faults import LineFault
    from airflow_openai_batch.testing.script import Script
    from airflow_openai_batch.testing.settings import Settings

log = logging.getLogger(__name__)

_HARMLESS = ("duplicate", "string_body")
"""Faults that leave the answer itself as good as any."""


class ReplyPlace(NamedTuple):
    """Where a request stands: in a batch or among the real-time calls."""

    mode: str
    """``batch``, ``realtime``, ``flex``: as the books count it."""
    endpoint: str
    position: int
    custom_id: str | None
    metadata: dict[str, str]
    input_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Responder:
    """Replies to requests of batches and of real-time calls alike."""

    answers: Answers
    script: Script
    books: Books
    clock: Ticker
    settings: Callable[[], Settings]

    def respond_for(self, batch: Batch) -> Respond:
        """What answers the lines of a batch."""
        endpoint, metadata = batch.endpoint, batch.metadata or {}

        def respond(body: Any, position: int, custom_id: str, input_tokens: int) -> Reply:
            return self.reply(
                body, ReplyPlace("batch", endpoint, position, custom_id, metadata, input_tokens)
            )

        return respond

    def reply(self, body: Any, where: ReplyPlace) -> Reply:
        """A reply for every request, whatever it holds."""
        raw = canonical(body)
        digest = digest_of(raw)
        fault = None
        if self.script.has_line_faults:
            fault = self.script.strike_line(
                raw,
                digest,
                scope="realtime" if where.mode == "flex" else where.mode,
                position=where.position,
                custom_id=where.custom_id,
                metadata=where.metadata,
                flex=where.mode == "flex",
            )
        reply = self._attempt(body, digest, fault, where)
        if reply.status == 200:
            model = body.get("model") or "omni-moderation-latest"
            good = fault is None or fault.line in _HARMLESS
            self.books.record_answer(
                where.mode, model, digest, reply.tokens, good=good, custom_id=where.custom_id
            )
        else:
            self.books.refused[where.mode] += 1
        return reply

    def _attempt(self, body: Any, digest: bytes, fault: LineFault | None, where: ReplyPlace) -> Reply:
        if fault is not None and fault.line == 0:
            return Reply(0, {}, fault=fault)
        try:
            if fault is not None:
                _refuse(fault)
            made = self._answer(body, digest, fault, where)
        except ApiError as error:
            return Reply(error.status, error.body(), fault=fault)
        except Exception:
            # A shape of request nobody thought of, or the user's answer function: one line, not the batch.
            log.exception("The emulator could not answer a request for %s", where.endpoint)
            refusal = ApiError(500, "The emulator could not answer this request; its log says why.")
            return Reply(500, refusal.body(), fault=fault)
        return Reply(200, made, usage_of(made), fault)

    def _answer(self, body: Any, digest: bytes, fault: LineFault | None, where: ReplyPlace) -> dict[str, Any]:
        check_request(body, where.endpoint, self.settings().models)
        if where.endpoint not in BATCH_ENDPOINTS:
            raise ApiError(400, f"The emulator does not answer {where.endpoint}.")
        spoil = str(fault.line) if fault is not None and fault.line in SPOILS else None
        now = self.clock.now()
        return self.answers.make(body, where.endpoint, digest, now, where.input_tokens, spoil)


def _refuse(fault: LineFault) -> None:
    """:raises ApiError: where the fault is one of status."""
    what = fault.line
    if isinstance(what, int):
        code = fault.code or STATUS_CODES.get(what)
        raise ApiError(what, fault.message or message_for(what, code), code=code)
    if what == "no_capacity":
        raise ApiError(429, message_for(429, "resource_unavailable"), code="resource_unavailable")
    if what in ("request_timeout", "batch_expired", "batch_cancelled"):
        raise ApiError(408, message_for(408, what), code=what)
