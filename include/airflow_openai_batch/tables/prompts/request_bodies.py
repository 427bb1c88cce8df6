"""Request bodies in the form of their endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.openai_api.endpoints import Endpoint

if TYPE_CHECKING:
    from airflow_openai_batch.tables.prompts.spec import PromptSpec


class Picture:
    """An image of a request: its URL, which may be a data URL, and the detail that is asked for."""

    __slots__ = ("detail", "url")

    def __init__(self, url: str, detail: str | None) -> None:
        self.url = url
        self.detail = detail


class BodyMaker:
    """Puts texts and images into the bodies of one prompt."""

    def __init__(self, spec: PromptSpec) -> None:
        self._model = spec.model
        self._endpoint = Endpoint(spec.url)
        self._parameters = dict(spec.parameters)
        schema = spec.sent_schema
        if schema is None:
            return
        named = {"name": spec.schema_name, "strict": spec.strict, "schema": schema}
        if self._endpoint is Endpoint.RESPONSES:
            self._parameters["text"] = {"format": {"type": "json_schema", **named}}
        else:
            self._parameters["response_format"] = {"type": "json_schema", "json_schema": named}

    def ask(self, system: str | None, user: str | None, pictures: Sequence[Picture]) -> dict[str, Any]:
        """The body of a chat or responses request."""
        if self._endpoint is Endpoint.RESPONSES:
            body: dict[str, Any] = {"model": self._model}
            if system:
                body["instructions"] = system
            parts = [{"type": "input_text", "text": user}] if user else []
            content: Any = [*parts, *map(_input_image, pictures)] if pictures else user
            body["input"] = [{"role": "user", "content": content}]
        else:
            parts = [{"type": "text", "text": user}] if user else []
            content = [*parts, *map(_image_url, pictures)] if pictures else user
            messages = [{"role": "system", "content": system}] if system else []
            body = {"model": self._model, "messages": [*messages, {"role": "user", "content": content}]}
        return {**body, **self._parameters}

    def embed(self, texts: list[str]) -> dict[str, Any]:
        """The body of an embeddings request."""
        return {"model": self._model, "input": texts, **self._parameters}


def _image_url(picture: Picture) -> dict[str, Any]:
    image = {"url": picture.url}
    if picture.detail is not None:
        image["detail"] = picture.detail
    return {"type": "image_url", "image_url": image}


def _input_image(picture: Picture) -> dict[str, Any]:
    image = {"type": "input_image", "image_url": picture.url}
    if picture.detail is not None:
        image["detail"] = picture.detail
    return image
