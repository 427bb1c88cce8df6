"""Decoded pictures as a model is to see them: upright, one page, colours of eight bits."""

from __future__ import annotations

import io
from typing import Any

from airflow_openai_batch.tables.prompts.templates import BadRowError

_ORIENTATION = 0x0112
"""EXIF's tag of how the camera was held."""
_SUBFILE = 254
"""TIFF's tag of what a page is; its first bit: a smaller copy of another one."""
_MOST_COPIES = 100
_QUALITY = 90
"""Of JPEG: no difference to a model, a third of the bytes."""


def check_one_picture(image: Any, kind: str | None) -> None:
    """:raises BadRowError: for an animation, or several pages: what comes after the first would be lost."""
    if kind == "image/gif" and getattr(image, "is_animated", False):
        raise BadRowError("the image is animated, which OpenAI does not read")
    if image.format != "TIFF":
        return
    for number in range(1, _MOST_COPIES):
        try:
            image.seek(number)
        except EOFError:
            break
        if not image.tag_v2.get(_SUBFILE, 0) & 1:
            raise BadRowError("the image has more than one page. Save each as a file of its own")
    image.seek(0)


def find_turn(image: Any) -> int | None:
    """How to turn the pixels upright, as Pillow's ``Transpose``; None where they are, or where nothing legible says.

    After the image was loaded: some formats turn it themselves then.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        return turns.get(image.getexif().get(_ORIENTATION))
    except Exception:  # damaged notes of a camera are of many kinds, and no reason to refuse the picture
        return None


def encode(image: Any, turn: int | None, size: tuple[int, int]) -> tuple[str, bytes]:
    """Media type and bytes of a loaded image, turned and within a size; its notes (place, time, camera) stay behind.

    :param size: before it is turned.
    """
    image = _to_colours(image)
    image.thumbnail(size)
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    target = io.BytesIO()
    if image.mode == "RGBA":
        image.save(target, "PNG", optimize=False)
        return "image/png", target.getvalue()
    image.save(target, "JPEG", quality=_QUALITY)
    return "image/jpeg", target.getvalue()


def _to_colours(image: Any) -> Any:
    """A copy in the mode that it is saved in."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode.startswith("I"):  # greys of 16 bits, which a conversion would cut off at 255
        return image.convert("I").point(lambda grey: grey * (1 / 256)).convert("L").convert("RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")
