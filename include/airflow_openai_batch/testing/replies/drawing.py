"""What the emulator draws: pictures of the size that was asked for, with nothing on them but two colours."""

from __future__ import annotations

import base64
import importlib
import io
import re
import struct
import zlib
from hashlib import blake2b
from typing import Any

from airflow_openai_batch.storage.first_bytes import PNG

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")
_DEFAULT_SIZE = (1024, 1024)


def encode_picture(size: Any, seed: bytes, kind: str) -> str:
    """In base64, as answers have it.

    :param size: ``1536x1024``; a square where it says nothing of the kind.
    """
    return base64.b64encode(draw_picture(read_size(size), seed, kind)).decode()


def read_size(size: Any) -> tuple[int, int]:
    """``1536x1024``; a square where it says nothing of the kind."""
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    return (int(found[1]), int(found[2])) if found else _DEFAULT_SIZE


def draw_picture(size: tuple[int, int], seed: bytes, kind: str) -> bytes:
    """A PNG; where another kind is asked for and Pillow is there, that."""
    file = _draw_png(size, seed)
    if kind not in ("jpeg", "webp", "gif"):
        return file
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        return file
    buffer = io.BytesIO()
    with pillow.open(io.BytesIO(file)) as image:
        image.convert("RGB").save(buffer, kind.upper())
    return buffer.getvalue()


def _draw_png(size: tuple[int, int], seed: bytes) -> bytes:
    """One bit a pixel: stripes of two colours that the seed says."""
    width, height = size
    row_bytes = (width + 7) // 8
    stripe, ground = bytes([0]) + b"\xf0" * row_bytes, bytes([0]) + b"\x00" * row_bytes
    rows = b"".join(ground if (at // 16) % 2 else stripe for at in range(height))
    colours = blake2b(seed, digest_size=6).digest()
    return b"".join(
        (
            PNG,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
            _chunk(b"PLTE", colours),
            _chunk(b"tEXt", b"Comment\0" + seed.hex().encode()),
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
