"""How much of an answer is read into memory: a server, or whoever answers in its place, may send without an end, and
one megabyte of gzip is a thousand of JSON. Downloads are streamed into files, and not meant here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

MOST_BYTES = 512 * 2**20
"""Of one answer, unpacked: 2,048 vectors have 130 MB, ten pictures as much."""
MOST_WATCHED_BYTES = 64 * 2**20
"""The same in a triggerer or an API server, which others share: a page of 100 batches has less than 1 MB."""
_BOUNDED = frozenset({"gzip", "deflate"})
"""Of these 64 KB become 64 MB at the most; of others, or of one within another, any number."""
_UNPACKED = _BOUNDED | {"br", "zstd"}
"""What the client's HTTP library unpacks; what else is named there it leaves as it is."""


class TooLongAnswerError(Exception):
    """Why the error of the client's HTTP library was raised, which the package ``openai`` takes for a broken
    connection."""


def bound_answers(sdk: Any, most_bytes: int) -> None:
    """Make a client of the `openai` package read no more; for a synchronous and an asynchronous one."""
    http = sdk._client
    is_async = type(sdk).__name__.startswith("Async")
    unreadable = _find_error(http)

    def ask(request: Any) -> None:
        request.headers["accept-encoding"] = "gzip, deflate"

    def bound(response: Any) -> None:
        packed = [each.strip().lower() for each in response.headers.get("content-encoding", "").split(",")]
        packed = [each for each in packed if each in _UNPACKED]
        if len(packed) > 1 or not _BOUNDED.issuperset(packed):
            why = f"its answer is packed as {', '.join(packed):.40}, which was not asked for"
            raise unreadable(why) from TooLongAnswerError(why)
        body = _Body(most_bytes, unreadable)
        if is_async:
            response.aread = lambda: _read_async(response, body)
        else:
            response.read = lambda: _read(response, body)

    async def ask_async(request: Any) -> None:
        ask(request)

    async def bound_async(response: Any) -> None:
        bound(response)

    hooks = http.event_hooks
    hooks["request"] = [*hooks["request"], ask_async if is_async else ask]
    hooks["response"] = [*hooks["response"], bound_async if is_async else bound]
    http.event_hooks = hooks


def _find_error(http: Any) -> Callable[[str], Exception]:
    """That of the library the client is made with: httpx once, httpx2 now."""
    names = (each.__module__.partition(".")[0] for each in type(http).__mro__)
    library = sys.modules[next(name for name in names if name in ("httpx", "httpx2"))]
    error: Callable[[str], Exception] = library.DecodingError
    return error


class _Body:
    def __init__(self, most_bytes: int, unreadable: Callable[[str], Exception]) -> None:
        self._most_bytes = most_bytes
        self._unreadable = unreadable
        self._size = 0
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._most_bytes:
            self._parts.clear()
            why = f"its answer has more than {self._most_bytes:,} bytes, the limit"
            raise self._unreadable(why) from TooLongAnswerError(why)
        self._parts.append(part)

    def join(self) -> bytes:
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole


def _read(response: Any, body: _Body) -> bytes:
    """As the library does it."""
    if not hasattr(response, "_content"):
        for part in response.iter_bytes():
            body.add(part)
        response._content = body.join()
    content: bytes = response._content
    return content


async def _read_async(response: Any, body: _Body) -> bytes:
    if not hasattr(response, "_content"):
        async for part in response.aiter_bytes():
            body.add(part)
        response._content = body.join()
    content: bytes = response._content
    return content
