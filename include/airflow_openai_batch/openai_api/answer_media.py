"""Answers that are files, or have some in them: pictures, sound, and the jobs of videos.

They come as base64, megabytes of it. It is decoded here, and stands nowhere else than in its file.
"""

from __future__ import annotations

import binascii
import re
from typing import Any

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_parts import (
    MISSING_PARTS,
    Media,
    ResponseContent,
    read_usage,
    string,
)
from airflow_openai_batch.openai_api.response_bodies import ImageItem, ImagesBody, OddShapeError, ShapeReader

_NAMED = 10
"""So many numbers of pictures are named in a message."""

_images = ShapeReader(ImagesBody).read


def read_images(body: bytes, asked: int | None) -> ResponseContent:
    """Of ``/v1/images/generations`` and ``/v1/images/edits``.

    :param asked: how many were asked for; None where that is not known.
    """
    root = _images(body)
    kind = string(root.output_format)
    found = [_read_image(number, item, kind) for number, item in enumerate(root.data or ())]
    answer = ResponseContent(
        media=[each for each in found if each is not None],
        model=string(root.model),
        usage=read_usage(root.usage),
        has_text=False,
    )
    count = max(len(found), asked or 1)
    missing = [number for number in range(count) if number >= len(found) or found[number] is None]
    if missing:
        answer.defect = MISSING_PARTS
        answer.defect_message = _describe_missing(count, missing)
    return answer


def _describe_missing(count: int, missing: list[int]) -> str:
    if len(missing) == count:
        return (
            f"The answer has no picture in it, where {count:,} {'was' if count == 1 else 'were'} asked for."
        )
    named = ", ".join(str(number + 1) for number in missing[:_NAMED])
    return f"The answer lacks pictures: of {count:,} number {named} did not come."


def _read_image(number: int, item: ImageItem, kind: str | None) -> Media | None:
    """None where neither a picture nor its address is there."""
    url, encoded = string(item.url), string(item.b64_json)
    if not encoded and not url:
        return None
    return Media(
        data=decode_base64(encoded, f"data[{number}].b64_json") if encoded else None,
        told_type=f"image/{kind}" if kind else None,
        revised_prompt=string(item.revised_prompt),
        url=url,
    )


def read_audio(audio: Any, where: str) -> Media | None:
    """The sound of a chat message; None where there is none."""
    encoded = string(audio.get("data")) if isinstance(audio, dict) else None
    return Media(data=decode_base64(encoded, f"{where}.data")) if encoded else None


def read_drawn(item: dict[str, Any]) -> Media | None:
    """The picture of an ``image_generation_call``; None where there is none."""
    encoded = string(item.get("result"))
    if not encoded:
        return None
    kind = string(item.get("output_format"))
    return Media(
        data=decode_base64(encoded, "the result of an image_generation_call"),
        told_type=f"image/{kind}" if kind else None,
        revised_prompt=string(item.get("revised_prompt")),
    )


def decode_base64(text: str, what: str) -> bytes:
    """:raises OddShapeError: if it is none, or nothing."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # letters that are none of base64's, too
        raise OddShapeError(f"{what} is not base64") from None
    if not data:
        raise OddShapeError(f"{what} is empty")
    return data


_ENCODED = re.compile(rb'"(?:b64_json|data|result|partial_image_b64)"\s*:\s*"')
"""Where a body may have a file in it."""
_SHORT = 1_000
"""Characters that are no file, but the result of a program, say."""


def leave_out_media(body: bytes) -> bytes:
    """The body of an answer, with null for the files in it."""
    if not _ENCODED.search(body):
        return body
    try:
        root = lenient_json.decode(body)
    except lenient_json.UnreadableJSONError:
        return b""
    return lenient_json.encode(_leave_out(root)).encode()


def _leave_out(value: Any) -> Any:
    if isinstance(value, list):
        return [_leave_out(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: None if _is_file(value, name) else _leave_out(each) for name, each in value.items()}


def _is_file(fields: dict[str, Any], name: str) -> bool:
    if not isinstance(fields[name], str):
        return False
    match name:
        case "b64_json" | "partial_image_b64":
            return True
        case "data":  # of the sound of a message
            return len(fields[name]) > _SHORT or "transcript" in fields
        case "result":
            return fields.get("type") == "image_generation_call"
    return False
