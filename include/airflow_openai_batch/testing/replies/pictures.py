"""Answers of the endpoints that draw pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_openai_batch.requests.tokens.drawings import count_drawing_tokens
from airflow_openai_batch.testing.replies.drawing import encode_picture

if TYPE_CHECKING:
    from airflow_openai_batch.testing.replies.shapes import ReplyDraft

JSON = dict[str, Any]

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
        image: JSON = {"url": f"https://images.invalid/{draft.id}/{number}.{kind}"}
        if not by_url:
            image = {"b64_json": encode_picture(body.get("size"), seed + bytes([number]), kind)}
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
