"""Sending requests one by one: in real time, at twice the price of a batch, or through flex, at its price.

For a handful of leftovers, which would wait another day for a batch. Flex takes minutes for an answer, and has not
always room: what it refuses is asked again, more slowly, and no try is used up. Answers go to disk as segments in the
format of OpenAI's output files, so that landing reads them like a batch's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.openai_api.flex import FLEX_TIMEOUT_S
from airflow_openai_batch.openai_api.realtime_client import wait_for_answers
from airflow_openai_batch.requests.tokens import count_request_tokens
from airflow_openai_batch.requests.tokens.parts import allow_output
from airflow_openai_batch.sending.realtime.call import Pending, RealtimeCaller, StoppedError
from airflow_openai_batch.sending.realtime.capacity import FlexCapacity
from airflow_openai_batch.sending.realtime.lines import Call, read_call
from airflow_openai_batch.sending.realtime.loop_thread import run_apart
from airflow_openai_batch.sending.realtime.segments import SegmentBuffer
from airflow_openai_batch.sending.realtime.slots import take_slot
from airflow_openai_batch.sending.realtime.time_left import TimeLeft
from airflow_openai_batch.sending.realtime.width import FLEX_MOST, Width

if TYPE_CHECKING:
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits
    from airflow_openai_batch.openai_api.realtime_client import AsyncOpenAI
    from airflow_openai_batch.sending.realtime.segments import Segments

log = logging.getLogger(__name__)

DRAIN_S = 60.0
"""After an error, so long is waited for what is in the air already, since it is paid for."""
WITHOUT_END = TimeLeft()
LOOK_S = 0.25
"""How often it is looked whether answers are due to be written."""
REPORT_S = 30.0
ALIVE_S = 240.0

_OUTPUT_KEYS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeSend:
    """What a send came to; counts only."""

    answered: int
    """Requests with an answer of status 2xx; whether it is a good one, landing says."""
    failed: int
    """Requests with a line that says why there is no answer."""
    kept: int
    """Lines from an earlier try of the same send, whose requests were not asked again."""
    segments: int
    """Written now."""
    seconds: float
    finished: bool = True
    """Whether every request has its line; if not, its time was over, and another call goes on."""


def send_realtime(
    requests: Iterable[RequestLine],
    *,
    open_client: Callable[[], AsyncOpenAI],
    endpoint: str,
    segments: Segments,
    limits: RealtimeLimits,
    flex: bool = False,
    falls_back: bool = False,
    time_left: TimeLeft = WITHOUT_END,
    on_alive: Callable[[], None] | None = None,
) -> RealtimeSend:
    """Ask for what has no line in the segments yet, and write a line for each: an answer, a refusal, a time-out.

    Returns when all requests have one, or when its time is over. Memory holds what is in the air, an unwritten
    segment, and the ids that were answered before. Whatever is raised, what was answered is written first; a kill
    loses at most what came in the last two seconds, and what is in the air.

    :param requests: pulled as places become free, from other threads, one at a time.
    :param open_client: makes the client; it is closed at the end.
    :param endpoint: the ``url`` of the request lines, ``/v1/chat/completions``.
    :param flex: through flex, but for requests that name another tier.
    :param falls_back: what flex does not answer in time is going to be sent in real time.
    :param time_left: after which nothing new is sent; what is in the air is waited for.
    :param on_alive: called every `ALIVE_S` as long as the send lives, also while it only waits; from another thread.
        What it raises ends the send.
    :raises RealtimeBusyError: if two sends of this account run on this machine already; nothing was sent.
    :raises FatalAccountError: at the first answer that is about the account; the request it came for has no line.
    :raises TransientError: if OpenAI cannot be reached, or asks to wait for long (``retry_after_s``); the requests
        it came for have no line.
    :raises NoCapacityError: if flex has had no room for minutes, and NoFlexError, if there is none for this model;
        the requests that are left have no line.
    :raises JobError: if the segments that are there cannot be read; nothing was sent.
    """
    client = open_client().with_options(max_retries=0)  # the patience is here, where all workers share it
    if flex:
        client = wait_for_answers(client, FLEX_TIMEOUT_S)
    with take_slot(str(client.base_url), client.api_key, flex=flex):
        answered = set(segments.read_answered())
        with contextlib.closing(_read_calls(requests, endpoint, answered, flex)) as calls:
            sender = _Sender(
                client,
                endpoint,
                calls,
                SegmentBuffer(segments),
                limits,
                _foresee_capacity(limits, falls_back) if flex else None,
            )
            return sender.send(kept=len(answered), time_left=time_left, on_alive=on_alive)


def _foresee_capacity(limits: RealtimeLimits, falls_back: bool) -> FlexCapacity:
    most = limits.concurrency if limits.concurrency_chosen else max(limits.concurrency, FLEX_MOST)
    return FlexCapacity(Width(limits.concurrency, most), falls_back=falls_back)


def _read_calls(
    requests: Iterable[RequestLine], endpoint: str, answered: set[str], flex: bool
) -> Generator[Call]:
    for request in requests:
        call = read_call(request, endpoint, flex=flex)
        if call.custom_id not in answered:
            yield call


class _Sender:
    """One send: so many workers, and a buffer for their answers."""

    def __init__(
        self,
        client: AsyncOpenAI,
        endpoint: str,
        calls: Iterator[Call],
        buffer: SegmentBuffer,
        limits: RealtimeLimits,
        capacity: FlexCapacity | None,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._calls = calls
        self._buffer = buffer
        self._workers = limits.concurrency if capacity is None else capacity.width.most
        self._capacity = capacity
        self._lane = "Real time" if capacity is None else "Flex"
        self._caller = RealtimeCaller(client, endpoint, limits, capacity)
        self._pulling = asyncio.Lock()
        self._flushing = asyncio.Lock()

    def send(self, *, kept: int, time_left: TimeLeft, on_alive: Callable[[], None] | None) -> RealtimeSend:
        began = time.monotonic()

        def is_over() -> bool:
            done = kept + self._caller.answered + self._caller.failed
            return time_left.is_over(time.monotonic() - began, done, self._caller.slowest_s)

        try:
            finished = run_apart(lambda: self._run(is_over, on_alive))
        except BaseException:
            self._save_rest()
            raise
        self._buffer.flush()
        done = RealtimeSend(
            answered=self._caller.answered,
            failed=self._caller.failed,
            kept=kept,
            segments=self._buffer.written,
            seconds=time.monotonic() - began,
            finished=finished,
        )
        before = f", {kept:,} before" if kept else ""
        rest = "" if finished else "; the rest follows"
        log.info("%s: %s in %.1f s%s%s.", self._lane, self._describe(), done.seconds, before, rest)
        return done

    def _save_rest(self) -> None:
        """Write what came before an error, which a second one must not hide."""
        try:
            self._buffer.flush()
        except Exception:
            log.exception("The last answers could not be written; their requests will be asked again.")

    async def _run(self, is_over: Callable[[], bool], on_alive: Callable[[], None] | None) -> bool:
        """Returns whether all was asked."""
        if is_over():
            return False
        workers = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        writer = asyncio.create_task(self._write_regularly(is_over, on_alive))
        async with self._client:
            work: asyncio.Future[Any] = asyncio.gather(
                *workers
            )  # the first error ends the wait, not the work
            try:
                await asyncio.wait((work, writer), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await work
                    return True
                await writer
                await self._drain(workers, timeout_s=None)
                return False
            except Exception:
                # Through flex an answer takes minutes, and no longer than the client waits.
                await self._drain(workers, timeout_s=DRAIN_S if self._capacity is None else None)
                raise
            finally:
                for task in (*workers, writer):
                    task.cancel()
                await asyncio.gather(work, writer, *workers, return_exceptions=True)

    async def _drain(self, workers: list[asyncio.Task[None]], *, timeout_s: float | None) -> None:
        """Send nothing more, and take in what is in the air; its errors count as any other's."""
        self._caller.stopping = True
        in_air = set(self._caller.in_air)
        for task in set(workers) - in_air:
            task.cancel()
        if in_air:
            log.info("Stopping; waiting for %d answers that are on their way.", len(in_air))
            done, _ = await asyncio.wait(in_air, timeout=timeout_s)
            for task in done:
                if not task.cancelled():
                    task.result()

    async def _work(self) -> None:
        while not self._caller.stopping:
            async with contextlib.nullcontext() if self._capacity is None else self._capacity.width.place():
                if not await self._ask_next():
                    return
            await self._flush()

    async def _ask_next(self) -> bool:
        """Whether there was one to ask, and an answer."""
        async with self._pulling:
            call = await asyncio.to_thread(self._pull)
        if call is None:
            return False
        try:
            self._buffer.add(await self._caller.ask(call))
        except StoppedError:
            return False
        return True

    def _pull(self) -> Pending | None:
        call = next(self._calls, None)
        if call is None:
            return None
        tokens = self._count_tokens(call.body) if self._caller.throttle.counts_tokens else 0
        return Pending(call.custom_id, call.body, tokens, call.flex)

    def _count_tokens(self, body: bytes) -> int:
        request: dict[str, Any] = msgspec.json.decode(body)
        return count_request_tokens(request, self._endpoint).tokens + _allow_output(request)

    async def _write_regularly(
        self, is_over: Callable[[], bool], on_alive: Callable[[], None] | None
    ) -> None:
        """Until the time of the send is over."""
        reported_at = alive_at = time.monotonic()
        while not is_over():
            await asyncio.sleep(LOOK_S)
            await self._flush()
            now = time.monotonic()
            if now - reported_at >= REPORT_S:
                reported_at = now
                log.info("%s: %s so far.", self._lane, self._describe())
            if on_alive is not None and now - alive_at >= ALIVE_S:
                alive_at = now
                await asyncio.to_thread(on_alive)

    async def _flush(self) -> None:
        """Write if it is due; who comes while it is being written waits, so that no more is held than is in the air."""
        if self._buffer.is_due:
            async with self._flushing:
                if self._buffer.is_due:
                    await asyncio.to_thread(self._buffer.flush)

    def _describe(self) -> str:
        return f"{self._caller.answered:,} answered, {self._caller.failed:,} failed"


def _allow_output(body: dict[str, Any]) -> int:
    """What the request allows, which OpenAI counts into its rate; 0 where it does not say."""
    limit = next((body[key] for key in _OUTPUT_KEYS if body.get(key) is not None), None)
    return allow_output(limit, body.get("n")) or 0
