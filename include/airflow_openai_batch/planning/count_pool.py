"""Worker processes that count, fed by this one, which alone reads the input."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

import msgspec

from airflow_openai_batch.errors import WorkerDiedError
from airflow_openai_batch.planning.chunk_counter import tally_overlong
from airflow_openai_batch.planning.count_worker import CHUNK_PLACE, decode_reply
from airflow_openai_batch.processes.frames import read_frame, write_frame
from airflow_openai_batch.processes.worker_process import describe_end, start_worker

if TYPE_CHECKING:
    from airflow_openai_batch.planning.chunk_counter import CountRules
    from airflow_openai_batch.planning.chunk_tally import ChunkTally
    from airflow_openai_batch.planning.chunks import SourceChunk

_IN_FLIGHT_PER_WORKER = 2
"""One that is counted and one on its way."""


class CountPool:
    """A fixed number of workers. Use as a context manager: they are gone when the block ends, however it ends.

    :param uris: of the sources, for messages.
    :raises WorkerDiedError: from iterating, if a worker ends; nothing hangs and nothing is left out.
    """

    def __init__(self, rules: CountRules, workers: int, uris: Sequence[str]) -> None:
        self._rules = rules
        self._size = workers
        self._uris = uris
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._workers: list[_CountWorker] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> CountPool:
        try:
            for number in range(self._size):
                worker = _CountWorker(self._rules)
                self._workers.append(worker)
                thread = threading.Thread(
                    target=self._serve, args=(worker,), daemon=True, name=f"count-{number}"
                )
                self._threads.append(thread)
                thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __call__(self, chunks: Iterable[SourceChunk]) -> Iterator[tuple[SourceChunk, ChunkTally]]:
        """Tally chunks; yields them in their order, with few of them in memory."""
        waiting: deque[_Task] = deque()
        for item in chunks:
            waiting.append(self._submit(item))
            if len(waiting) > self._size * _IN_FLIGHT_PER_WORKER:
                yield _await(waiting.popleft())
        while waiting:
            yield _await(waiting.popleft())

    def submit(self, item: SourceChunk) -> Future[ChunkTally]:
        """Tally a single chunk."""
        return self._submit(item).tally

    def _submit(self, item: SourceChunk) -> _Task:
        task = _Task(item, Future())
        if item.chunk.overlong_bytes:
            task.tally.set_result(tally_overlong(item.chunk, self._rules.max_line_bytes))
        else:
            self._tasks.put(task)
        return task

    def close(self) -> None:
        """Workers hold nothing worth saving: kill them, which also frees the threads that talk to them."""
        for worker in self._workers:
            worker.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.close()
        self._workers, self._threads = [], []

    def _serve(self, worker: _CountWorker) -> None:
        """Talk to one worker until the pool is closed; once it is dead, fail all that comes."""
        sent: deque[_Task] = deque()
        try:
            while self._send_next(worker, sent):
                if sent:
                    reply = worker.receive()
                    task = sent.popleft()
                    if isinstance(reply, str):
                        raise WorkerDiedError(f"{self._place(task)}: {reply} {_WAY_OUT}")
                    task.tally.set_result(reply)
        except (OSError, EOFError, WorkerDiedError) as error:
            self._fail_all(worker, sent, error)

    def _send_next(self, worker: _CountWorker, sent: deque[_Task]) -> bool:
        """Fill up what the worker has before it. Blocks only where it has nothing to do at all."""
        while len(sent) < _IN_FLIGHT_PER_WORKER:
            try:
                task = self._tasks.get(block=not sent)
            except queue.Empty:
                return True
            if task is None:
                return False
            sent.append(task)  # before it is sent: where that fails, it is among those to fail
            worker.send(task.item.chunk.data)
        return True

    def _fail_all(self, worker: _CountWorker, sent: deque[_Task], error: Exception) -> None:
        task: _Task | None
        while True:
            task = sent.popleft() if sent else self._tasks.get()
            if task is None:
                return
            if not isinstance(error, WorkerDiedError):
                error = WorkerDiedError(f"{self._place(task)}: {worker.diagnose()} {_WAY_OUT}")
            task.tally.set_exception(error)

    def _place(self, task: _Task) -> str:
        offset = task.item.chunk.offset
        return f"{self._uris[task.item.source]}, bytes {offset:,} to {offset + len(task.item.chunk.data):,}"


_WAY_OUT = (
    "Try again; if it comes back, give the task more memory or set workers=0 to count in the task itself."
)


class _Task(NamedTuple):
    item: SourceChunk
    tally: Future[ChunkTally]


def _await(task: _Task) -> tuple[SourceChunk, ChunkTally]:
    return task.item, task.tally.result()


class _CountWorker:
    """One process, its pipes, and the memory in which it is handed chunks: through a pipe all takes 3% longer."""

    def __init__(self, rules: CountRules) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._chunks = [_open_memory() for _ in range(_IN_FLIGHT_PER_WORKER)]
        self._process = start_worker(
            "airflow_openai_batch.planning.count_worker",
            self._errors,
            files=[file.fileno() for file in self._chunks],
        )
        self._to = cast("BinaryIO", self._process.stdin)
        self._from = cast("BinaryIO", self._process.stdout)
        self._rules = msgspec.msgpack.encode(rules)
        self._sent = 0

    def send(self, data: bytes) -> None:
        """Hand over one more chunk; of those before, all but one must have been answered."""
        if not self._sent:
            write_frame(self._to, self._rules)
        number = self._sent % _IN_FLIGHT_PER_WORKER
        self._sent += 1
        if os.pwrite(self._chunks[number].fileno(), data, 0) < len(data):
            raise OSError("no memory left for a chunk")
        write_frame(self._to, CHUNK_PLACE.pack(number, len(data)))

    def receive(self) -> ChunkTally | str:
        """:raises EOFError: if the worker has ended."""
        frame = read_frame(self._from)
        if frame is None:
            raise EOFError
        reply = decode_reply(frame)
        return f"the counting process failed ({reply})." if isinstance(reply, str) else reply

    def diagnose(self) -> str:
        """Why it is dead."""
        self._process.kill()
        return f"the counting process {describe_end(self._process, self._errors)}."

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.wait()
        with contextlib.suppress(OSError):
            self._to.close()
        for file in (self._from, self._errors, *self._chunks):
            file.close()


def _open_memory() -> IO[bytes]:
    """A file that lies in memory, where the system has such."""
    try:
        return os.fdopen(os.memfd_create("chunk"), "r+b", buffering=0)
    except (AttributeError, OSError):
        return tempfile.TemporaryFile(buffering=0)
