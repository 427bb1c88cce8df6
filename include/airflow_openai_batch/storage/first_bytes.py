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


def find_image_type(data: bytes) -> str | None:
    """The media type, of the images that OpenAI reads."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for beginning, kind in _IMAGES if data.startswith(beginning)), None)
