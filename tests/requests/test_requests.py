"""One line: what is taken, what is not, and what the person is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_openai_batch.openai_api.endpoints import BY_URL
from airflow_openai_batch.requests.request import BadLineError, check_utf8, read_request
from airflow_openai_batch.requests.tokens.measure import measure_body
from fixtures.split_input import request_line


def embedding(texts: object) -> str:
    return json.dumps(
        {
            "custom_id": "e",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "text-embedding-3-small", "input": texts},
        }
    )


IMAGES, EDITS, VIDEOS = "/v1/images/generations", "/v1/images/edits", "/v1/videos"
CHAT = request_line()

BAD_LINES = {
    "no JSON": ("not json", "invalid_json", "is not valid JSON"),
    "cut off": (CHAT[:-9], "invalid_json", "is not valid JSON"),
    "two requests in a line": (CHAT + CHAT, "invalid_json", "is not valid JSON"),
    "trailing comma": (CHAT + ",", "invalid_json", "is not valid JSON"),
    "NaN": (request_line(temperature=float("nan")), "invalid_json", "is not valid JSON"),
    "half a surrogate pair": (CHAT.replace("Good?", "\\ud83d"), "invalid_json", "surrogate"),
    "NUL bytes": (CHAT + "\0\0", "invalid_json", "NUL bytes"),
    "nested too deeply": (
        CHAT.replace('"Good?"', "[" * 5000 + "]" * 5000),
        "invalid_json",
        "nested too deeply",
    ),
    "an array": (f"[{CHAT}]", "not_an_object", "is a JSON array; every line must be one request object"),
    "a text": ('"x"', "not_an_object", "is a string"),
    "no id": ('{"method": "POST"}', "invalid_custom_id", "custom_id is missing"),
    "number as id": (
        request_line(7),
        "invalid_custom_id",
        "custom_id is a number; it must be a string, in quotes",
    ),
    "null as id": (request_line(None), "invalid_custom_id", "custom_id is null"),
    "empty id": (request_line(""), "invalid_custom_id", "custom_id is empty"),
    "GET": (request_line(method="GET"), "invalid_method", 'method is "GET"; it must be POST'),
    "no such endpoint": (request_line(url="/v1/chat"), "invalid_url", 'url is "/v1/chat"; it must be one of'),
    "endpoint with host": (
        request_line(url="https://api.example.com/v1/chat/completions"),
        "invalid_url",
        "must be one of /v1/responses, /v1/chat/completions",
    ),
    "a picture of nothing": (request_line(url=IMAGES), "missing_prompt", "body.prompt is missing"),
    "a video of a number": (request_line(url=VIDEOS, prompt=4), "missing_prompt", "body.prompt is a number"),
    "an edit of nothing": (
        request_line(url=EDITS, prompt="Blue"),
        "missing_images",
        "body.images is missing",
    ),
    "an edit of no picture": (
        request_line(url=EDITS, prompt="Blue", images=[]),
        "missing_images",
        "a batch takes no files beside its lines",
    ),
    "body is text": (request_line(body="hello"), "invalid_body", "body is a string; it must be an object"),
    "no model": (CHAT.replace('"model": "gpt-4o-mini", ', ""), "missing_model", "body.model is missing"),
    "empty model": (request_line(model=""), "missing_model", "body.model is empty"),
    "model is a number": (request_line(model=4), "missing_model", "body.model is a number"),
    "streaming": (request_line(stream=True), "stream", "a batch cannot stream"),
    "id twice": (
        CHAT.replace('"custom_id"', '"custom_id": "x", "custom_id"', 1),
        "duplicate_key",
        "custom_id stands there twice",
    ),
    "id twice, of another kind": (
        CHAT.replace('"custom_id"', '"custom_id": 7, "custom_id"', 1),
        "duplicate_key",
        "custom_id stands there twice",
    ),
    "2,049 texts to embed": (
        embedding(["x"] * 2_049),
        "too_many_inputs",
        "2,049 texts, limit 2,048 per request",
    ),
    "2,049 texts as token numbers": (embedding([[1, 2]] * 2_049), "too_many_inputs", "limit 2,048"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line_is_refused_with_its_reason(name: str) -> None:
    line, code, message = BAD_LINES[name]
    with pytest.raises(BadLineError) as refused:
        read_request(line.encode())
    assert refused.value.code == code
    assert message in refused.value.message
    assert "Good?" not in refused.value.message, "the body must not be quoted"


def test_invalid_utf8_is_refused_wherever_it_stands() -> None:
    line = CHAT.encode().replace(b"}}", b', "user": "caf\xe9"}}')
    with pytest.raises(BadLineError, match=r"not valid UTF-8 \(byte 166 of the line\)") as refused:
        check_utf8(line)
    assert refused.value.code == "invalid_utf8"


@pytest.mark.parametrize(
    "custom_id", ['say "hi"', "a/../b", "line\nbreak", "tab\t", "☃ 😀", "\u2028", "x" * 10_240, " "]
)
def test_any_string_is_an_id(custom_id: str) -> None:
    for line in (
        request_line(custom_id),
        json.dumps(json.loads(request_line(custom_id)), ensure_ascii=False),
    ):
        assert read_request(line.encode()).custom_id == custom_id


@pytest.mark.parametrize(
    "line",
    [
        CHAT + "\r",
        f"  {CHAT}\t",
        json.dumps(json.loads(CHAT), separators=(",", ":")),
        request_line(stream=False),
        request_line(stream=None),
        CHAT.replace("Good?", '\\"custom_id\\" in a text'),
        request_line(metadata={"custom_id": "another"}),
        CHAT.replace('"model"', '"model": "gpt-4o", "model"').replace('"url"', '"url": "/v1/x", "url"'),
        CHAT.replace("Good?", "raw \u2028 and \u0085 and \x7f"),
        CHAT[:-1] + ', "metadata": {"url": "x"}}',
        request_line(tools=[{"type": "function", "function": {"name": "model"}}]),
    ],
)
def test_unusual_but_good_lines_are_taken(line: str) -> None:
    request = read_request(line.encode())
    assert (request.custom_id, request.model, request.url) == ("a", "gpt-4o-mini", "/v1/chat/completions")


def test_every_embedding_input_is_counted() -> None:
    for texts, inputs in (("a text", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3], [4]], 3)):
        assert read_request(embedding(texts).encode()).inputs == inputs


PLAIN_BODIES = st.one_of(
    st.builds(
        lambda messages: ("/v1/chat/completions", {"messages": messages}),
        st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "developer", "user", "assistant", "critic"]),
                    "content": st.text(),
                }
            )
        ),
    ),
    st.builds(
        lambda given, instructions: ("/v1/responses", {"input": given, "instructions": instructions}),
        st.text(),
        st.none() | st.text(),
    ),
    st.builds(
        lambda given: ("/v1/embeddings", {"input": given}), st.text() | st.lists(st.text(), min_size=1)
    ),
)


@given(plain=PLAIN_BODIES)
def test_the_fast_way_measures_as_the_careful_one(plain: tuple[str, dict[str, object]]) -> None:
    url, rest = plain
    body = {"model": "gpt-4o", **rest}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body})
    request = read_request(line.encode())
    careful = measure_body(body, BY_URL[url])
    assert request.is_plain
    assert request.inputs == careful.embedding_inputs
    fast = request.measure()
    assert fast.fixed_tokens == careful.fixed_tokens
    assert sorted(fast.texts + fast.repeated) == sorted(careful.texts + careful.repeated)
