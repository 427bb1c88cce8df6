"""What the emulator draws: pictures of the size that was asked for, with nothing on them but two colours."""

from __future__ import annotations

import base64
import importlib
import io
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.requests.tokens.drawings import count_drawing_tokens
from airflow_openai_batch.storage.first_bytes import PNG

if TYPE_CHECKING:
    from airflow_openai_batch.testing.replies.shapes import ReplyDraft

JSON = dict[str, Any]

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")
_DEFAULT_SIZE = (1024, 1024)
_DEFAULT_TOKENS = 1_056
_IMAGE_INPUT_TOKENS = 85


def images_response(draft: ReplyDraft, spoil: str | None) -> JSON:
    """Of ``/v1/images/generations`` and ``/v1/images/edits``."""
    body = draft.body
    kind = body.get("output_format") or "png"
    count, by_url = body.get("n") or 1, body.get("response_format") == "url"
    seed = bytes.fromhex(draft.id)
    data: list[JSON] = []
    for number in range(count):
        file = draw_picture(read_size(body.get("size")), seed + bytes([number]), kind)
        image: JSON = {"b64_json": base64.b64encode(file).decode()}
        if by_url:
            image = {"url": f"https://images.invalid/{draft.id}/{number}.{kind}"}
        if draft.model.startswith("dall-e"):  # gpt-image returns none
            image["revised_prompt"] = f"{body.get('prompt')}, in two colours"
        data.append(image)
    if spoil == "empty":
        data = []
    elif spoil == "missing_image":
        data[-1] = {"revised_prompt": None}
    elif spoil == "not_base64":
        data[0]["b64_json"] = "Sorry, no picture."
    made = count_drawing_tokens(draft.model, body)
    tokens_out = (_DEFAULT_TOKENS if made is None else made) * count
    images_in = len(body.get("images") or ()) * _IMAGE_INPUT_TOKENS
    text_in = max(0, draft.input_tokens - images_in)
    return {
        "created": draft.created,
        "background": "opaque",
        "data": data,
        "output_format": kind,
        "quality": body.get("quality") or "medium",
        "size": body.get("size") or "1024x1024",
        "usage": {
            "input_tokens": text_in + images_in,
            "input_tokens_details": {"text_tokens": text_in, "image_tokens": images_in},
            "output_tokens": tokens_out,
            "output_tokens_details": {"text_tokens": 0, "image_tokens": tokens_out},
            "total_tokens": text_in + images_in + tokens_out,
        },
    }


def read_size(size: Any) -> tuple[int, int]:
    """``1536x1024``; a square where it says nothing of the kind."""
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    return (int(found[1]), int(found[2])) if found else _DEFAULT_SIZE


def draw_picture(size: tuple[int, int], seed: bytes, kind: str) -> bytes:
    """A PNG; where another kind is asked for and Pillow is there, that."""
    file = _draw_png(size, seed)
    if kind not in ("jpeg", "webp", "gif"):
        return file
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        return file
    buffer = io.BytesIO()
    with pillow.open(io.BytesIO(file)) as image:
        image.convert("RGB").save(buffer, kind.upper())
    return buffer.getvalue()


def _draw_png(size: tuple[int, int], seed: bytes) -> bytes:
    """One bit a pixel: stripes of two colours that the seed says."""
    width, height = size
    row_bytes = (width + 7) // 8
    stripe, ground = bytes([0]) + b"\xf0" * row_bytes, bytes([0]) + b"\x00" * row_bytes
    rows = b"".join(ground if (at // 16) % 2 else stripe for at in range(height))
    colours = (seed * 6)[-6:]
    return b"".join(
        (
            PNG,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
            _chunk(b"PLTE", colours),
            _chunk(b"tEXt", b"Comment\0" + seed.hex().encode()),
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
