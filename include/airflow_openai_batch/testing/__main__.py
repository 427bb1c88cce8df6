"""``python -m airflow_openai_batch.testing --port 8080``: the emulator as a process."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from airflow_openai_batch.testing.clock import Clock
from airflow_openai_batch.testing.requests import CountTokens, estimate_tokens
from airflow_openai_batch.testing.server import OpenAIServer
from airflow_openai_batch.testing.servers.choice import RULES
from airflow_openai_batch.testing.settings import FLEX_MODELS, KNOWN_MODELS, WEBHOOK_SECRET, Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    settings = Settings(
        server=options.server,
        seed=options.seed,
        api_keys=frozenset(options.api_key) if options.api_key else None,
        models=tuple(options.model) if options.model else KNOWN_MODELS,
        flex_models=tuple(options.flex_model) if options.flex_model else FLEX_MODELS,
        processing_s=options.processing,
        validating_s=options.validating,
        in_progress_s=options.duration,
        per_request_s=options.per_request,
        finalizing_s=options.finalizing,
        queue_limits=dict(options.queue_limit),
        queue_request_limits=dict(options.queue_request_limit),
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        latency_s=options.latency,
        realtime_latency_s=options.realtime_latency,
        list_lag_s=options.list_lag,
        webhook_url=options.webhook_url,
        webhook_secret=options.webhook_secret,
    )
    server = OpenAIServer(
        host=options.host,
        port=options.port,
        data_dir=options.data_dir,
        clock=Clock(speed=options.speed),
        settings=settings,
        detailed_books=not options.no_detail,
        count_tokens=_counter(options.count_tokens),
    )
    for fault in options.script:
        server.script(**fault)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    sys.stdout.write(f"{server.base_url}\n")
    sys.stdout.flush()
    ended.wait()
    server.stop()
    return 0


def _counter(name: str) -> CountTokens:
    if name == "estimate":
        return estimate_tokens
    from airflow_openai_batch.testing.exact_tokens import count_exact_tokens  # loads tiktoken

    return count_exact_tokens


def _limit(text: str) -> tuple[str, int]:
    model, _, number = text.rpartition("=")
    if not model:
        raise argparse.ArgumentTypeError(f"{text}: write MODEL=NUMBER, for instance gpt-6-luna=2000000.")
    return model, int(number.replace("_", "").replace(",", ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_openai_batch.testing",
        description="An OpenAI-compatible server for tests and demos. Prints its base URL when it answers.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8080, help="0 takes a free one")
    add("--data-dir", type=Path, help="where files lie; a temporary directory by default")
    add("--server", choices=tuple(RULES), default="openai", help="whose API is played")
    add("--processing", type=float, default=0.0, metavar="S", help="seconds until a file is processed")
    add("--seed", type=int, default=0)
    add("--speed", type=float, default=1.0, help="emulator seconds per real second; 0 stands still")
    add("--validating", type=float, default=0.0, metavar="S", help="seconds a batch is validating")
    add("--duration", type=float, default=0.0, metavar="S", help="seconds a batch is in progress")
    add("--per-request", type=float, default=0.0, metavar="S", help="added for each request of a batch")
    add("--finalizing", type=float, default=0.0, metavar="S", help="seconds a batch is finalizing")
    add("--queue-limit", type=_limit, action="append", default=[], metavar="MODEL=TOKENS")
    add("--queue-request-limit", type=_limit, action="append", default=[], metavar="MODEL=REQUESTS")
    add("--requests-per-minute", type=int, help="limit of real-time calls, per model")
    add("--tokens-per-minute", type=int)
    add("--latency", type=float, default=0.0, metavar="S", help="real seconds that every call takes")
    add("--realtime-latency", type=float, default=0.0, metavar="S", help="on top for calls of a model")
    add(
        "--list-lag",
        type=float,
        default=0.0,
        metavar="S",
        help="new batches are missing from lists for so long",
    )
    add("--webhook-url", metavar="URL", help="where batch events are sent")
    add(
        "--webhook-secret",
        default=WEBHOOK_SECRET,
        metavar="SECRET",
        help="what they are signed with (%(default)s)",
    )
    add("--api-key", action="append", help="a key that is taken; any is by default")
    add("--model", action="append", help="pattern of a model name that is taken; OpenAI's by default")
    add("--flex-model", action="append", help="pattern of a model that has a flex tier; OpenAI's by default")
    add(
        "--count-tokens",
        choices=("estimate", "exact"),
        default="estimate",
        help="exact: as the splitter does",
    )
    add(
        "--script",
        type=json.loads,
        action="append",
        default=[],
        metavar="JSON",
        help="a fault, as script() takes it",
    )
    add("--no-detail", action="store_true", help="no counters by request in the books")
    return parser


if __name__ == "__main__":
    sys.exit(main())
