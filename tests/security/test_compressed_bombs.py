"""Compressed input that was made to burst: told, within memory, and never more than its file."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
import zstandard

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.storage import compression
from airflow_openai_batch.storage.compression import read_blocks
from fixtures.bounded_memory import run_bounded


def make_zstd_of_runs(blocks: int) -> bytes:
    """One frame of blocks that say "the letter a, 128 KB of it" in four bytes each."""
    run = (0 | 1 << 1 | 131_072 << 3).to_bytes(3, "little") + b"a"
    last = (1 | 1 << 1 | 1 << 3).to_bytes(3, "little") + b"\n"
    return b"\x28\xb5\x2f\xfd" + b"\x00\x58" + run * blocks + last


def test_a_zstd_frame_that_bursts_is_read_in_little_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "t.jsonl.zst"
    bomb.write_bytes(make_zstd_of_runs(4_000))
    assert bomb.stat().st_size < 17_000  # for 500 MB
    found = run_bounded(
        """
        from fixtures.prepared import read_source
        table, rows, problems = read_source(sys.argv[1])
        print(problems)
        """,
        bomb,
        limit_mb=300,
    )
    assert found == "{0: 'line 1 is longer than any request may be (limit 67,108,864 bytes)'}"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_no_block_is_large(kind: str) -> None:
    plain = b"0" * (80 * 2**20)
    packed = gzip.compress(plain) if kind == "gzip" else zstandard.ZstdCompressor().compress(plain)
    sizes = [len(block) for block in read_blocks(io.BytesIO(packed), kind, "x")]  # type: ignore[arg-type]
    assert sum(sizes) == len(plain)
    assert max(sizes) <= 34 * 2**20


def test_frames_one_after_another_are_read_whole() -> None:
    one = zstandard.ZstdCompressor().compress(b"one\n")
    many = b"".join(zstandard.ZstdCompressor().compress(b"%d\n" % n) for n in range(2_000))
    read = b"".join(read_blocks(io.BytesIO(one + b"\0\0" + many), "zstd", "x"))
    assert read == b"one\n" + b"".join(b"%d\n" % n for n in range(2_000))


def test_growth_without_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 2**20)
    packed = make_zstd_of_runs(600)
    with pytest.raises(InputError, match=r"t\.zst: its first 2,4\d\d bytes came to .* limit 10,000 times"):
        for _ in read_blocks(io.BytesIO(packed), "zstd", "t.zst"):
            pass


def test_a_window_of_gigabytes_is_refused() -> None:
    window = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x09\x00\x00a"  # 2 GB
    with pytest.raises(InputError, match="window of more than 134,217,728 bytes, the limit"):
        list(read_blocks(io.BytesIO(window), "zstd", "t.zst"))
