"""A coroutine that is run from synchronous code ends in order, whatever strikes the code that waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
from collections.abc import Iterator

import pytest

from airflow_openai_batch.sending.realtime.loop_thread import run_apart

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


class StruckError(Exception):
    """What a time-out of a task raises."""


@pytest.fixture
def raises_when_struck() -> Iterator[None]:
    """As Airflow does it when a task has run for too long."""

    def raise_it(*_: object) -> None:
        raise StruckError

    before = signal.signal(signal.SIGALRM, raise_it)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("raises_when_struck")
def test_what_is_interrupted_may_wait_while_it_tidies_up() -> None:
    """A client is closed, an answer is written."""
    done = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGALRM)
            await asyncio.sleep(60)
        finally:
            for step in ("closed", "written"):
                await asyncio.sleep(0.01)
                done.append(step)

    with pytest.raises(StruckError):
        run_apart(work)
    assert done == ["closed", "written"]


def test_its_end_and_its_error_are_handed_on() -> None:
    async def work(end: str) -> str:
        await asyncio.sleep(0)
        if end == "error":
            raise StruckError
        return f"{end} for {WHO.get()}"

    token = WHO.set("me")
    try:
        assert run_apart(lambda: work("answer")) == "answer for me"
    finally:
        WHO.reset(token)
    with pytest.raises(StruckError):
        run_apart(lambda: work("error"))
