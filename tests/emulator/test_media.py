"""Pictures and videos: what the real client gets here."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import av
import openai
import pytest
from PIL import Image

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_have_the_size_and_kind_that_was_asked_for(client: openai.OpenAI, kind: Any) -> None:
    made = client.images.generate(
        model="gpt-image-2", prompt="A cat", n=2, size="1536x1024", quality="low", output_format=kind
    )
    assert made.data is not None
    assert made.usage is not None
    assert made.usage.output_tokens == 2 * 167
    for found in made.data:
        with Image.open(io.BytesIO(base64.b64decode(found.b64_json or ""))) as image:
            assert (image.size, image.format) == ((1536, 1024), kind.upper())
    assert made.data[0].b64_json != made.data[1].b64_json


def test_an_older_model_says_how_it_understood_the_prompt(client: openai.OpenAI) -> None:
    made = client.images.generate(model="dall-e-3", prompt="A cat", response_format="url")
    assert made.data is not None
    assert (made.data[0].b64_json, made.data[0].revised_prompt) == (None, "A cat, in two colours")
    assert str(made.data[0].url).startswith("https://images.invalid/")


@pytest.mark.filterwarnings("ignore:The Sora API")
@pytest.mark.openai_server(speed=0, video_s=60)
def test_a_video_takes_its_time(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    openai_server.clock.advance(1.5 - openai_server.clock.now() % 1)  # a beginning is told in whole seconds
    body = {"model": "sora-2", "prompt": "A cat", "seconds": "8", "size": "1280x720"}
    made = client.post("/videos", body=body, cast_to=openai.types.Video)
    assert (made.status, made.seconds) == ("queued", "8")
    openai_server.clock.advance(30)
    assert client.videos.retrieve(made.id).progress == 51  # of 30.5 in 60
    with pytest.raises(openai.BadRequestError, match="not ready yet"):
        client.videos.download_content(made.id)
    openai_server.clock.advance(31)
    shown = client.videos.retrieve(made.id)
    assert (shown.status, shown.progress) == ("completed", 100)
    with av.open(io.BytesIO(client.videos.download_content(made.id).content)) as video:
        assert len(list(video.decode(video=0))) == 4


@pytest.mark.parametrize("endpoint", ["/images/edits", "/images/generations", "/videos"])
def test_a_body_that_lacks_what_it_needs_is_refused(client: openai.OpenAI, endpoint: str) -> None:
    with pytest.raises(openai.BadRequestError, match="Missing required parameter"):
        client.post(endpoint, body={"model": "gpt-image-2"}, cast_to=openai.types.ImagesResponse)
