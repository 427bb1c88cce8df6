"""The emulator and pictures: what a file says of itself becomes the answer, and an answer fits its request."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from airflow_openai_batch.testing.replies.answers import Answers
from airflow_openai_batch.testing.requests import CHAT, RESPONSES

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": ["string", "null"]}, "year": {"type": "integer"}},
    "required": ["title", "year"],
    "additionalProperties": False,
}


def make_picture(colour: str = "red", description: str | None = None) -> str:
    """A PNG as a data URL."""
    notes = PngInfo()
    if description is not None:
        notes.add_text("Description", description)
    image = Image.new("RGB", (90, 60), colour)
    image.paste((240, 240, 240), (60, 0, 90, 60))
    target = io.BytesIO()
    image.save(target, "PNG", pnginfo=notes)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def answer(body: dict[str, Any], endpoint: str = CHAT) -> str:
    made = Answers(lambda body, endpoint: 1).make(body, endpoint, b"0123456789abcdef", 0.0, 1)
    if endpoint == CHAT:
        return made["choices"][0]["message"]["content"]
    return made["output"][-1]["content"][0]["text"]


def ask(text: str, *urls: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": parts}]}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    return body


def test_a_described_picture_fills_the_schema_where_its_values_fit() -> None:
    told = json.dumps({"title": "Harbour Lights", "year": "soon", "price": 3})
    found = json.loads(answer(ask("What is it?", make_picture(description=told), schema=SCHEMA)))
    assert found["title"] == "Harbour Lights"
    assert isinstance(found["year"], int)
    assert "price" not in found


def test_a_plain_picture_is_told_by_its_colours() -> None:
    assert (
        answer(ask("Caption it.", make_picture("#2d50aa")))
        == "A picture of 90 by 60 pixels, mostly blue, with white on the right."
    )
    body = {
        "model": "gpt-4o-mini",
        "input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": make_picture("#be282d")}]}
        ],
    }
    assert "mostly red" in answer(body, RESPONSES)


def test_labels_win_over_pictures_and_what_is_no_picture_is_no_error() -> None:
    assert answer(ask("Positive, Negative or Neutral?", make_picture())) in (
        "Positive",
        "Negative",
        "Neutral",
    )
    assert answer(ask("Caption it.", "data:image/png;base64,AAAA")) == "A picture."
    assert answer(ask("Caption it.", "https://example.com/a.png")) == "A picture from the web."


def test_of_numbered_options_the_one_is_chosen_that_was_asked_for() -> None:
    schema = {
        "type": "object",
        "properties": {"choice": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["choice"],
    }
    options = "\n1. Night Boats, The Wharf\n2. Harbour Lights, The Wharf, 1994\n3. Harbour Nights, Others"
    asked = ask(f"Harbour Lights by The Wharf, 1994{options}", schema=schema)
    assert json.loads(answer(asked)) == {"choice": 2}
    assert json.loads(answer(ask(f"Something else{options}", schema=schema))) == {"choice": 0}
