"""What models and documents say stands in reports and in logs as text: on one line, with no mark-up of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.recipes.captions.caption_report import PROBLEMS, CaptionOutcome, _describe

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.airflow_runs import RunDag

EVIL = "a dog ![x](https://evil.example/?leak) [click](https://evil.example) <img src=x onerror=alert(1)> | x"
_MARKUP = re.compile(r"(?<!\\)[\[\]<>]")


def test_a_caption_is_a_text_in_the_report() -> None:
    outcome = CaptionOutcome(
        model="m", way="batch", frames=1, captions=1, seconds=1.0, cost_usd=1.0, standard_usd=2.0,
        input_tokens=1, output_tokens=1,
    )  # fmt: skip
    row = {"frame": 0, "second": 0.0, outcome.name: f"{EVIL}\n\n# Approved\n\n* m (batch): forged"}
    row[PROBLEMS] = f"m: {EVIL}"
    lines = list(_describe([outcome], iter([row])))
    assert not any("\n" in line for line in lines)
    caption, problem = (line for line in lines if "a dog" in line)
    assert not _MARKUP.search(caption)
    assert not _MARKUP.search(problem)
    assert "# Approved" in caption


@pytest.mark.usefixtures("openai_conn")
def test_a_heading_is_a_text_in_the_report_on_neighbours(run_dag: RunDag, tmp_path: Path) -> None:
    guides = tmp_path / "guides"
    guides.mkdir()
    for number in range(3):
        (guides / f"{number}.md").write_text(f"# {EVIL} {number}\n\nLet it rise.\n")
    query = f"{EVIL}\n\n# Approved"
    conf = {"documents": f"{guides}/", "output_uri": str(tmp_path / "out"), "queries": [query]}
    run = run_dag("embed_documents", {**conf, "poll_interval": 0.1, "mode": "realtime"})
    assert run.state == "success", run.failures
    report = (tmp_path / "out" / "neighbours.md").read_text()
    assert "a dog" in report
    assert not _MARKUP.search(report)
    assert "\n# Approved" not in report
