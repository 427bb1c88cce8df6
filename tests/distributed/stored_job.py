"""A job whose input and results lie in the store, and a copy of them for the audit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.testing.replies.answers import Answers
from airflow_openai_batch.testing.requests import canonical, digest_of, estimate_tokens
from fixtures.job import Job

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore


@dataclass(slots=True)
class StoredJob(Job):
    """Its files appear below ``folder`` with `fetch`."""

    store: ObjectStore = field(kw_only=True)
    place: str = ""
    """Of the job directory in the bucket."""

    @property
    def uri(self) -> str:
        return self.store.uri(self.place)

    def send(self) -> None:
        self.store.put("in/requests.jsonl", self.input.read_bytes())

    def conf(self, **params: Any) -> dict[str, Any]:
        """Without ``output_uri``: the compose file says where results go."""
        return {
            "input_uri": self.store.uri("in/requests.jsonl"),
            "max_requests_per_shard": 20,
            "poll_interval": 1,
            "mode": "batch",
            "keep_response_body": True,
            **params,
        }

    def fetch(self) -> None:
        """Copy what is below the one directory that the run has made."""
        files = self.store.filesystem()
        (of_dag,) = files.ls(f"{self.store.bucket}/jobs")
        (found,) = files.ls(of_dag)
        self.place = found.removeprefix(f"{self.store.bucket}/")
        files.get(f"{found}/", f"{self.output}/", recursive=True)


def find_wrong_answers(job: Job) -> Iterator[str]:
    """Rows with an answer that is not the one to their request: the emulator's depends on the request alone."""
    answers = Answers(count_tokens=estimate_tokens)
    lines = [msgspec.json.decode(line) for line in job.input.read_bytes().splitlines()]
    for line, row in zip(lines, job.rows(), strict=True):
        digest = digest_of(canonical(line["body"]))
        right = answers.make(line["body"], line["url"], digest, 0.0, 0)
        got = msgspec.json.decode(row["response_body"])
        if (got["id"], row["content"]) != (right["id"], right["choices"][0]["message"]["content"]):
            yield f"row {row['position']} ({row['custom_id']}) has another request's answer"
