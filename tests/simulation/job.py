"""The input and its plan: the same for every simulation of that size, and so made once."""

from __future__ import annotations

import functools
import json
from typing import Any

from airflow_openai_batch.job.directory import read_plan
from airflow_openai_batch.job.plan import Plan, ShardLimits
from airflow_openai_batch.planning.split import Counting, split_job
from airflow_openai_batch.testing.clock import Clock
from airflow_openai_batch.testing.emulator import Emulator
from simulation.disk import Objects, locate
from simulation.scenario import MAX_OUTPUT_TOKENS, MODEL, SCHEMA_EACH, Scenario
from simulation.world import START, Process, World

INPUT = "sim://bucket/in/requests.jsonl"
OUTPUT = "sim://bucket/job"
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}},
    "required": ["label"],
    "additionalProperties": False,
}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": SCHEMA}}


def make_body(number: int) -> dict[str, Any]:
    """No two bodies are equal, so that the books tell them apart; each third asks for a schema."""
    body: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": MAX_OUTPUT_TOKENS,
        "messages": [{"role": "user", "content": f"Say something of thing {number}."}],
    }
    return body | {"response_format": _FORMAT} if number % SCHEMA_EACH == SCHEMA_EACH - 1 else body


def make_lines(requests: int) -> bytes:
    """The input: request ``n`` is called ``r-n``."""
    lines = (
        {"custom_id": f"r-{n}", "method": "POST", "url": "/v1/chat/completions", "body": make_body(n)}
        for n in range(requests)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@functools.lru_cache
def plan_job(requests: int, max_requests_per_shard: int) -> dict[str, bytes]:
    """The objects that a split leaves behind, its input included."""
    objects: Objects = {INPUT.removeprefix("sim://"): make_lines(requests)}
    process = Process(World(Scenario(seed=0)), "split")
    split_job(
        INPUT,
        locate(objects, process, OUTPUT),
        resolve=functools.partial(locate, objects, process),
        limits=ShardLimits(max_requests=max_requests_per_shard),
        counting=Counting(workers=0),
        now=START,
    )
    return objects


@functools.lru_cache
def read_planned(requests: int, max_requests_per_shard: int) -> Plan:
    """What that split wrote down."""
    objects = plan_job(requests, max_requests_per_shard)
    plan = read_plan(locate(objects, Process(World(Scenario(seed=0)), "split"), OUTPUT))
    assert plan is not None
    return plan


@functools.lru_cache
def expect_content(number: int) -> str:
    """What the emulator answers to request ``number``, whenever and however it is asked."""
    body, _ = Emulator(clock=Clock(0, START)).call("/v1/chat/completions", make_body(number))
    content: str = body["choices"][0]["message"]["content"]
    return content
