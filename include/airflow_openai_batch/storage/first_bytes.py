"""The first bytes of files, which tell what they are whatever they are called.

Marks of encodings are those of `codecs` (``BOM_UTF8`` and so on).
"""

from __future__ import annotations

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
PARQUET = b"PAR1"
ZIP = b"PK\x03\x04"
"""Excel workbooks are ZIP files, too."""
PNG = b"\x89PNG\r\n\x1a\n"

_IMAGES = (
    (PNG, "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


_OTHER_MEDIA = (
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"<svg", "image/svg+xml"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""ISO/IEC 23008-12. AVIF, in the same box, has brands of its own."""
_SVG_HEAD = 1_000
"""Bytes that may come before it: an XML declaration, comments."""


def find_media_type(data: bytes) -> str | None:
    """The media type of a picture, sound or video; None of what does not begin like any."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    if data[4:8] == b"ftyp":
        return "video/mp4"
    found = find_image_type(data)
    if found is None:
        found = next((kind for beginning, kind in _OTHER_MEDIA if data.startswith(beginning)), None)
    if found is None and data.startswith(b"<?xml") and b"<svg" in data[:_SVG_HEAD]:
        return "image/svg+xml"
    return found


def find_image_type(data: bytes) -> str | None:
    """The media type, of the images that OpenAI reads."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for beginning, kind in _IMAGES if data.startswith(beginning)), None)


def is_heif(data: bytes) -> bool:
    """Whether it is a HEIC or HEIF picture, as phones take them, or a sequence of such."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
