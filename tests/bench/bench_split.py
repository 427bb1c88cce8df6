"""Splitting a large input, beside gpt_batch_splitter of gpt-batch-manager 1.0.1 on the same file.

    python -m bench.bench_split [--requests 1000000] [--rounds 3] [--peer PATH]

Wall time includes the start of the interpreter; memory is the proportional share (PSS) of the process and all
its children, looked at ten times a second. The peer counts a token per four characters.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from airflow_openai_batch.job.directory import read_plan
from airflow_openai_batch.job.plan import Plan
from airflow_openai_batch.job.shard_reader import ShardReader
from airflow_openai_batch.requests.tokens import count_request_tokens
from airflow_openai_batch.storage.location import resolve_plain
from bench.table import print_table

ROOT = Path(__file__).resolve().parents[2]
PEER = "gpt-batch-manager==1.0.1"
TOKEN_LIMIT = 1_900_000
"""95% of what tier 1 allows for gpt-4o-mini."""
MAX_MEMORY_MB = 300
OURS = (
    ("exact, tiktoken", "tiktoken", TOKEN_LIMIT, 1.7),
    ("exact, toktok", "toktok", TOKEN_LIMIT, 4.0),
    ("no limit that binds", "auto", 0, 12.0),
)
"""Name, counter, token limit and how many times as fast as the peer it has to be."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one program needed."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="path of an installed gpt-batch-splitter")
    options = parser.parse_args()
    peer = options.peer or install_peer()
    with tempfile.TemporaryDirectory(prefix="bench-split-") as folder:
        measure(Path(folder), options.requests, peer, options.rounds)


def measure(folder: Path, requests: int, peer: str, rounds: int) -> None:
    source = folder / "requests.jsonl"
    write_requests(source, requests)
    size_mb = source.stat().st_size / 1e6
    theirs_folder = folder / "theirs"
    theirs_folder.mkdir()
    runs: dict[str, list[Run]] = {PEER: [], **{name: [] for name, *_ in OURS}}
    for _ in range(rounds):
        runs[PEER].append(watch([peer, str(TOKEN_LIMIT), str(source)], theirs_folder))
        for name, counter, limit, _ in OURS:
            shutil.rmtree(folder / counter, ignore_errors=True)
            command = [sys.executable, "-m", "bench.split_once", str(source), str(folder / counter)]
            runs[name].append(watch([*command, counter, str(limit)], ROOT))
    theirs = take_median(runs[PEER])
    worst = worst_peer_shard(theirs_folder)
    rows = [row("gpt_batch_splitter", theirs, theirs, size_mb, f"{worst / TOKEN_LIMIT:.0%} of the limit", "")]
    for name, counter, limit, wanted in OURS:
        run = take_median(runs[name])
        verdict = "ok" if theirs.wall_s / run.wall_s >= wanted and run.peak_mb < MAX_MEMORY_MB else "MISSED"
        shards = describe_shards(folder / counter, limit)
        rows.append(row(name, run, theirs, size_mb, shards, f"{wanted:g}x, < {MAX_MEMORY_MB} MB: {verdict}"))
    head = ["", "wall s", "CPU s", "MB/s", "ratio", "peak MB", "largest shard", "wanted"]
    title = f"Splitting {requests:,} requests, {size_mb:,.0f} MB, median of {rounds}"
    print_table(title, head, rows)


def take_median(runs: Sequence[Run]) -> Run:
    """Of each number; of memory the most."""
    return Run(
        statistics.median(run.wall_s for run in runs),
        statistics.median(run.cpu_s for run in runs),
        max(run.peak_mb for run in runs),
    )


def row(name: str, run: Run, theirs: Run, size_mb: float, shards: str, wanted: str) -> list[str]:
    ratio = f"{theirs.wall_s / run.wall_s:.1f}"
    speed = f"{size_mb / run.wall_s:.0f}"
    return [name, f"{run.wall_s:.1f}", f"{run.cpu_s:.1f}", speed, ratio, f"{run.peak_mb:.0f}", shards, wanted]


def watch(command: Sequence[str], folder: Path) -> Run:
    """Run a program and look at its memory and its children's while it runs."""
    used = cpu_s_of_children()
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.1)
    wall_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with exit code {process.returncode}")
    return Run(wall_s, cpu_s_of_children() - used, peak)


def cpu_s_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_mb(pid: int) -> float:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # it has just ended
        return 0.0
    return total / 1e6


def install_peer() -> str:
    """The peer in an environment of its own: it pins an old openai."""
    home = ROOT / ".run" / "bench-peer"
    program = home / "bin" / "gpt-batch-splitter"
    if not program.exists():
        venv.create(home, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", PEER], check=True)
    return str(program)


def write_requests(path: Path, requests: int) -> None:
    """Chat requests of about 1 KB: passages of documentation and code of the standard library, the same every time."""
    text = "\n\n".join(read_texts())
    generator = random.Random(7)
    with path.open("w") as file:
        for number in range(requests):
            start = generator.randrange(len(text) - 2_000)
            passage = text[start : start + max(100, round(generator.gauss(830, 200)))]
            file.write(json.dumps(request(f"request-{number:07d}", passage)) + "\n")


def request(custom_id: str, passage: str) -> dict[str, object]:
    messages = [
        {
            "role": "system",
            "content": "You are a careful reader. Answer in one sentence: what is this text about?",
        },
        {"role": "user", "content": passage},
    ]
    body = {"model": "gpt-4o-mini", "messages": messages, "max_tokens": 100}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def read_texts() -> Iterator[str]:
    """Every docstring of the standard library, and from every file of it as much code again."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "test", "tests", "lib2to3", "idlelib"}.intersection(path.parts):
            continue
        written = 0
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (
                doc := ast.get_docstring(node)
            ):
                written += len(doc)
                yield doc
        yield path.read_text(errors="replace")[-written:] if written else ""


def worst_peer_shard(folder: Path) -> int:
    """Tokens of the largest of its shards, as counted by tiktoken; looks at three of them."""
    shards = sorted(folder.glob("shard-*"), key=lambda path: path.stat().st_size)[-3:]
    return max(sum(count(line) for line in shard.open("rb")) for shard in shards)


def describe_shards(output: Path, limit: int) -> str:
    """The largest shard in tokens; what the splitter says of it is counted again with tiktoken."""
    place = resolve_plain(str(output))
    plan = read_plan(place)
    assert isinstance(plan, Plan)
    if not limit:
        return f"{max(shard.bytes for shard in plan.shards) / 1e6:.0f} MB"
    largest = max(plan.shards, key=lambda shard: shard.input_tokens)
    tokens = sum(
        count(line.line) for line in ShardReader(plan.sources, largest, place, resolve_plain).lines()
    )
    if tokens > limit:
        return f"{tokens:,} tokens: OVER the limit"
    return f"{tokens / limit:.1%} of the limit"


def count(line: bytes) -> int:
    parsed = json.loads(line)
    return count_request_tokens(parsed["body"], parsed["url"]).tokens


if __name__ == "__main__":
    main()
