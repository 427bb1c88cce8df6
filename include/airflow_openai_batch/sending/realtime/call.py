"""One real-time request: its tries, and what is written where none was answered.

Told apart: answers that are about the account, which end the send; refusals for the rate, which stop all of its
workers; those for want of flex capacity, which do so, too, but use up no try; and what concerns this request alone,
which ends as its line.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import tenacity

from airflow_openai_batch.errors import FatalAccountError, NoFlexError, TransientError
from airflow_openai_batch.openai_api.client_errors import translate_error
from airflow_openai_batch.openai_api.flex import read_flex_refusal
from airflow_openai_batch.openai_api.rate_limits import read_retry_after
from airflow_openai_batch.openai_api.realtime_client import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    OpenAIError,
    post,
)
from airflow_openai_batch.openai_api.redirects import read_redirect
from airflow_openai_batch.openai_api.server_objects import PAGE, is_page
from airflow_openai_batch.sending.realtime.lines import (
    CONNECTION_LOST,
    REQUEST_TIMEOUT,
    write_answer,
    write_error,
)
from airflow_openai_batch.sending.realtime.pacing import Throttle, draw_back_off_s
from airflow_openai_batch.server_words import hide_secrets_bytes

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits
    from airflow_openai_batch.sending.realtime.capacity import FlexCapacity

STALL_MAX_S = 300.0
"""Whoever is told to wait longer than this should wait without a worker: the send ends, and another one goes on."""

ADMITTED_S = 20.0
"""Flex refuses at once what it has no room for."""

_DOING = "sending in real time"
_DOING_FLEX = "sending through flex"
_OF_THE_WAY = frozenset({403, 404, 407})
"""With these, what may pass is what a proxy says: it is about no request, and would stand in all rows."""
_UNREACHED = frozenset({"ConnectTimeout", "PoolTimeout"})
"""Time-outs before a request was sent, by the names of the HTTP library."""


class Pending(NamedTuple):
    """A request on its way."""

    custom_id: str
    body: bytes
    tokens: int
    """Input and allowed output, where a limit of tokens is known; otherwise 0."""
    flex: bool = False
    """It asks for flex."""


class StoppedError(Exception):
    """The send ends: this request was not asked, or got no answer that counts."""


class _TryAgainError(Exception):
    """A try that failed for a reason that may pass."""

    def __init__(self, error: APIError, *, waits_at_gate: bool) -> None:
        super().__init__(type(error).__name__)
        self.error = error
        self.waits_at_gate = waits_at_gate


class RealtimeCaller:
    """Asks for all workers of a send, which share the throttle."""

    def __init__(
        self,
        client: AsyncOpenAI,
        endpoint: str,
        limits: RealtimeLimits,
        capacity: FlexCapacity | None = None,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._tries = limits.max_retries + 1
        self._served = 0
        self.throttle = Throttle(limits)
        self._capacity = capacity
        self.in_air: set[asyncio.Task[Any]] = set()
        """The tasks whose request is out."""
        self.stopping = False
        """Nothing new is sent; set from outside, too."""
        self.slowest_s = 0.0
        """What the slowest call has taken."""
        self.answered = 0
        """With a status of 2xx."""
        self.failed = 0

    async def ask(self, call: Pending) -> bytes:
        """The line for one request, after as many tries as it needs and may have.

        :raises FatalAccountError: at once, if the answer is about the account.
        :raises TransientError: if OpenAI cannot be reached, or asks to wait longer than `STALL_MAX_S`.
        :raises NoCapacityError: if flex has had no room for minutes.
        :raises NoFlexError: if there is no flex for this model.
        :raises StoppedError: if the send ended meanwhile.
        """
        try:
            return await self._ask(call)
        except StoppedError:
            raise
        except Exception:
            self.stopping = True  # before whoever takes the place of this call asks in vain, too
            raise

    async def _ask(self, call: Pending) -> bytes:
        served_before = self._served

        def remember(_: tenacity.RetryCallState) -> None:
            nonlocal served_before
            served_before = self._served

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_try_again),
            wait=_wait_s,
            before_sleep=remember,
            stop=tenacity.stop_after_attempt(self._tries),
            reraise=True,
        )
        try:
            line: bytes = await retrying(self._try, call)
        except _TryAgainError as last:
            if self.stopping:
                raise StoppedError from None
            line = self._give_up(call, last.error, alone=self._served > served_before)
            self.failed += 1
        return line

    def _may_try_again(self, error: BaseException) -> bool:
        return isinstance(error, _TryAgainError) and not self.stopping

    async def _try(self, call: Pending) -> bytes:
        """Until there was room for it."""
        while (line := await self._try_once(call)) is None:
            if self.stopping:
                raise StoppedError
        return line

    async def _try_once(self, call: Pending) -> bytes | None:
        """None where flex had no room: that is no try."""
        self._check_stall()
        ticket = await self.throttle.enter(call.tokens)
        served = False
        try:
            if self.stopping:
                raise StoppedError
            with self._admit_in_time(call, ticket):
                response = await self._post(call)
            _check_no_page(response)
            served = True
        except APIStatusError as error:
            if call.flex and self._meets_no_room(error, ticket):
                return None
            response = error.response
            served = self._judge(error, ticket)
        except APIConnectionError as error:
            if call.flex and self._capacity is not None and isinstance(error, APITimeoutError):
                self._capacity.time_out()
            raise _TryAgainError(error, waits_at_gate=False) from None
        except OpenAIError as error:  # nothing was asked: there is no token, for instance
            raise translate_error(error, _DOING) from None
        finally:
            self.throttle.leave(ticket, served=served)
        self._served += 1
        if call.flex and self._capacity is not None:
            self._capacity.answer()
        self.throttle.learn(response.headers, call.tokens)
        if 200 <= response.status_code < 300:
            self.answered += 1
        else:
            self.failed += 1
        return _write(call, response)

    @contextlib.contextmanager
    def _admit_in_time(self, call: Pending, ticket: int) -> Iterator[None]:
        """A call that is not refused soon has room, however long its answer takes: the others may follow."""
        if not call.flex:
            yield
            return
        admit = functools.partial(self.throttle.gate.leave, ticket, served=True)
        timer = asyncio.get_running_loop().call_later(ADMITTED_S, admit)
        try:
            yield
        finally:
            timer.cancel()

    def _meets_no_room(self, error: APIStatusError, ticket: int) -> bool:
        """Whether a refusal is for want of capacity: the call is made again, after the others have waited, too.

        :raises NoCapacityError: if it has been so for minutes.
        :raises NoFlexError: if there is no flex for this model.
        """
        refusal = read_flex_refusal(error)
        if refusal == "no_flex":
            said = translate_error(error, _DOING_FLEX)
            raise NoFlexError(str(said), status_code=said.status_code, code=said.code) from None
        if refusal is None or self._capacity is None:
            return False
        if self.throttle.gate.is_current(ticket):
            self._capacity.width.shrink()
        retry_after_s = read_retry_after(error.response.headers)
        self.throttle.gate.refuse(ticket, retry_after_s, "Flex has no capacity")
        self._capacity.refuse(self.throttle.gate.closed_s)
        return True

    async def _post(self, call: Pending) -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        self.in_air.add(task)
        began = time.monotonic()
        try:
            return await post(self._client, self._endpoint, call.body)
        finally:
            self.in_air.discard(task)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _judge(self, error: APIStatusError, ticket: int) -> bool:
        """Whether a refusal is the answer to this request, to be written down as it is.

        :raises FatalAccountError: if it is about the account.
        :raises TransientError: if it asks to wait for long.
        :raises RequestRefusedError: if it leads elsewhere.
        """
        meaning = translate_error(error, _DOING)
        if isinstance(meaning, FatalAccountError):
            raise meaning from None
        if read_redirect(error.response) is not None:
            raise meaning from None
        if isinstance(meaning, TransientError) and error.status_code in _OF_THE_WAY:
            raise meaning from None
        if not isinstance(meaning, TransientError):
            return True
        headers = error.response.headers
        waits_at_gate = error.status_code == 429 or read_retry_after(headers) is not None
        if waits_at_gate:
            self.throttle.refuse(ticket, headers)
            self._check_stall()
        raise _TryAgainError(error, waits_at_gate=waits_at_gate) from None

    def _check_stall(self) -> None:
        """:raises TransientError: if the gate stays closed for so long that a worker should not wait for it."""
        wait_s = self.throttle.gate.closed_s
        if wait_s > STALL_MAX_S:
            raise TransientError(
                f"{_DOING}: the rate limit is reached, and the server asks to wait {wait_s:,.0f} s. What was answered "
                "is kept; the rest is asked later.",
                status_code=429,
                retry_after_s=wait_s,
            ) from None

    def _give_up(self, call: Pending, error: APIError, *, alone: bool) -> bytes:
        """The line of a request that used up its tries.

        :param alone: whether others were answered since its last try but one.
        :raises TransientError: if OpenAI cannot be reached, for which no request is to blame.
        """
        if isinstance(error, APIStatusError):
            return _write(call, error.response)
        cause = type(error.__cause__).__name__
        tries = f"{self._tries} tries {'through flex' if call.flex else 'in real time'}"
        if isinstance(error, APITimeoutError) and cause not in _UNREACHED:
            return write_error(
                call.custom_id, REQUEST_TIMEOUT, f"No answer in time, in {tries}.", flex=call.flex
            )
        if alone and cause not in _UNREACHED:
            return write_error(
                call.custom_id, CONNECTION_LOST, f"The connection broke in {tries}.", flex=call.flex
            )
        raise translate_error(error, _DOING) from None


def _wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, _TryAgainError) and error.waits_at_gate:
        return 0.0
    return draw_back_off_s(state.attempt_number)


def _write(call: Pending, response: Any) -> bytes:
    request_id = response.headers.get("x-request-id")
    return write_answer(
        call.custom_id,
        response.status_code,
        request_id,
        hide_secrets_bytes(response.content),
        flex=call.flex,
    )


def _check_no_page(response: Any) -> None:
    """:raises TransientError: for a web page with status 2xx, which is no answer to any request."""
    if is_page(response.content, response.headers.get("content-type") or ""):
        raise TransientError(f"{_DOING}: {PAGE}", status_code=response.status_code)
