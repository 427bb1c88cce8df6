"""What an image costs, from its size alone: no pixel is decoded.

Source: "Images and vision" in OpenAI's guide; what it leaves open (that ``detail`` does not matter where
patches are counted, that the cap is billed in full) from what users were billed.

imagesize was tried for the headers: it takes the scale of a WebP (VP8) for a part of its size and heights of a GIF for
signed numbers, and it tells a size of SVG, TIFF and others, which OpenAI does not read.
"""

from __future__ import annotations

import binascii
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.openai_api.models import base_model
from airflow_openai_batch.storage.first_bytes import find_image_type

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Certainty

_HEADER_BYTES = (3 * 2**10, 255 * 2**10)
"""How much of an image is looked at for its size, if need be: JPEG may have a preview and colour profiles before it.
Multiples of 3, which base64 keeps apart."""

_MAX_SIDE = 2_048
_MAX_SHORT_SIDE = 768
_TILE_SIDE = 512
_PATCH_SIDE = 32
_MAX_PATCHES = 1_536


@dataclass(frozen=True, slots=True)
class Tiles:
    """Models that see an image as a base and a number of 512-pixel tiles."""

    base_tokens: int
    tile_tokens: int

    def tokens(self, width: int, height: int, *, low_detail: bool) -> int:
        if low_detail:
            return self.base_tokens
        scale = self.scale(width, height, low_detail=False)
        across, down = (math.ceil(round(side * scale, 3) / _TILE_SIDE) for side in (width, height))
        return self.base_tokens + across * down * self.tile_tokens

    def most_tokens(self, *, low_detail: bool) -> int:
        return self.tokens(_MAX_SIDE, _MAX_SHORT_SIDE, low_detail=low_detail)

    def scale(self, width: int, height: int, *, low_detail: bool) -> float:
        """What the model scales an image by, 1 at most, before it looks."""
        if low_detail:
            return min(1.0, _TILE_SIDE / max(width, height))
        return min(1.0, _MAX_SIDE / max(width, height), _MAX_SHORT_SIDE / min(width, height))


@dataclass(frozen=True, slots=True)
class Patches:
    """Models that see an image as 32-pixel patches, times a factor; ``detail`` makes no difference to them."""

    factor: float

    def tokens(self, width: int, height: int, *, low_detail: bool) -> int:
        patches = math.ceil(width / _PATCH_SIDE) * math.ceil(height / _PATCH_SIDE)
        return math.ceil(min(patches, _MAX_PATCHES) * self.factor)

    def most_tokens(self, *, low_detail: bool) -> int:
        return math.ceil(_MAX_PATCHES * self.factor)

    def scale(self, width: int, height: int, *, low_detail: bool) -> float:
        """What the model scales an image by, 1 at most, so that it has no more patches than it looks at."""
        if math.ceil(width / _PATCH_SIDE) * math.ceil(height / _PATCH_SIDE) <= _MAX_PATCHES:
            return 1.0
        scale = math.sqrt(_PATCH_SIDE**2 * _MAX_PATCHES / (width * height))
        across, down = (side * scale / _PATCH_SIDE for side in (width, height))
        if min(across, down) < 1:  # a strip: no whole patch fits
            return scale
        return scale * min(math.floor(across) / across, math.floor(down) / down)


_FORMULA_BY_PREFIX: tuple[tuple[str, Tiles | Patches], ...] = (
    ("gpt-5-mini", Patches(1.62)),
    ("gpt-5-nano", Patches(2.46)),
    ("gpt-5", Tiles(70, 140)),
    ("gpt-4.1-mini", Patches(1.62)),
    ("gpt-4.1-nano", Patches(2.46)),
    ("gpt-4.1", Tiles(85, 170)),
    ("gpt-4o-mini", Tiles(2833, 5667)),
    ("gpt-4", Tiles(85, 170)),
    ("chatgpt-4o", Tiles(85, 170)),
    ("o4-mini", Patches(1.72)),
    ("o1", Tiles(75, 150)),
    ("o3", Tiles(75, 150)),
    ("computer-use", Tiles(65, 129)),
)
"""The first prefix that fits counts."""

_UNKNOWN_MODEL = Patches(2.46)
"""The dearest of the formulas that are in use for more than one model."""

_EXACT_NAMES = frozenset({"gpt-5", "gpt-5-chat-latest"})
"""Later models that begin with gpt-5 have formulas that are not published; ours is a guess for them."""


def image_tokens(url: str | None, detail: object, model: str) -> tuple[int, Certainty]:
    """What an image costs: exact for a data URL whose header tells the size, else the most it can cost.

    :param url: a data URL or a web address; None for an image known to OpenAI by a file id.
    :param detail: what the request says; anything but ``low`` is taken for ``high``.
    """
    formula, known = _find_formula(model)
    low_detail = detail == "low"
    size = read_image_size(url) if url is not None else None
    if isinstance(formula, Tiles) and low_detail:
        return formula.base_tokens, "exact" if known else "upper"
    if size is None:
        return formula.most_tokens(low_detail=low_detail), "upper"
    return formula.tokens(*size, low_detail=low_detail), "exact" if known else "upper"


def seen_size(width: int, height: int, *, model: str, low_detail: bool) -> tuple[int, int]:
    """Of an image of this size what the model looks at: more pixels cost bytes, and show it nothing more.

    :returns: the size itself where the model's formula is not published.
    """
    formula, known = _find_formula(model)
    if not known:
        return width, height
    scale = formula.scale(width, height, low_detail=low_detail)
    # Rounded down: a pixel more could be a tile more.
    return max(1, math.floor(width * scale + 1e-6)), max(1, math.floor(height * scale + 1e-6))


def _find_formula(model: str) -> tuple[Tiles | Patches, bool]:
    """A formula, and whether it is known to be the model's."""
    name = base_model(model)
    formula = next((found for prefix, found in _FORMULA_BY_PREFIX if name.startswith(prefix)), None)
    known = formula is not None and not (name.startswith("gpt-5") and _is_later(name))
    return formula or _UNKNOWN_MODEL, known


def _is_later(name: str) -> bool:
    return name not in _EXACT_NAMES and not name.startswith(("gpt-5-mini", "gpt-5-nano"))


def read_image_size(url: str) -> tuple[int, int] | None:
    """Width and height in pixels from the header of a data URL; None where that cannot be told."""
    if url[:5].lower() != "data:":
        return None
    start = url.find(",") + 1
    if start == 0 or ";base64" not in url[:start].lower():
        return None
    sizes = (_read_encoded_size(url[start : start + length // 3 * 4]) for length in _HEADER_BYTES)
    return next((size for size in sizes if size is not None), None)


def _read_encoded_size(encoded: str) -> tuple[int, int] | None:
    try:
        size = _read_size(binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, struct.error, IndexError):
        return None
    return size if size and size[0] > 0 and size[1] > 0 else None


def _read_size(data: bytes) -> tuple[int, int] | None:
    match find_image_type(data):
        case "image/png":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        case "image/gif":
            width, height = struct.unpack_from("<HH", data, 6)
            return width, height
        case "image/jpeg":
            return _read_jpeg_size(data)
        case "image/webp":
            return _read_webp_size(data)
    return None


def _read_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the markers to the start of frame (ITU T.81, annex B)."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _read_webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None
