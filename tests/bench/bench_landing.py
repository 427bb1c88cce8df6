"""Landing: from OpenAI's output file to Parquet, one row per request in input order.

    python -m bench.bench_landing [--answers 50000] [--rounds 9]

Beside it what a script does without this package: every line into a dict, the table in memory, written at
once (and not reconciled, checked or priced). Each measurement is a process of its own; peaks are its RSS.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.table import print_table

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
DIMENSIONS = 1_536
EMBEDDINGS_ROUNDS = 3
PEAK_LIMIT_MB = 300
FLOOR_MB_PER_S = 20
TIMES_AS_FAST = 1.5
"""As dicts, in CPU time, on a machine that is not quiet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "FOLDER", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, folder, url = options.child
        print(json.dumps(measure(way, Path(folder), options.answers, url)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-landing-") as name:
        folder = Path(name)
        with serve(folder) as url:
            compare_chat(folder, url, options.answers, options.rounds)
            show_embeddings(folder, url, options.answers)


def compare_chat(folder: Path, url: str, answers: int, rounds: int) -> None:
    write_requests(folder, answers, CHAT, {"messages": [{"role": "user", "content": "Say something. " * 20}]})
    write_chat_answers(folder, answers)
    size_mb = (folder / "output.jsonl").stat().st_size / 1e6
    ways = {
        "dicts and one table in memory": "naive",
        "this package": "landing",
        "this package, download included": "download",
    }
    found: dict[str, list[dict[str, float]]] = {title: [] for title in ways}
    for _ in range(rounds):  # half a second each: what the machine does besides must meet all of them
        for title, way in ways.items():
            found[title].append(run(way, folder, answers, url))
    seconds = {title: statistics.median(run["seconds"] for run in runs) for title, runs in found.items()}
    cpu = {title: statistics.median(run["cpu"] for run in runs) for title, runs in found.items()}
    peaks = {title: max(run["peak_mb"] for run in runs) for title, runs in found.items()}
    slowest = seconds["dicts and one table in memory"]
    rows = [
        [
            title,
            f"{s:.2f}",
            f"{cpu[title]:.2f}",
            f"{size_mb / s:.1f}",
            f"{slowest / s:.2f}",
            f"{peaks[title]:,.0f}",
        ]
        for title, s in seconds.items()
    ]
    title = f"Landing {answers:,} answers, {size_mb:.0f} MB, median of {rounds}"
    print_table(title, ["", "s", "CPU s", "MB/s", "times as fast", "peak MB"], rows)
    times = cpu["dicts and one table in memory"] / cpu["this package"]
    verdict = "yes" if times >= TIMES_AS_FAST else "NO"
    print(f"\nat least {TIMES_AS_FAST} times as fast as dicts in CPU time: {verdict} ({times:.2f})")
    ours = "this package, download included"
    judge(size_mb / seconds[ours], peaks[ours])


def show_embeddings(folder: Path, url: str, answers: int) -> None:
    write_requests(folder, answers, EMBEDDINGS, {"input": "Some text."})
    write_embeddings(folder, answers)
    size_mb = (folder / "output.jsonl").stat().st_size / 1e6
    found = [run("embeddings", folder, answers, url) for _ in range(EMBEDDINGS_ROUNDS)]
    seconds = statistics.median(each["seconds"] for each in found)
    peak_mb = max(each["peak_mb"] for each in found)
    row = ["this package", f"{seconds:.1f}", f"{size_mb / seconds:.1f}", f"{peak_mb:,.0f}"]
    title = (
        f"Landing {answers:,} embeddings of {DIMENSIONS:,} numbers, {size_mb:,.0f} MB, "
        f"median of {EMBEDDINGS_ROUNDS}"
    )
    print_table(title, ["", "s", "MB/s", "peak MB"], [row])
    judge(size_mb / seconds, peak_mb)


def judge(mb_per_s: float, peak_mb: float) -> None:
    verdict = "yes" if mb_per_s >= FLOOR_MB_PER_S and peak_mb <= PEAK_LIMIT_MB else "NO"
    print(f"\nat least {FLOOR_MB_PER_S} MB/s under {PEAK_LIMIT_MB} MB: {verdict}")


def run(way: str, folder: Path, answers: int, url: str) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "bench.bench_landing",
        "--answers",
        str(answers),
        "--child",
        way,
        str(folder),
        url,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(way: str, folder: Path, answers: int, url: str) -> dict[str, float]:
    preload(way)
    began, cpu_began = time.perf_counter(), time.process_time()
    CHILDREN[way](folder, answers, url)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def preload(way: str) -> None:
    """Imports are paid once per process, whatever the number of answers."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    if way == "naive":
        return
    if way == "download":
        import openai.resources.files  # noqa: F401 - imported by the client at its first use

        from airflow_openai_batch.openai_api import client  # noqa: F401
    from airflow_openai_batch.openai_api.prices import estimate_cost
    from airflow_openai_batch.results import landing  # noqa: F401
    from airflow_openai_batch.storage.location import resolve_plain

    resolve_plain(".")
    pa.array(np.zeros(1))
    estimate_cost("gpt-4o-mini", CHAT, 1, 1)


def land(folder: Path, answers: int, _url: str, *, endpoint: str = CHAT, raw: str = "output.jsonl") -> None:
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.results.landing import land_shard
    from airflow_openai_batch.results.media_files import MediaWriter
    from airflow_openai_batch.results.outcome import OutcomeRules
    from airflow_openai_batch.results.raw_index import SendFiles
    from airflow_openai_batch.storage.location import resolve_plain

    def lines() -> Iterator[RequestLine]:
        with (folder / "requests.jsonl").open("rb") as file:
            for position, line in enumerate(file):
                yield RequestLine(position, "requests.jsonl", position + 1, line.rstrip(b"\n"))

    shard = Shard(
        shard=0,
        model="text-embedding-3-small" if endpoint == EMBEDDINGS else "gpt-4o-mini",
        endpoint=endpoint,
        requests=answers,
        bytes=1,
        input_tokens=1,
        sha256="",
        first_position=0,
    )
    send = SendFiles(
        send=1,
        sent_as="batch",
        batch_id="batch_1",
        completed_at=1.79e9,
        files=(resolve_plain(str(folder / raw)),),
    )
    part = resolve_plain(str(folder / "part-00000.parquet"))
    landed = land_shard(lines(), [send], part, media=MediaWriter(part, 0), shard=shard, rules=OutcomeRules())
    if landed.rows != {"ok": answers}:
        raise SystemExit(f"not all answers landed: {landed.rows}")


def download_and_land(folder: Path, answers: int, url: str) -> None:
    from openai import OpenAI

    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.storage.location import resolve_plain

    with OpenAI(base_url=url, api_key="sk-bench") as sdk:
        BatchClient(sdk).download("file-output", resolve_plain(str(folder / "downloaded.jsonl")))
    land(folder, answers, url, raw="downloaded.jsonl")


def land_naively(folder: Path, _answers: int, _url: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    answers = {}
    with (folder / "output.jsonl").open() as file:
        for line in file:
            found = json.loads(line)
            answers[found["custom_id"]] = found
    rows = []
    with (folder / "requests.jsonl").open() as file:
        for line in file:
            custom_id = json.loads(line)["custom_id"]
            response = answers[custom_id]["response"]
            body = response["body"]
            rows.append(
                {
                    "custom_id": custom_id,
                    "status_code": response["status_code"],
                    "content": body["choices"][0]["message"]["content"],
                    "finish_reason": body["choices"][0]["finish_reason"],
                    "model": body["model"],
                    "input_tokens": body["usage"]["prompt_tokens"],
                    "output_tokens": body["usage"]["completion_tokens"],
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), folder / "naive.parquet", compression="zstd")


CHILDREN: dict[str, Callable[[Path, int, str], None]] = {
    "landing": land,
    "download": download_and_land,
    "naive": land_naively,
    "embeddings": functools.partial(land, endpoint=EMBEDDINGS),
}


def write_requests(folder: Path, answers: int, endpoint: str, body: dict[str, object]) -> None:
    with (folder / "requests.jsonl").open("w") as file:
        for number in range(answers):
            line = {"custom_id": f"request-{number}", "method": "POST", "url": endpoint, "body": body}
            file.write(json.dumps(line) + "\n")


def write_chat_answers(folder: Path, answers: int) -> None:
    """About 1 KB each, in any order."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(5_000)]
    order = list(range(answers))
    rng.shuffle(order)
    usage = {"prompt_tokens": 80, "completion_tokens": 90, "prompt_tokens_details": {"cached_tokens": 0}}
    with (folder / "output.jsonl").open("w") as file:
        for number in order:
            message = {"role": "assistant", "content": " ".join(rng.choices(words, k=80)), "refusal": None}
            body = {
                "id": f"chatcmpl-{number}",
                "object": "chat.completion",
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": usage,
            }
            file.write(json.dumps(to_line(number, body)) + "\n")


def write_embeddings(folder: Path, answers: int) -> None:
    """20 digits a number, as OpenAI writes them; a few vectors over and over, since making them takes longest."""
    rng = random.Random(7)
    vectors = [json.dumps([rng.uniform(-0.1, 0.1) for _ in range(DIMENSIONS)]) for _ in range(50)]
    with (folder / "output.jsonl").open("w") as file:
        for number in range(answers):
            data = [{"object": "embedding", "index": 0, "embedding": "VECTOR"}]
            body = {
                "data": data,
                "model": "text-embedding-3-small",
                "usage": {"prompt_tokens": 5, "total_tokens": 5},
            }
            file.write(json.dumps(to_line(number, body)).replace('"VECTOR"', vectors[number % 50]) + "\n")


def to_line(number: int, body: dict[str, object]) -> dict[str, object]:
    response = {"status_code": 200, "request_id": f"req_{number:032x}", "body": body}
    return {
        "id": f"batch_req_{number}",
        "custom_id": f"request-{number}",
        "response": response,
        "error": None,
    }


class serve:
    """The output file over HTTP on 127.0.0.1, as the Files API would give it: its object, and its content."""

    def __init__(self, folder: Path) -> None:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/content"):
                    super().do_GET()
                    return
                size = (folder / "output.jsonl").stat().st_size
                found = {"id": "file-output", "object": "file", "purpose": "batch_output", "bytes": size}
                body = json.dumps(found | {"created_at": 1, "filename": "output.jsonl"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def translate_path(self, path: str) -> str:
                return str(folder / "output.jsonl")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    main()
