"""Media from strangers go to decoders that read what was asked for, and nothing that it points to."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import av
import pillow_heif
import pytest
from PIL import Image

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.recipes.captions import video_frames
from airflow_openai_batch.recipes.captions.video_frames import Sampling, extract_frames
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.preparation.image_check import ImageCheck
from airflow_openai_batch.tables.prompts.templates import BadRowError

SAMPLE = Path(__file__).resolve().parents[2] / "include" / "samples" / "video" / "four_scenes.mp4"


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Not into the test's output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A video that nobody named, in the form that playlists refer to."""
    target = tmp_path / "outside" / "secret.ts"
    target.parent.mkdir()
    with av.open(str(SAMPLE)) as source, av.open(str(target), "w", format="mpegts") as copy:
        stream = source.streams.video[0]
        copied = copy.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                copy.mux(packet)
    return target


def write_playlist(path: Path, address: str) -> Path:
    path.write_text(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-TARGETDURATION:10\n"
        f"#EXTINF:8.0,\n{address}\n#EXT-X-ENDLIST\n"
    )
    return path


@pytest.mark.parametrize("name", ["x.m3u8", "x.mp4"])
def test_a_playlist_fetches_no_address(tmp_path: Path, stranger: tuple[str, list[str]], name: str) -> None:
    address, asked = stranger
    source = write_playlist(tmp_path / name, f"{address}/part.ts")
    with pytest.raises(InputError, match="cannot be read as a video"):
        extract_frames(str(source), resolve_plain(str(tmp_path / "out")), Sampling())
    assert asked == []


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_playlist_opens_no_other_file(tmp_path: Path, outside: Path, kind: str) -> None:
    if kind == "hls":
        source = write_playlist(tmp_path / "x.m3u8", f"file://{outside}")
    else:
        source = tmp_path / "x.ffconcat"
        source.write_text(f"ffconcat version 1.0\nfile '{outside}'\n")
    with pytest.raises(InputError, match="cannot be read as a video"):
        extract_frames(str(source), resolve_plain(str(tmp_path / "out")), Sampling())
    assert not list(tmp_path.glob("out/*/frames/*"))


def test_frames_larger_than_the_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_frames, "MAX_FRAME_PIXELS", 256 * 144 - 1)
    with pytest.raises(InputError, match="256 x 144 pixels, limit 36,863"):
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path / "out")), Sampling())


def test_more_frames_than_the_limit_end_the_extraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_frames, "MAX_FRAMES", 5)
    with pytest.raises(InputError, match=r"more than 5 frames.*max_frames"):
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path / "out")), Sampling())
    assert extract_frames(str(SAMPLE), resolve_plain(str(tmp_path / "out")), Sampling(most=5))


def test_postscript_reaches_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to a program called gs, wherever it is found."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadRowError, match="no image"):
        ImageCheck(max_side=60, max_bytes=10**6).check(page)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("format", ["PCX", "TGA", "ICO", "SGI", "PPM"])
def test_formats_that_nobody_photographs_in_are_not_decoded(format: str) -> None:
    target = io.BytesIO()
    Image.new("RGB", (64, 64)).save(target, format)
    with pytest.raises(BadRowError, match="no image"):
        ImageCheck(max_side=32, max_bytes=10**6).check(target.getvalue())


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    """A few hundred bytes that would be 600 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 15_000, 10_000, 8, 6, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    with pytest.raises(BadRowError, match="more than 89,478,485 pixels"):
        ImageCheck(max_side=60, max_bytes=10**6).check(bomb)


@pytest.mark.parametrize("kind", ["HEIF", "TIFF", "BMP", "JPEG2000"])
def test_a_converted_image_of_too_many_pixels_is_not_decoded_either(kind: str) -> None:
    """A small file whose header says that it is huge."""
    pillow_heif.register_heif_opener()
    target = io.BytesIO()
    Image.new("RGB", (64, 48)).save(target, kind)
    data = target.getvalue()
    orders = {"TIFF": "<", "BMP": "<", "HEIF": ">", "JPEG2000": ">"}
    for side, huge in ((64, 40_000), (48, 30_000)):
        order = orders[kind]
        if kind == "TIFF":  # the tags ImageWidth and ImageLength, one short each
            tag = struct.pack("<HHI", 256 if side == 64 else 257, 4, 1)
            start = data.index(tag) + len(tag) if tag in data else 0
            assert start, "tags are longs"
            data = data[:start] + struct.pack("<I", huge) + data[start + 4 :]
        else:
            data = data.replace(struct.pack(f"{order}I", side), struct.pack(f"{order}I", huge))
    with pytest.raises(BadRowError, match=r"pixels, the limit|damaged"):
        ImageCheck(max_side=60, max_bytes=10**6).check(data)
