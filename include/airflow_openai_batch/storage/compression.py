"""Compressed input as a stream of blocks, with an error where it ends too early or is damaged."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import zstandard

from airflow_openai_batch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

Compression = Literal["gzip", "zstd"]

BLOCK_BYTES = 2 * 2**20
"""Of plain input, and at most of what comes out of gzip at once."""
MAX_WINDOW_BYTES = 128 * 2**20
"""Of a zstd frame, which the decoder holds in memory; what ``zstd --ultra -22`` and ``--long`` come to."""
MAX_RATIO = 10_000
"""Bytes out for one byte in, once more than `FREE_BYTES` came out. Gzip cannot do more than 1,032; lines that share a
long prompt come to some hundreds with zstd."""
FREE_BYTES = 2**30
_READ_BYTES = 2**18
_ZSTD_FEED_BYTES = 2**10
"""At once: all that comes out of them comes at once, and four bytes may stand for a block of 128 KB (so 32 MB)."""

_GZIP_WINDOW = 31


def compression_of(uri: str) -> Compression | None:
    """By the end of the name: ``.gz`` and ``.zst`` are compressed, all else is taken as it is."""
    name = uri.lower()
    if name.endswith((".gz", ".gzip")):
        return "gzip"
    return "zstd" if name.endswith((".zst", ".zstd")) else None


def read_blocks(file: BinaryIO, compression: Compression | None, uri: str) -> Iterator[bytes]:
    """The content in blocks of a few MB at most; of zstd that was made to burst, of up to 34 MB.

    :raises InputError: if compressed data is damaged, ends too early, or grows beyond a limit.
    """
    if compression is None:
        while block := file.read(BLOCK_BYTES):
            yield block
    elif compression == "gzip":
        yield from _read_members(file, _GzipMember, uri)
    else:
        yield from _read_members(file, _ZstdFrame, uri)


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
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._decoder: Any = decoder.decompressobj()
        self._unfed = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        at = size = 0
        pending: list[bytes] = []
        while at < len(data) and not self._decoder.eof:
            pending.append(self._decoder.decompress(data[at : at + _ZSTD_FEED_BYTES]))
            size += len(pending[-1])
            at += _ZSTD_FEED_BYTES
            if size >= BLOCK_BYTES:
                yield b"".join(pending)
                pending, size = [], 0
        self._unfed = data[at:]
        yield b"".join(pending)

    @property
    def rest(self) -> bytes | None:
        return bytes(self._decoder.unused_data) + self._unfed if self._decoder.eof else None


class _Growth:
    """What came out, against what went in."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.read = 0
        self._written = 0

    def check(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """:raises InputError: beyond what any table or request file grows by."""
        for block in blocks:
            self._written += len(block)
            if self._written > max(FREE_BYTES, MAX_RATIO * self.read):
                raise InputError(
                    f"{self._uri}: its first {self.read:,} bytes came to {self._written:,}, limit {MAX_RATIO:,} times "
                    f"as many beyond {FREE_BYTES:,}. If that is meant, unpack it first."
                )
            if block:
                yield block


def _read_members(file: BinaryIO, start: Callable[[], _GzipMember | _ZstdFrame], uri: str) -> Iterator[bytes]:
    """Files may be several compressed ones after another, and gzip may be padded with zeros."""
    member: _GzipMember | _ZstdFrame | None = None
    growth = _Growth(uri)
    while data := file.read(_READ_BYTES):
        growth.read += len(data)
        while data:
            if member is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                member = start()
            try:
                yield from growth.check(member.feed(data))
            except (zlib.error, zstandard.ZstdError) as error:
                raise InputError(_describe_damage(uri, growth.read, error)) from error
            rest = member.rest
            if rest is None:
                break
            member, data = None, rest
    if member is not None:
        raise InputError(
            f"{uri}: ends too early after {growth.read:,} bytes. It was cut off; copy or compress it again."
        )


def _describe_damage(uri: str, position: int, error: Exception) -> str:
    if "too much memory" in str(error):
        return (
            f"{uri}: needs a zstd window of more than {MAX_WINDOW_BYTES:,} bytes, the limit. Compress it again without "
            "--long, or with --long=27."
        )
    return f"{uri}: damaged within the {position:,} bytes read so far ({error}). Copy or compress it again."
