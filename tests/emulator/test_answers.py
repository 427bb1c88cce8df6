"""Answers: the same for the same request, in the shape that was asked for."""

from __future__ import annotations

import base64
import json
import random
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, Field

from airflow_openai_batch.testing.replies import vectors
from airflow_openai_batch.testing.replies.schema_instances import Instances
from airflow_openai_batch.testing.replies.wording import find_labels
from emulator.lines import CHAT, chat_body, errors, outputs, request_line, start_batch, still_emulator


class Address(BaseModel):
    street: str
    zip_code: str = Field(pattern=r"^\d{5}(-\d{4})?$")
    country: Literal["DE", "FR", "IT"]


class Node(BaseModel):
    title: str
    children: list[Node]
    parent: Node | None


class Order(BaseModel):
    order_id: str = Field(pattern=r"^ORD-[A-Z]{3}\d+$")
    amount: float = Field(gt=0, le=9.5)
    pieces: int = Field(ge=3, lt=5)
    even: int = Field(multiple_of=4, ge=10, le=40)
    addresses: list[Address] = Field(min_length=2, max_length=4)
    paid: bool | None
    note: str = Field(min_length=30, max_length=60)
    by_name: dict[str, int]
    tree: Node


SCHEMAS: list[dict[str, Any]] = [
    Order.model_json_schema(),
    Node.model_json_schema(),
    {"type": "object", "properties": {"d": {"type": "string", "format": "date"}}, "required": ["d", "other"]},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3, "maxItems": 3},
    {"type": ["string", "null"], "maxLength": 3},
    {
        "anyOf": [
            {"type": "object", "required": ["a"], "properties": {"a": {"const": 7}}},
            {"type": "integer"},
        ]
    },
    {
        "allOf": [
            {"type": "object", "required": ["a"]},
            {"properties": {"a": {"type": "number", "minimum": -3}}},
        ]
    },
    {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
        "minItems": 2,
        "maxItems": 2,
    },
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
    {"type": "integer", "exclusiveMinimum": -1, "exclusiveMaximum": 1},
    {"type": "number", "exclusiveMinimum": 0.999, "exclusiveMaximum": 1},
    {"type": "number", "multipleOf": 0.5, "minimum": 2.1, "maximum": 2.9},
    {"type": "integer", "maximum": -100},
    {"type": "string", "pattern": r"^(?:[a-f0-9]{2}:){5}[a-f0-9]{2}$"},
    {"type": "string", "pattern": r"^[^@\s]+@[^@\s]+\.(com|org)$"},
    {"type": "string", "format": "date-time"},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema.get("title") or schema)[:40])
def test_instances_keep_to_their_schema(schema: dict[str, Any]) -> None:
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for seed in range(40):
        made = Instances(
            schema, random.Random(seed), "It rained all day in Rome, and the tea was cold."
        ).value()
        checker.validate(json.loads(json.dumps(made)))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this lamp, it works great!", "Positive"),
        ("It is not good, it broke and I want a refund.", "Negative"),
        ("The box has four sides.", "Neutral"),
    ],
)
def test_prompts_that_offer_labels_get_one_that_fits(text: str, label: str) -> None:
    system = "Classify the sentiment of the review. Answer with one word: Positive, Negative or Neutral."
    body = chat_body(text)
    body["messages"].insert(0, {"role": "system", "content": system})
    emulator = still_emulator()
    assert emulator.call(CHAT, body)[0]["choices"][0]["message"]["content"] == label
    for question in (
        "Is this review Positive/Negative/Neutral?",
        "Positive, Negative or Neutral?",
        "Is the review Positive, Negative, or Neutral?",
    ):
        alone = chat_body(f"{question} {text}")
        assert emulator.call(CHAT, alone)[0]["choices"][0]["message"]["content"] == label


def test_a_question_in_the_middle_of_a_sentence_offers_no_labels() -> None:
    assert find_labels("Say whether the text is about tea or coffee? It need not be about either.") == ()
    assert find_labels("Spam or ham? Buy now.") == ("Spam", "ham")


def test_a_choice_of_an_enum_follows_the_text() -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["positive", "negative", "neutral"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    answer, _ = still_emulator().call(CHAT, chat_body("What a terrible, rude waiter.", response_format=form))
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"mood": "negative"}


def test_length_and_number_of_answers_are_as_asked() -> None:
    emulator = still_emulator()
    answer, _ = emulator.call(CHAT, chat_body("word " * 100, max_completion_tokens=5, n=3))
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 3
    assert answer["usage"]["completion_tokens"] == 15
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 15


def test_similar_texts_have_similar_vectors() -> None:
    body = {
        "model": "text-embedding-3-small",
        "input": ["the cat sat on the mat", "a cat sat on a mat", "stock markets fell sharply"],
        "dimensions": 256,
    }
    answer, _ = still_emulator().call("/v1/embeddings", body)
    first, near, far = (np.array(item["embedding"]) for item in answer["data"])
    assert first.shape == (256,)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ near > 0.5 > abs(first @ far)


def test_base64_is_the_same_vector() -> None:
    vector = vectors.embed("tea", 8)
    coded = vectors.encode_vector(vector, "base64")
    assert np.frombuffer(base64.b64decode(coded), dtype="<f4") == pytest.approx(vector)
    assert vectors.encode_vector(vector, "float") == pytest.approx(vector.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        chat_body(tools=["not a tool"], tool_choice="required"),
        chat_body(
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/no"}}}
        ),
    ],
)
def test_odd_bodies_spoil_their_own_line_only(body: dict[str, Any]) -> None:
    emulator = still_emulator()
    batch_id = start_batch(emulator, request_line("good") + request_line("odd", body))
    assert [line["custom_id"] for line in outputs(emulator, batch_id)] == ["good"]
    assert [line["custom_id"] for line in errors(emulator, batch_id)] == ["odd"]
