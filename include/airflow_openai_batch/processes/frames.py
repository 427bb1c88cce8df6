"""What goes between a task and a process of ours: 8 bytes of length, little-endian, and that many bytes."""

from __future__ import annotations

import os
import struct
import traceback
from typing import BinaryIO

_LENGTH = struct.Struct("<Q")
LENGTH_BYTES = _LENGTH.size
FAILURE = b"F"
"""Begins a frame that says what went wrong."""


def write_frame(file: BinaryIO, *parts: bytes) -> None:
    """Write one frame made of parts."""
    file.write(_LENGTH.pack(sum(map(len, parts))))
    for part in parts:
        file.write(part)
    file.flush()


def read_frame(file: BinaryIO) -> bytes | None:
    """The next frame, or None where the stream has ended.

    :raises EOFError: if it ends within a frame.
    """
    header = file.read(_LENGTH.size)
    if not header:
        return None
    if len(header) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(header)
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data


def describe_failure(error: BaseException) -> str:
    """Kind and place, not the text: that could quote the input."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119
