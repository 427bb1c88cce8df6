"""The real client, sync and async, finds OpenAI's API here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from pydantic import BaseModel

from emulator.lines import CHAT, read_lines, request_line, request_lines, send_batch

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


def test_a_batch_goes_from_upload_to_answers(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    made = send_batch(client, request_lines(20), job_key="k")
    batch = client.batches.retrieve(made.id)
    assert (made.status, batch.status) == ("validating", "completed")
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed) == (20, 20)
    assert batch.usage is not None
    answers = read_lines(client.files.content(batch.output_file_id or "").content)
    assert batch.usage.output_tokens == sum(
        a["response"]["body"]["usage"]["completion_tokens"] for a in answers
    )
    ids = [answer["custom_id"] for answer in answers]
    assert sorted(ids) == sorted(f"r-{n}" for n in range(20))
    assert ids != [f"r-{n}" for n in range(20)], "the output is in input order"
    assert batch.error_file_id is None
    assert openai_server.kept_batches("k") == [batch.id]


def test_answers_come_in_the_same_order_with_the_same_words_again(client: openai.OpenAI) -> None:
    def run() -> list[str]:
        batch = client.batches.retrieve(send_batch(client, request_lines(10)).id)
        answers = read_lines(client.files.content(batch.output_file_id or "").content)
        return sorted(a["response"]["body"]["choices"][0]["message"]["content"] for a in answers)

    assert run() == run()


def test_an_open_file_is_uploaded_and_read_back_byte_for_byte(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + request_lines(50) + b"--boundary\r\n\x00\xff")
    with path.open("rb") as file:
        made = client.files.create(file=file, purpose="batch")
    assert made.bytes == path.stat().st_size
    with client.files.with_streaming_response.content(made.id) as reply:
        assert b"".join(reply.iter_bytes()) == path.read_bytes()


def test_files_are_listed_filtered_paged_and_deleted(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch") for n in range(5)]
    client.files.create(file=("x.txt", b"x"), purpose="user_data")
    found = list(client.files.list(purpose="batch", limit=2))
    assert [file.id for file in found] == [file.id for file in reversed(made)]
    assert [f.id for f in client.files.list(purpose="batch", order="asc")] == [f.id for f in made]
    assert client.files.delete(made[0].id).deleted
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.retrieve(made[0].id)


def test_batches_are_listed_newest_first_in_pages(client: openai.OpenAI) -> None:
    ids = [send_batch(client, request_lines(1)).id for _ in range(7)]
    page = client.batches.list(limit=3)
    assert page.has_more
    assert [batch.id for batch in page.data] == ids[:3:-1]
    assert [batch.id for batch in client.batches.list(limit=3)] == ids[::-1]


@pytest.mark.openai_server(in_progress_s=100, cancelling_s=10, speed=0)
def test_a_cancelled_batch_keeps_what_was_done(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    batch = send_batch(client, request_lines(10))
    openai_server.clock.advance(40)
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert client.batches.retrieve(batch.id).status == "cancelling"
    openai_server.clock.advance(10)
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    assert len(read_lines(client.files.content(batch.output_file_id or "").content)) == 4
    unfinished = read_lines(client.files.content(batch.error_file_id or "").content)
    assert {line["error"]["code"] for line in unfinished} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'cancelled'"):
        client.batches.cancel(batch.id)


def test_structured_output_is_parsed_by_the_client(client: openai.OpenAI) -> None:
    chat = client.chat.completions.parse(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Anna likes trees"}],
        response_format=Person,
    )
    assert isinstance(chat.choices[0].message.parsed, Person)
    response = client.responses.parse(model="gpt-5-mini", input="Anna likes trees", text_format=Person)
    assert isinstance(response.output_parsed, Person)


def test_a_tool_that_is_required_is_called(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Weather in Rome?"}],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "parameters": {
                        "type": "object",
                        "properties": {"town": {"type": "string"}},
                        "required": ["town"],
                    },
                },
            }
        ],
        tool_choice="required",
    )
    call = (chat.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments)["town"], str)


def test_moderations_and_completions_and_models_answer(client: openai.OpenAI) -> None:
    flagged = client.moderations.create(input=["I will kill you", "I like tea"]).results
    assert [result.flagged for result in flagged] == [True, False]
    assert client.completions.create(model="davinci-002", prompt="Once upon a time").choices[0].text
    assert "gpt-4o-mini" in [model.id for model in client.models.list()]


def test_the_text_of_a_response_says_when_it_is_cut_off(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="gpt-5-nano", input="word " * 50)
    assert whole.status == "completed"
    assert whole.usage is not None
    assert whole.usage.output_tokens > 16
    cut = client.responses.create(model="gpt-5-nano", input="word " * 50, max_output_tokens=16)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert len(cut.output_text) < len(whole.output_text)


async def test_the_async_client_does_the_same(openai_server: OpenAIServer) -> None:
    async with openai.AsyncOpenAI(base_url=openai_server.base_url, api_key="sk-any", max_retries=0) as client:
        file = await client.files.create(file=("in.jsonl", request_line("a")), purpose="batch")
        made = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        batch = await client.batches.retrieve(made.id)
        async with client.files.with_streaming_response.content(batch.output_file_id or "") as reply:
            content = b"".join([piece async for piece in reply.iter_bytes()])
        assert [line["custom_id"] for line in read_lines(content)] == ["a"]
        assert [batch.id async for batch in client.batches.list()] == [made.id]


def test_keys_are_checked(openai_server: OpenAIServer) -> None:
    openai_server.configure(api_keys=frozenset({"sk-right"}))
    with (
        openai.OpenAI(base_url=openai_server.base_url, api_key="sk-wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError, match="Incorrect API key") as caught,
    ):
        wrong.batches.list()
    assert caught.value.code == "invalid_api_key"
    assert "sk-wrong" not in str(caught.value)
    with openai.OpenAI(base_url=openai_server.base_url, api_key="sk-right", max_retries=0) as right:
        assert list(right.batches.list()) == []
