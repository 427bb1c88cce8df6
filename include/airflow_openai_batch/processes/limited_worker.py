"""A process that works under limits: ``python -m airflow_openai_batch.processes.limited_worker``.

What strangers can make long or large is done here: templates that a form brings, schemas that a request brings. Frames
as in `frames`. In: the function that makes the work, what it has to know, the limits, then lists of items. Out: a
frame when it is ready, then lists of replies, one for each item, in order. It knows no credentials and ends when its
standard input does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from airflow_openai_batch.processes.frames import FAILURE, describe_failure, read_frame, write_frame

_GRACE_S = 1
"""After which the system ends a process that is too busy to notice."""

_REPLY_EVERY_S = 0.05

READY, REPLIES, REPLY, OVERRUN = b"H", b"L", b"R", b"O"
TIME, MEMORY = b"time", b"memory"

Work = Callable[[bytes], bytes]


class WorkLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one item."""

    cpu_s: int = 2
    """Of processor time."""
    memory_bytes: int = 512 * 2**20
    """More than the process has when it begins."""


class _OverTimeError(BaseException):
    """No `Exception`: nothing that handles those may go on with the item."""


def _open_work(opener: str, setup: bytes) -> Work:
    """:param opener: ``module:function`` of this package; each brings imports of its own."""
    module, _, name = opener.partition(":")
    work: Work = getattr(importlib.import_module(f"airflow_openai_batch.{module}"), name)(setup)
    return work


def main() -> None:
    """Work until the standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    requests = sys.stdin.buffer
    opener, setup = read_frame(requests), read_frame(requests)
    limits_frame = read_frame(requests)
    if opener is None or setup is None or limits_frame is None:
        return
    limits = msgspec.msgpack.decode(limits_frame, type=WorkLimits)
    signal.signal(signal.SIGPROF, _stop)
    try:
        work = _open_work(opener.decode(), setup)
        _limit_memory(limits.memory_bytes)
        write_frame(replies, READY)
        while (frame := read_frame(requests)) is not None:
            _answer(msgspec.msgpack.decode(frame, type=list[bytes]), work, replies, limits.cpu_s)
    except BrokenPipeError:
        os._exit(0)
    except BaseException as error:
        write_frame(replies, FAILURE, describe_failure(error).encode())
        raise


def _answer(items: list[bytes], work: Work, replies: BinaryIO, cpu_s: int) -> None:
    """Replies go out together, unless there is something to wait for: each by itself would wake the task each time."""
    sent = time.monotonic()
    waiting: list[bytes] = []
    for number, item in enumerate(items, 1):
        waiting.append(b"".join(_run(work, item, cpu_s)))
        now = time.monotonic()
        if number == len(items) or now - sent > _REPLY_EVERY_S:
            write_frame(replies, REPLIES, msgspec.msgpack.encode(waiting))
            waiting.clear()
            sent = now


def _run(work: Work, item: bytes, cpu_s: int) -> tuple[bytes, bytes]:
    _limit_time(cpu_s)
    try:
        return REPLY, work(item)
    except _OverTimeError:
        return OVERRUN, TIME
    except MemoryError:
        return OVERRUN, MEMORY
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _stop(number: int, frame: Any) -> None:
    raise _OverTimeError


def _limit_time(cpu_s: int) -> None:
    """Two limits: the first is noticed between two steps of Python, the second needs no help."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + cpu_s + _GRACE_S)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _limit_memory(memory_bytes: int) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError, ValueError):  # where there is no /proc, the limit of time is left
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (limit, hard))


if __name__ == "__main__":
    main()
