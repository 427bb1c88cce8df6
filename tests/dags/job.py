"""A job as a test sees it: its input, its DAG run's parameters, and what it left in its directory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def chat_line(custom_id: str, text: str = "Good?", *, model: str = "gpt-4o-mini", **body: Any) -> str:
    """One request in the Batch API's input format."""
    messages = [{"role": "user", "content": text}]
    return json.dumps(
        {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": messages, **body},
        }
    )


@dataclass(slots=True)
class Job:
    """Input and output of one job below a folder of the test's own."""

    folder: Path
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def input(self) -> Path:
        return self.folder / "in" / "requests.jsonl"

    @property
    def output(self) -> Path:
        return self.folder / "job"

    def write(self, lines: Iterable[str]) -> Job:
        self.input.parent.mkdir(exist_ok=True, parents=True)
        self.input.write_text("".join(f"{line}\n" for line in lines))
        return self

    def conf(self, **params: Any) -> dict[str, Any]:
        """Parameters for a run; three requests a shard, and quick polls."""
        return {
            "input_uri": str(self.input),
            "output_uri": f"file://{self.output}",
            "max_requests_per_shard": 3,
            "poll_interval": 0.1,
            **self.params,
            **params,
        }

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order of parts and rows."""
        parts = sorted((self.output / "results").glob("part-*.parquet"))
        return [row for part in parts for row in pq.read_table(part).to_pylist()]

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "report.json").read_text())
        return found

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / name).read_text().splitlines()]
