"""A batch from upload to answer, with the real client."""

from __future__ import annotations

import json

import openai

from airflow_openai_batch.testing import OpenAIServer


def test_a_batch_goes_from_upload_to_answers() -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Is this lovely? Yes/No"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    with OpenAIServer() as server, openai.OpenAI(base_url=server.base_url, api_key="any") as client:
        file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
        made = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"job_key": "k"},
        )
        batch = client.batches.retrieve(made.id)
        assert (made.status, batch.status) == ("validating", "completed")
        answer = json.loads(client.files.content(batch.output_file_id or "").text)
        assert answer["custom_id"] == "a"
        assert answer["response"]["body"]["choices"][0]["message"]["content"] in ("Yes", "No")
        assert server.books.good_by_custom_id == {"a": 1}
        assert server.kept_batches("k") == [batch.id]
