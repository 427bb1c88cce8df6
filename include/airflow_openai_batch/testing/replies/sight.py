"""What the emulator makes of pictures, having no eyes: the description that a file carries, else its colours."""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from airflow_openai_batch.storage.first_bytes import PNG

JSON = dict[str, Any]

_DESCRIPTIONS = (b"Description", b"Comment", b"Title")
"""Keywords of PNG texts. Source: the PNG specification, "Keywords and text strings"."""
_FORMATS = ["PNG", "JPEG", "WEBP", "GIF"]
_GRID = 9
"""Fields that a picture is looked at by, each way."""
_COLOURS = {
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (190, 40, 45),
    "orange": (230, 130, 40),
    "yellow": (235, 215, 80),
    "green": (70, 130, 60),
    "blue": (45, 80, 170),
    "purple": (100, 60, 150),
    "pink": (230, 150, 180),
    "brown": (120, 75, 40),
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen in the pictures of one request."""

    facts: JSON = field(default_factory=dict)
    """Of a description that is a JSON object; a schema's properties of the same names take them."""
    text: str = ""
    """In words; empty where there is no picture."""


def look_at(body: JSON) -> Sight:
    """The pictures of a chat or responses request; those that are named by an address are not fetched."""
    facts: JSON = {}
    words: list[str] = []
    for url in _find_pictures(body):
        seen = _look(url)
        facts |= seen.facts
        words.append(seen.text)
    return Sight(facts, " ".join(words))


def _find_pictures(body: JSON) -> Iterator[str]:
    messages = body.get("messages") or body.get("input")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            image = part.get("image_url") if isinstance(part, dict) else None
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str):
                yield url


def _look(url: str) -> Sight:
    head, _, encoded = url.partition(";base64,")
    if not head.startswith("data:image/"):
        return Sight(text="A picture from the web.")
    try:
        data = base64.b64decode(encoded)
    except binascii.Error:
        return Sight(text="A picture that cannot be read.")
    told = _read_png_text(data) if data.startswith(PNG) else ""
    if not told:
        return Sight(text=_describe_colours(data))
    try:
        facts = msgspec.json.decode(told)
    except msgspec.DecodeError:
        facts = None
    if not isinstance(facts, dict):
        return Sight(text=told)
    return Sight(facts, ", ".join(str(value) for value in facts.values() if isinstance(value, str)))


def _read_png_text(data: bytes) -> str:
    """The first description among the file's texts."""
    found: dict[bytes, str] = {}
    at = len(PNG)
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, chunk = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += size + 12
        keyword, _, rest = chunk.partition(b"\0")
        if kind == b"tEXt":
            found.setdefault(keyword, rest.decode("latin-1"))
        elif kind == b"iTXt":
            packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
            try:
                found.setdefault(keyword, (zlib.decompress(text) if packed else text).decode())
            except (zlib.error, UnicodeDecodeError):
                continue
    return next((found[name] for name in _DESCRIPTIONS if name in found), "")


def _describe_colours(data: bytes) -> str:
    """``A picture of 320 by 180 pixels, mostly blue, with white on the left.``; needs Pillow for more than a word."""
    try:
        pillow = importlib.import_module("PIL.Image")
        with pillow.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            raw = image.convert("RGB").resize((_GRID, _GRID)).tobytes()
    except Exception:  # not installed, or whatever Pillow raises for what is no picture
        return "A picture."
    names = [_name_colour(raw[at : at + 3]) for at in range(0, len(raw), 3)]
    ground = max(set(names), key=names.count)
    text = f"A picture of {width} by {height} pixels, mostly {ground}"
    others = [name for name in names if name != ground]
    if not others:
        return f"{text}."
    other = max(set(others), key=others.count)
    columns = [at % _GRID for at, name in enumerate(names) if name == other]
    middle = sum(columns) / len(columns)
    third = (_GRID - 1) / 3
    where = "on the left" if middle < third else "on the right" if middle > 2 * third else "in the middle"
    return f"{text}, with {other} {where}."


def _name_colour(pixel: bytes) -> str:
    def distance(name: str) -> int:
        return sum((a - b) ** 2 for a, b in zip(pixel, _COLOURS[name], strict=True))

    return min(_COLOURS, key=distance)
