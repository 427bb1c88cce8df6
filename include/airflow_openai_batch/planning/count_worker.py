"""A process that counts chunks of lines: ``python -m airflow_openai_batch.planning.count_worker``.

Not multiprocessing: a fork would copy the Airflow task with its threads and connections, and a spawn would run
its main module again. This one reads chunks in memory that it shares with the task, whose descriptors are its
arguments, and gives tallies on its standard output; it opens no file of the input, knows no credentials, and ends when
its standard input does.

In: the rules, then where each chunk lies. Out: a tally per chunk, in order; a failure ends the process.
"""

from __future__ import annotations

import gc
import os
import queue
import struct
import sys
import threading
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from airflow_openai_batch.planning.chunk_counter import ChunkCounter, CountRules
from airflow_openai_batch.planning.chunk_tally import ChunkTally
from airflow_openai_batch.planning.chunks import CHUNK_BYTES
from airflow_openai_batch.processes.frames import FAILURE, describe_failure, read_frame, write_frame

TALLY = b"T"
CHUNK_PLACE = struct.Struct("<BQ")
"""Which descriptor, and how many bytes from its beginning."""
_KEPT_BYTES = 2 * CHUNK_BYTES
"""What is longer gives its memory back: a line may have 200 MB."""


def decode_reply(frame: bytes) -> ChunkTally | str:
    """A tally, or what went wrong in the worker."""
    kind, content = frame[:1], memoryview(frame)[1:]
    if kind == TALLY:
        return msgspec.msgpack.decode(content, type=ChunkTally)
    return bytes(content).decode()


def main() -> None:
    """Count until the standard input ends."""
    gc.disable()  # nothing here makes cycles, and there is much to look through
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    requests = sys.stdin.buffer
    rules = read_frame(requests)
    if rules is None:
        return
    chunks: queue.Queue[bytes] = queue.Queue(1)
    files = [int(argument) for argument in sys.argv[1:]]
    threading.Thread(target=_read_ahead, args=(requests, files, chunks), daemon=True).start()
    try:
        counter = ChunkCounter(msgspec.msgpack.decode(rules, type=CountRules))
        while True:
            write_frame(replies, TALLY, msgspec.msgpack.encode(counter.count(chunks.get())))
    except BrokenPipeError:
        os._exit(0)
    except BaseException as error:
        write_frame(replies, FAILURE, describe_failure(error).encode())
        raise


def _read_ahead(requests: BinaryIO, files: Sequence[int], chunks: queue.Queue[bytes]) -> None:
    """Fetch the next chunk while one is counted; the end of the input is the end of the process."""
    try:
        while (frame := read_frame(requests)) is not None:
            number, length = CHUNK_PLACE.unpack(frame)
            chunk = os.pread(files[number], length, 0)
            if len(chunk) < length:
                raise EOFError
            if length > _KEPT_BYTES:
                os.ftruncate(files[number], 0)
            chunks.put(chunk)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
