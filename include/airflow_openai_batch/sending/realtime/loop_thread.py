"""Running asyncio from synchronous code that may be interrupted.

anyio's portal was tried in its place: it cancels not once, but at every await until the coroutine has ended, so that
nothing can be tidied up that has to be waited for, such as closing a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def run_apart(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, in a loop on a thread of its own.

    A signal's handler runs on the main thread and may raise there (time-outs of tasks, SIGINT). Here that strikes a
    plain wait, and the coroutine is cancelled and may tidy up; inside a loop it could strike a callback, and loops
    swallow what callbacks raise.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    given_up = threading.Event()
    result: Future[T] = Future()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        started.set_result((asyncio.get_running_loop(), task))
        if given_up.is_set():
            raise asyncio.CancelledError
        return await start()

    def run() -> None:
        try:
            result.set_result(asyncio.run(main()))
        except BaseException as error:
            result.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="openai-realtime", daemon=True)
    try:
        thread.start()  # waits as well, and may be struck
        return result.result()
    except BaseException:
        given_up.set()
        if started.done() and not result.done():
            loop, task = started.result()
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        if thread.is_alive():
            thread.join()
