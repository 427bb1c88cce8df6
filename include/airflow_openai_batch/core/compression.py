"""Compressed input as a stream of blocks, with an error where it ends too early or is damaged."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import zstandard

from airflow_openai_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

Compression = Literal["gzip", "zstd"]

BLOCK_BYTES = 2 * 2**20
"""Of plain input, and at most of what comes out of gzip at once."""
_GZIP_BLOCK_BYTES = 2**18
_ZSTD_BLOCK_BYTES = 2**15
"""Small, since all that comes out of a block comes at once."""

_GZIP_WINDOW = 31


def compression_of(uri: str) -> Compression | None:
    """By the end of the name: ``.gz`` and ``.zst`` are compressed, all else is taken as it is."""
    name = uri.lower()
    if name.endswith((".gz", ".gzip")):
        return "gzip"
    return "zstd" if name.endswith((".zst", ".zstd")) else None


def read_blocks(file: BinaryIO, compression: Compression | None, uri: str) -> Iterator[bytes]:
    """The content in blocks of a few MB at most.

    :raises InputError: if compressed data is damaged or ends too early.
    """
    if compression is None:
        while block := file.read(BLOCK_BYTES):
            yield block
    elif compression == "gzip":
        yield from _read_members(file, _GzipMember, _GZIP_BLOCK_BYTES, uri)
    else:
        yield from _read_members(file, _ZstdFrame, _ZSTD_BLOCK_BYTES, uri)


class _GzipMember:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_GZIP_WINDOW)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            yield self._decoder.decompress(data, BLOCK_BYTES)
            data = self._decoder.unconsumed_tail
            if not data:
                return

    @property
    def rest(self) -> bytes | None:
        """What follows this member; None while it has not ended."""
        return self._decoder.unused_data if self._decoder.eof else None


class _ZstdFrame:
    def __init__(self) -> None:
        self._decoder: Any = zstandard.ZstdDecompressor().decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._decoder.decompress(data)

    @property
    def rest(self) -> bytes | None:
        return bytes(self._decoder.unused_data) if self._decoder.eof else None


def _read_members(
    file: BinaryIO, start: Callable[[], _GzipMember | _ZstdFrame], block_bytes: int, uri: str
) -> Iterator[bytes]:
    """Files may be several compressed ones after another, and gzip may be padded with zeros."""
    member: _GzipMember | _ZstdFrame | None = None
    position = 0
    while data := file.read(block_bytes):
        position += len(data)
        while data:
            if member is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                member = start()
            try:
                yield from filter(None, member.feed(data))
            except (zlib.error, zstandard.ZstdError) as error:
                raise InputError(
                    f"{uri}: damaged within the {position:,} bytes read so far ({error}). Copy or compress it again."
                ) from error
            rest = member.rest
            if rest is None:
                break
            member, data = None, rest
    if member is not None:
        raise InputError(
            f"{uri}: ends too early after {position:,} bytes. It was cut off; copy or compress it again."
        )
