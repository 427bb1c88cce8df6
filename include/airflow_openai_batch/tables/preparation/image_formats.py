"""Which pictures can be decoded here: Pillow's formats that people take pictures in, and those of phones."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from airflow_openai_batch.storage.first_bytes import is_heif

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is decoded at all. Pillow knows fifty more, some of which start other programs (PostScript)."""
_HEIF = "HEIF"
_HEIC_MISSING = "pip install 'airflow-provider-openai-batch[heic]' on the workers reads it"


def load_pillow() -> ModuleType | None:
    """Pillow's ``Image``, or None where the extra ``images`` is not installed."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None


def find_formats(pillow: Any) -> list[str]:
    """Those of `FORMATS` that this Pillow has (an older one lacks some, and would fail for every file), and HEIF
    where the extra ``heic`` is installed."""
    pillow.init()
    found = [name for name in FORMATS if name in pillow.OPEN]
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return found
    if _HEIF not in pillow.OPEN:
        heif.register_heif_opener()
    return [*found, _HEIF]


def describe_unread(data: bytes, formats: list[str]) -> str:
    """Why a file that none of these could open was not read.

    :param formats: none where Pillow is missing.
    """
    if is_heif(data) and _HEIF not in formats:
        return f"the image is HEIC: {_HEIC_MISSING}"
    if not formats:
        return "is no PNG, JPEG, WEBP or GIF image"
    return f"is no image of a kind that is read ({', '.join(formats)})"
