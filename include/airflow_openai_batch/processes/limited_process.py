"""Work under limits of time and memory, in a process that is ended where it goes beyond them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import tempfile
import threading
from collections.abc import Generator, Sequence
from typing import IO, BinaryIO, NamedTuple, cast

import msgspec

from airflow_openai_batch.errors import WorkerDiedError
from airflow_openai_batch.processes.frames import FAILURE, LENGTH_BYTES, write_frame
from airflow_openai_batch.processes.limited_worker import OVERRUN, READY, TIME, WorkLimits
from airflow_openai_batch.processes.worker_process import describe_end, start_worker

__all__ = ["LimitedProcess", "Overrun", "WorkLimits"]

MAX_WAIT_S = 300.0
"""For one reply. The limit of processor time comes first, unless the machine gives the process none."""
_BLAMED = frozenset({signal.SIGXCPU, signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS})
"""What ends a process that wants too much: of time, of memory, of its stack."""


class Overrun(NamedTuple):
    """An item that went beyond a limit."""

    is_time: bool
    limits: WorkLimits

    def __str__(self) -> str:
        if self.is_time:
            return f"takes more than {self.limits.cpu_s} seconds, the limit"
        return f"takes more than {self.limits.memory_bytes // 2**20:,} MB of memory, the limit"


class LimitedProcess:
    """Starts with the first item; what one item breaks is mended for the next. Safe to use from several threads.

    :param opener: ``module:function`` below this package, which makes the work from the setup.
    :param setup: what the work has to know.
    :param limits: of one item.
    """

    def __init__(self, opener: str, setup: bytes = b"", limits: WorkLimits | None = None) -> None:
        self._opener = opener
        self._setup = setup
        self._limits = limits or WorkLimits()
        self._worker: _LimitedWorker | None = None
        self._lock = threading.RLock()
        self._one_by_one = 0

    def map(self, items: Sequence[bytes]) -> Generator[bytes | Overrun]:
        """A reply for each item, in order, each as soon as it is there.

        :raises WorkerDiedError: if the process cannot be started, or ends for a reason that lies in no item.
        """
        with self._lock:
            done = 0
            try:
                while done < len(items):
                    for reply in self._work_on(items[done:]):
                        done += 1
                        yield reply
            except BaseException:  # also of whoever wants no more
                self._end()
                raise

    def _work_on(self, items: Sequence[bytes]) -> Generator[bytes | Overrun]:
        """As far as the process lives. Where it ended while it had several items, each is tried by itself."""
        if self._worker is None:
            self._worker = _LimitedWorker(self._opener, self._setup, self._limits)
        worker = self._worker
        if self._one_by_one:
            items = items[:1]
            self._one_by_one -= 1
        done = 0
        try:
            worker.send(msgspec.msgpack.encode(items))
            while done < len(items):
                for reply in worker.receive():
                    done += 1
                    yield reply
        except (EOFError, OSError) as error:
            self._worker = None
            overrun = worker.blame(is_late=isinstance(error, TimeoutError))
            if len(items) > 1:
                self._one_by_one = len(items) - done
            else:
                yield overrun

    def close(self) -> None:
        """End the process; another item would start a new one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _LimitedWorker:
    """One process and its pipes. It ends by itself when this process does."""

    def __init__(self, opener: str, setup: bytes, limits: WorkLimits) -> None:
        self._limits = limits
        self.owner = os.getpid()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._process = start_worker("airflow_openai_batch.processes.limited_worker", self._errors)
        self._to = cast("BinaryIO", self._process.stdin)
        self._from = cast("BinaryIO", self._process.stdout).fileno()
        self._poll = select.poll()
        self._poll.register(self._from, select.POLLIN)
        self._read = b""
        try:
            write_frame(self._to, opener.encode())
            write_frame(self._to, setup)
            write_frame(self._to, msgspec.msgpack.encode(limits))
            is_ready = self._receive_frame() == READY
        except (EOFError, OSError):
            is_ready = False
        if not is_ready:
            raise WorkerDiedError(f"the process that works under limits {self._bury()}. Try again.")

    def send(self, data: bytes) -> None:
        write_frame(self._to, data)

    def receive(self) -> list[bytes | Overrun]:
        """The next replies, at least one.

        :raises EOFError: if the process has ended.
        :raises TimeoutError: if nothing comes.
        """
        frame = self._receive_frame()
        if frame[:1] == FAILURE:
            raise WorkerDiedError(f"the process that works under limits failed ({frame[1:].decode()}).")
        replies = msgspec.msgpack.decode(memoryview(frame)[1:], type=list[bytes])
        return [
            Overrun(each[1:] == TIME, self._limits) if each[:1] == OVERRUN else each[1:] for each in replies
        ]

    def _receive_frame(self) -> bytes:
        length = int.from_bytes(self._receive_bytes(LENGTH_BYTES), "little")
        return self._receive_bytes(length)

    def _receive_bytes(self, size: int) -> bytes:
        parts = [self._read]
        missing = size - len(self._read)
        while missing > 0:
            if not self._poll.poll(MAX_WAIT_S * 1000):
                raise TimeoutError
            part = os.read(self._from, max(missing, 1 << 16))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
        whole = b"".join(parts)
        self._read = whole[size:]
        return whole[:size]

    def blame(self, *, is_late: bool) -> Overrun:
        """Which limit the item broke at which the process ended.

        :raises WorkerDiedError: if it ended for another reason.
        """
        said = self._bury()
        code = self._process.returncode
        if -code not in _BLAMED:
            raise WorkerDiedError(f"the process that works under limits {said}. Try again.")
        return Overrun(is_late or code == -signal.SIGXCPU, self._limits)

    def _bury(self) -> str:
        with contextlib.suppress(OSError):
            self._to.close()
        try:
            self._process.wait(1.0)
        except Exception:  # it hangs
            self._process.kill()
        said = describe_end(self._process, self._errors)
        self._close()
        return said

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._to.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
