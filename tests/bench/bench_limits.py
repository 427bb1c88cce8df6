"""What limits of time and memory cost: rows in ordinary and in unusual templates, answers against schemas.

    python -m bench.bench_limits [--rows 20000] [--rounds 5]

Ordinary templates and schemas are told from their syntax and run in the task itself; beside them the same rows in the
process with limits, where all others go. Jinja2 alone is its sandbox with the same template and none of our rules.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jinja2.sandbox

from airflow_openai_batch.requests import schema_check
from airflow_openai_batch.requests.json_schema import compile_schema
from airflow_openai_batch.tables.preparation.renderer import Renderer
from airflow_openai_batch.tables.prompts import read_prompt
from airflow_openai_batch.tables.prompts.filling_apart import FillingApart
from bench.table import print_table

TEMPLATE = "Judge {{ title }}: {{ text }} ({{ stars }})"
ROW = {"title": "Item", "text": "lorem ipsum dolor sit amet " * 8, "stars": 3}
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["mood", "tags"],
    "additionalProperties": False,
}
ANSWER = {"mood": "good", "tags": ["a", "b", "c"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_rows(options.rows, options.rounds)
    print_answers(options.rows, options.rounds)


def print_rows(rows: int, rounds: int) -> None:
    prompt = read_prompt({"name": "bench", "model": "gpt-6-luna", "user": TEMPLATE})
    renderer = Renderer(prompt, list(ROW))
    apart = FillingApart({"user": TEMPLATE}, list(ROW))
    plain = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE
    )
    numbered = [(number, ROW, None) for number in range(rows)]

    def render_plain() -> None:
        for _ in range(rows):
            plain.render(ROW)

    measured = {
        "Jinja2 alone, the text": render_plain,
        "ordinary: in the task, the whole request": lambda: drain(renderer.render_all(numbered)),
        "unusual: in the process, the text": lambda: drain(apart.fill_all(numbered)),
    }
    print_each("Templates", measured, rows, rounds)
    started_s = min(take(lambda: drain(apart.fill_all(numbered[:1]))) for _ in range(rounds))
    print(f"\nThe process starts once for a preparation, in {started_s:.2f} s; that is in the last line.")


def print_answers(rows: int, rounds: int) -> None:
    schema = json.dumps(SCHEMA).encode()
    size = len(json.dumps(ANSWER))
    check = compile_schema(SCHEMA)
    checks = schema_check.ChecksApart.here()
    measured = {
        "the engine alone": lambda: repeat(rows, lambda: check(ANSWER)),
        "ordinary: in the task": lambda: repeat(
            rows, lambda: schema_check.find_violation(schema, ANSWER, size)
        ),
        "unusual: in the process": lambda: repeat(rows, lambda: checks.check(schema, ANSWER)),
    }
    print_each("Answers against a schema", measured, rows, rounds)


def print_each(title: str, measured: dict[str, Callable[[], None]], rows: int, rounds: int) -> None:
    lines = []
    for name, work in measured.items():
        work()
        seconds = min(take(work) for _ in range(rounds))
        lines.append((name, f"{seconds / rows * 1e6:.2f}"))
    print_table(f"{title}, {rows:,} times, the best of {rounds}", ("", "µs each"), lines)


def take(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drain(found: Any) -> None:
    for _ in found:
        pass


def repeat(times: int, work: Callable[[], object]) -> None:
    for _ in range(times):
        work()


if __name__ == "__main__":
    main()
