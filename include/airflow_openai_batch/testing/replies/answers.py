"""Answers to requests: the same body always gets the same answer, in OpenAI's shape."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from airflow_openai_batch.testing.replies import vectors
from airflow_openai_batch.testing.replies.pictures import images_response
from airflow_openai_batch.testing.replies.schema_instances import Instances
from airflow_openai_batch.testing.replies.shapes import (
    ReplyDraft,
    chat_completion,
    completion,
    embedding_list,
    moderation,
    response,
)
from airflow_openai_batch.testing.replies.sight import look_at
from airflow_openai_batch.testing.replies.wording import compose, find_labels
from airflow_openai_batch.testing.requests import (
    CHAT,
    COMPLETIONS,
    DRAWINGS,
    EDITS,
    EMBEDDINGS,
    MODERATIONS,
    RESPONSES,
    VIDEOS,
    CountTokens,
    inputs_of,
    text_tokens,
    texts_of,
)
from airflow_openai_batch.testing.settings import Settings
from airflow_openai_batch.testing.videos import Videos

JSON = dict[str, Any]

Answer = Callable[[JSON], str | JSON | None]
"""A function of the user's: the text to answer a body with, or the whole body of the answer, or none for the usual."""

SPOILS = (
    "refusal", "content_filter", "length", "bad_schema", "not_json", "empty", "missing_vector", "missing_image",
    "not_base64", "failed_video", "stuck_video",
)  # fmt: skip
"""What a line fault can do to an answer that is otherwise given and billed."""


@dataclass(slots=True)
class Answers:
    """Makes answers.

    :param count_tokens: of the input, for the usage.
    :param answer: asked first, for chat, responses and completions.
    """

    count_tokens: CountTokens
    answer: Answer | None = None
    videos: Videos = field(default_factory=Videos)
    settings: Callable[[], Settings] = Settings

    def make(
        self,
        body: JSON,
        endpoint: str,
        digest: bytes,
        now: float,
        input_tokens: int,
        spoil: str | None = None,
    ) -> JSON:
        """The body of a 200 answer.

        :param digest: of the canonical body; all chance is drawn from it.
        :param spoil: one of `SPOILS`.
        """
        draft = ReplyDraft(
            id=digest[:12].hex(),
            created=int(now),
            model=body.get("model") or "omni-moderation-latest",
            input_tokens=input_tokens,
            body=body,
        )
        if endpoint == EMBEDDINGS:
            return self._embeddings(body, draft, spoil)
        if endpoint in (DRAWINGS, EDITS):
            return images_response(draft, spoil)
        if endpoint == VIDEOS:
            return self.videos.begin(draft, self.settings(), spoil)
        if endpoint == MODERATIONS:
            return moderation(draft, inputs_of(body.get("input")))
        made = self.answer(body) if self.answer is not None else None
        if isinstance(made, dict):
            msgspec.json.encode(made)  # raises here for what no result file can hold: one line, not the batch
            return made
        self._write(draft, endpoint, digest[:12], spoil, made)
        shape = {CHAT: chat_completion, RESPONSES: response, COMPLETIONS: completion}[endpoint]
        return shape(draft)

    def _write(
        self, draft: ReplyDraft, endpoint: str, seed: bytes, spoil: str | None, made: str | None
    ) -> None:
        body = draft.body
        prompts = len(inputs_of(body.get("prompt"))) if endpoint == COMPLETIONS else 1
        choices = (body.get("n") or 1) * max(1, prompts)
        first = int.from_bytes(seed, "big")
        texts = [self._text(body, endpoint, first + i, spoil, made) for i in range(choices)]
        most = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
        for text in texts:
            tokens = text_tokens(text)
            if spoil == "length":
                text, draft.finish_reason = text[: len(text) // 2], "length"
                tokens = text_tokens(text)
            elif most is not None and tokens > most:
                text, draft.finish_reason, tokens = text[: most * 4], "length", most
            draft.texts.append(text)
            draft.output_tokens += max(1, tokens)
        if spoil == "refusal":
            draft.refusal = "I'm sorry, I can't assist with that request."
        elif spoil == "content_filter":
            draft.finish_reason = "content_filter"
        if endpoint == CHAT and spoil is None:
            draft.tool_call = self._tool_call(body, seed)

    def _text(self, body: JSON, endpoint: str, seed: int, spoil: str | None, made: str | None) -> str:
        if spoil in ("empty", "content_filter"):
            return ""
        if spoil == "not_json":
            return "Sure! Here is what you asked for:"
        if spoil == "bad_schema":
            return '{"unexpected": ["not what the schema asked for"]}'
        if made is not None:
            return made
        told, text = texts_of(body, endpoint)
        seen = look_at(body)
        schema = schema_of(body, endpoint)
        if schema is not None:
            draw = random.Random(seed)  # noqa: S311
            return msgspec.json.encode(Instances(schema, draw, text or told, seen.facts).value()).decode()
        if _wants_json(body, endpoint):
            return msgspec.json.encode({"answer": compose(told, text)}).decode()
        if seen.text and not find_labels(told or text):
            return seen.text
        return compose(told or text, text)

    def _tool_call(self, body: JSON, seed: bytes) -> JSON | None:
        """Where the request insists on a tool."""
        choice, tools = body.get("tool_choice"), body.get("tools") or []
        wanted = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
        if wanted is None and choice != "required":
            return None
        for tool in tools:
            function = tool.get("function", {})
            if wanted in (None, function.get("name")):
                _, text = texts_of(body, CHAT)
                draw = random.Random(int.from_bytes(seed, "big"))  # noqa: S311
                arguments = Instances(function.get("parameters") or {"type": "object"}, draw, text).value()
                return {
                    "id": f"call_{seed.hex()}",
                    "type": "function",
                    "function": {
                        "name": function["name"],
                        "arguments": msgspec.json.encode(arguments).decode(),
                    },
                }
        return None

    def _embeddings(self, body: JSON, draft: ReplyDraft, spoil: str | None) -> JSON:
        dimensions = body.get("dimensions") or vectors.DEFAULT_DIMENSIONS.get(draft.model, 1536)
        encoding = body.get("encoding_format") or "float"
        made = [
            vectors.encode_vector(vectors.embed(t, dimensions), encoding) for t in inputs_of(body["input"])
        ]
        answer = embedding_list(draft, made)
        if spoil == "missing_vector":  # the second, so that those after it could be taken for it
            del answer["data"][min(1, len(made) - 1)]
        return answer


def schema_of(body: JSON, endpoint: str) -> JSON | None:
    """The JSON schema that the answer must keep to, where the request has one."""
    if endpoint == CHAT:
        declared = body.get("response_format")
        declared = declared.get("json_schema") if isinstance(declared, dict) else None
    else:
        text = body.get("text")
        declared = text.get("format") if isinstance(text, dict) else None
    schema = declared.get("schema") if isinstance(declared, dict) else None
    return schema if isinstance(schema, dict) else None


def _wants_json(body: JSON, endpoint: str) -> bool:
    text = body.get("text")
    declared = (
        body.get("response_format")
        if endpoint == CHAT
        else text.get("format")
        if isinstance(text, dict)
        else {}
    )
    return isinstance(declared, dict) and declared.get("type") == "json_object"
