"""The HTTP faults of the script, outside of everything else: the only place that touches the connection."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_openai_batch.testing.refusals import STATUS_CODES, ApiError, message_for

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_openai_batch.testing.faults import HttpFault

_IDS = re.compile(r"^(/v1/(?:files|batches|models|videos))/[^/]+")
_PIECE_BYTES = 16_384
_READ_AHEAD_BYTES = 1_000_000


def route_of(method: str, path: str) -> str:
    """The call without its ids, as the books count it: ``GET /v1/batches/*``."""
    return method + " " + _IDS.sub(r"\1/*", path)


class Interference:
    """Wraps the application: latency, scripted refusals, cut connections, slow answers.

    :param strike: gives the fault of a call, if there is one.
    :param record: enters a call into the books, with its status or how it was cut.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        strike: Callable[[str, str], HttpFault | None],
        record: Callable[[str, int | str], None],
        latency_s: Callable[[str], float],
    ) -> None:
        self._app = app
        self._strike = strike
        self._record = record
        self._latency_s = latency_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        route = route_of(method, path)
        fault = self._strike(method, path)
        wait_s = self._latency_s(path) + (fault.delay_s if fault is not None else 0)
        if wait_s:
            receive = await _read_ahead(scope, receive)
            await asyncio.sleep(wait_s)
        if fault is not None and fault.forget_after:
            scope = {**scope, "query_string": _without_after(scope["query_string"])}
        if fault is not None and fault.drop == "before":
            self._record(route, "dropped before")
            await _cut(receive, send, "abort")
        elif fault is not None and fault.page is not None:
            self._record(route, "another page")
            await _show_page(fault.page, receive, send)
        elif fault is not None and fault.status is not None:
            self._record(route, fault.status)
            await _refuse(fault, receive, send)
        else:
            await self._pass_on(scope, receive, send, route, fault)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, route: str, fault: HttpFault | None
    ) -> None:
        if fault is not None and fault.keep_lines is not None:
            send = _keep_lines_of(send, fault.keep_lines)
        if fault is not None and fault.drop == "after":
            await self._app(scope, receive, _discard)
            self._record(route, "dropped after")
            await _cut(receive, send, "abort")
        else:
            answer = _Answer(receive, send, fault, lambda outcome: self._record(route, outcome))
            await self._app(scope, receive, answer.send)
            answer.record()


class _Answer:
    """An answer on its way. It is in the books before its end is sent: whoever has it finds its call counted."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        fault: HttpFault | None,
        record: Callable[[int | str], None],
    ) -> None:
        self._receive = receive
        self._send = send
        self._bytes_per_s = None if fault is None else fault.bytes_per_s
        self._most_bytes = math.inf
        if fault is not None and fault.truncate_bytes is not None:
            self._most_bytes = fault.truncate_bytes
        self._record = record
        self._recorded = False
        self._status = 500
        self._sent = 0

    def record(self, outcome: str | None = None) -> None:
        """Enter the call into the books, once: its status, or how it was cut."""
        if not self._recorded:
            self._recorded = True
            self._record(outcome or self._status)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body = message.get("body", b"")
        room = self._most_bytes - self._sent
        self._sent += len(body)
        if len(body) > room:
            await self._cut(message, int(room))
            return
        if not message.get("more_body", False):
            self.record()
        await _send_slowly(message, self._send, self._bytes_per_s)

    async def _cut(self, message: Message, room: int) -> None:
        if room < 0:
            return  # cut before
        self.record("truncated")
        await self._send({**message, "body": message["body"][:room], "more_body": True})
        await _cut(self._receive, self._send, "close")


async def _discard(_: Message) -> None:
    """The app has done its work; nobody hears of it."""


def keep_lines(body: bytes, lines: int) -> bytes:
    """The first lines of a body, each with its end."""
    return b"".join(body.splitlines(keepends=True)[:lines])


def _keep_lines_of(send: Send, lines: int) -> Send:
    """Passes on only the first lines of an answer, when all of it is there."""
    start: Message | None = None
    body = bytearray()

    async def keep(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        body.extend(message.get("body", b""))
        if not message.get("more_body") and start is not None:
            kept = keep_lines(bytes(body), lines)
            await send(_with_length(start, len(kept)))
            await send({"type": "http.response.body", "body": kept})

    return keep


def _with_length(start: Message, length: int) -> Message:
    """The start of an answer whose body was changed on the way."""
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    return {**start, "headers": [*headers, (b"content-length", str(length).encode())]}


def _without_after(query: bytes) -> bytes:
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"after="))


async def _show_page(page: str, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    body = page.encode()
    headers = [(b"content-type", b"text/html"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_ahead(scope: Scope, receive: Receive) -> Receive:
    """Take in a small body first: a client that gives up while it waits has asked all the same."""
    length = int(dict(scope["headers"]).get(b"content-length", b"0") or 0)
    if length > _READ_AHEAD_BYTES:
        return receive
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    messages.reverse()

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _send_slowly(message: Message, send: Send, bytes_per_s: int | None) -> None:
    body = message.get("body", b"")
    if bytes_per_s is None or not body:
        await send(message)
        return
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        await asyncio.sleep(len(piece) / bytes_per_s)
        last = start + _PIECE_BYTES >= len(body)
        await send({**message, "body": piece, "more_body": message.get("more_body", False) or not last})


async def _refuse(fault: HttpFault, receive: Receive, send: Send) -> None:
    assert fault.status is not None  # noqa: S101 - the caller looked
    code = fault.code or STATUS_CODES.get(fault.status)
    error = ApiError(fault.status, fault.message or message_for(fault.status, code), code=code)
    body = msgspec.json.encode(error.body())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"x-request-id", b"req_scripted"))
    if fault.retry_after_s is not None:
        headers.append((b"retry-after", f"{fault.retry_after_s:g}".encode()))
    while (await receive()).get("more_body"):
        pass  # OpenAI reads a request before it refuses it, and so a client is never cut off while sending
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _cut(receive: Receive, send: Send, how: Literal["abort", "close"]) -> None:
    """Cut the connection: ``abort`` at once, ``close`` after what was written.

    ASGI has no word for it; uvicorn's ``send`` is a method of the object that holds the transport.
    """
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("Cutting a connection needs uvicorn as the server.")
    getattr(transport, how)()
    while (await receive())["type"] != "http.disconnect":
        pass
