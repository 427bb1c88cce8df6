"""Image files before they are paid for: whole, of a kind that OpenAI reads, not larger than it must be."""

from __future__ import annotations

import importlib
import io
import warnings
from types import ModuleType
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.first_bytes import find_image_type
from airflow_openai_batch.tables.prompts.templates import BadRowError

_ENDS = {"image/png": b"IEND\xaeB`\x82", "image/jpeg": b"\xff\xd9", "image/gif": b";"}
_TAIL_BYTES = 1_024
"""Some cameras and editors write a little behind the end of the image."""
MAX_PIXELS = 89_478_485
"""Of an image, decoded: some 360 MB. Pillow's own limit, which it only warns of up to twice as many."""
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is decoded at all. Pillow knows fifty more, some of which start other programs (PostScript)."""
_QUALITY = 90
"""Of JPEG: no difference to a model, a third of the bytes."""


def load_pillow() -> ModuleType | None:
    """Pillow's ``Image``, or None where the extra ``images`` is not installed."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None


class ImageCheck:
    """Checks the files of one image column and scales them down where that is asked for.

    With Pillow every pixel is decoded, so a file that was cut off or damaged does not get through; without it,
    beginning and end are looked at.

    :raises ConfigError: if they are to be scaled and Pillow is not installed.
    """

    def __init__(self, *, max_side: int | None, max_bytes: int) -> None:
        self._max_side = max_side
        self._max_bytes = max_bytes
        self._pillow = load_pillow()
        if max_side is not None and self._pillow is None:
            raise ConfigError(
                "images.max_side needs Pillow: pip install 'airflow-provider-openai-batch[images]' on the workers."
            )

    def check(self, data: bytes) -> tuple[str, bytes]:
        """The media type and the bytes to send.

        :raises BadRowError: if it is no image that OpenAI could read.
        """
        kind = find_image_type(data)
        if not data:
            raise BadRowError("the image file is empty")
        if self._pillow is not None:
            kind, data = self._decode(self._pillow, kind, data)
        elif kind is None:
            raise BadRowError("is no PNG, JPEG, WEBP or GIF image")
        else:
            _check_ends(kind, data)
        if len(data) > self._max_bytes:
            way_out = "Raise max_bytes" if self._max_side else "Set max_side to scale images down"
            raise BadRowError(f"the image has {len(data):,} bytes, limit {self._max_bytes:,}. {way_out}")
        return kind, data

    def _decode(self, pillow: Any, kind: str | None, data: bytes) -> tuple[str, bytes]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pillow.DecompressionBombWarning)
                warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
                with pillow.open(io.BytesIO(data), formats=_known_formats(pillow)) as image:
                    _check_size(image)
                    return self._take(image, kind, data)
        except (pillow.DecompressionBombWarning, pillow.DecompressionBombError):
            raise BadRowError(f"the image has more than {MAX_PIXELS:,} pixels, the limit") from None
        except BadRowError:
            raise
        except Exception as error:  # what Pillow raises for damaged files is not listed anywhere
            if kind is None:
                raise BadRowError(f"is no image of a kind that is read ({', '.join(FORMATS)})") from None
            raise BadRowError(f"the image is damaged or cut off ({type(error).__name__})") from None

    def _take(self, image: Any, kind: str | None, data: bytes) -> tuple[str, bytes]:
        if kind == "image/gif" and getattr(image, "is_animated", False):
            raise BadRowError("the image is animated, which OpenAI does not read")
        limit = self._max_side
        if limit is None or (kind is not None and max(image.size) <= limit):
            if kind is None:
                raise BadRowError(
                    f"the image is {image.format}; OpenAI reads PNG, JPEG, WEBP and GIF. max_side converts others"
                )
            image.load()
            return kind, data
        image.draft(
            "RGB", (limit, limit)
        )  # JPEG: decodes at a half, a quarter or an eighth where that is enough
        return self._shrink(image, limit)

    @staticmethod
    def _shrink(image: Any, limit: int) -> tuple[str, bytes]:
        # The file's note on how to turn it goes with its other notes, so the pixels are turned.
        upright = importlib.import_module("PIL.ImageOps").exif_transpose(image)
        upright.thumbnail((limit, limit))
        target = io.BytesIO()
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            upright.convert("RGBA").save(target, "PNG", optimize=False)
            return "image/png", target.getvalue()
        upright.convert("RGB").save(target, "JPEG", quality=_QUALITY)
        return "image/jpeg", target.getvalue()


def _known_formats(pillow: Any) -> list[str]:
    """An older Pillow lacks some of them, and would fail for every file."""
    pillow.init()
    return [name for name in FORMATS if name in pillow.OPEN]


def _check_size(image: Any) -> None:
    """Pillow's own check is a warning, which another thread may have silenced."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadRowError(f"the image has more than {MAX_PIXELS:,} pixels, the limit")


def _check_ends(kind: str, data: bytes) -> None:
    if kind == "image/webp":
        whole = len(data) >= int.from_bytes(data[4:8], "little") + 8
    else:
        whole = _ENDS[kind] in data[-_TAIL_BYTES:]
    if not whole:
        raise BadRowError("the image is cut off")
