"""``make demo``: real texts through the DAG ``openai_batch`` of a real Airflow, to the report."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from airflow_openai_batch.costs.estimate import estimate_plan
from airflow_openai_batch.job.plan import Plan
from demo.api import AirflowApi, AirflowApiError
from demo.corpus import MAX_ANSWER_TOKENS
from demo.openai_side import OpenAISide, emulated, find_account
from demo.processes import Child, ChildFailedError, clean_environment, exit_on_signals
from demo.progress import ProgressLine
from demo.standalone import ROOT, LocalAirflow, allow_forms

REQUESTS = 20_000
TOKENS_PER_SHARD = 500_000
"""Makes five shards of the demo's two million tokens."""
DAY_S = 24 * 3600.0
SAMPLE_ROWS = 3


def main() -> int:
    options = _read_options()
    home = options.home.resolve()
    folder = (options.go_on or home / "runs" / time.strftime("%Y-%m-%dT%H-%M-%S")).resolve()
    requests, output = folder / "requests.jsonl", folder / "job"
    account = find_account()
    with exit_on_signals(), contextlib.ExitStack() as stack:
        _say(f"Starting Airflow; collecting {options.requests:,} docstrings of what is installed here")
        corpus = _start_corpus(requests, options.requests)
        stack.callback(corpus.stop)
        stand_in = stack.enter_context(emulated(home))
        target = account if account and sys.stdin.isatty() else stand_in
        if account and target is stand_in:
            print("  OPENAI_API_KEY is set, but nobody can be asked here: the emulator is used.")
        env = target.connection() | allow_forms(folder)
        airflow = stack.enter_context(LocalAirflow(home / "airflow", env=env))
        print(f"  Airflow: {airflow.url} (admin / admin)")
        _wait_for_corpus(corpus, requests)
        if not target.emulated:
            if not _agree_to_cost(airflow, requests, output):
                print("  Nothing was sent. Without OPENAI_API_KEY the demo uses the emulator.")
                return 0
            print(f"  You may stop this at any time; `make demo ARGS='--go-on {_show(folder)}'` goes on.")
        return _run(airflow, target, requests, output)


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    add = parser.add_argument
    add("--requests", type=int, default=REQUESTS, help="how many texts (default: %(default)s)")
    add("--home", type=Path, default=ROOT / ".run" / "demo", help="where everything is kept")
    add("--go-on", type=Path, metavar="FOLDER", help="an earlier run to go on with; nothing is paid twice")
    return parser.parse_args()


def _start_corpus(requests: Path, count: int) -> Child:
    """In a process of its own, since it keeps a core busy for about 15 s. What is there already is kept."""
    command = [sys.executable, "-m", "demo.corpus", str(requests), str(count)]
    env = clean_environment() | {"PYTHONPATH": str(ROOT / "include")}
    return Child("corpus", command, env=env, log=requests.with_suffix(".log"))


def _wait_for_corpus(corpus: Child, requests: Path) -> None:
    while corpus.running:
        time.sleep(0.2)
    if not requests.exists():
        corpus.check()
    with requests.open("rb") as file:
        lines = sum(1 for _ in file)
    print(f"  Requests: {_show(requests)} ({lines:,} lines, {requests.stat().st_size / 1e6:.1f} MB)")


def _job(requests: Path, output: Path) -> dict[str, object]:
    return {"input_uri": str(requests), "output_uri": str(output), "max_tokens_per_shard": TOKENS_PER_SHARD}


def _agree_to_cost(airflow: AirflowApi, requests: Path, output: Path) -> bool:
    """Plan without sending, show what it would cost at most, and ask."""
    run = airflow.trigger("openai_batch", _job(requests, output) | {"dry_run": True})
    if airflow.wait(run) != "success":
        raise AirflowApiError(f"The dry run failed:\n{airflow.logs(run, 'split')}")
    plan = Plan.from_json((output / "plan.json").read_bytes())
    estimate = estimate_plan(plan, output_tokens_per_request=MAX_ANSWER_TOKENS)
    cost = "an unknown price" if estimate.cost_usd is None else f"at most ${estimate.cost_usd:.2f}"
    print(
        f"  {plan.counts.requests:,} requests in {len(plan.shards)} shards to {plan.shards[0].model}: "
        f"{estimate.input_tokens:,} input tokens, {cost}."
    )
    return input("  Send them to OpenAI now? [y/N] ").strip().lower() in {"y", "yes"}


def _run(airflow: LocalAirflow, target: OpenAISide, requests: Path, output: Path) -> int:
    conf = _job(requests, output) | {"poll_interval": 1 if target.emulated else 60}
    run = airflow.trigger("openai_batch", conf)
    _say("Running the DAG openai_batch" + ("" if target.emulated else "; OpenAI may take up to a day"))
    print(f"  Watch it: {airflow.url}/dags/openai_batch/runs/{run.run_id}")
    state = airflow.wait(
        run, timeout_s=600 if target.emulated else 2 * DAY_S, watch=ProgressLine(airflow, run)
    )
    if state != "success":
        print(f"\n{airflow.explain(run)}", file=sys.stderr)
        return 1
    _show_results(output)
    return 0


def _show_results(output: Path) -> None:
    from pyarrow import parquet

    _say("The report")
    print((output / "report.md").read_text())
    parts = sorted((output / "results").glob("part-*.parquet"))
    _say(f"Results: {_show(output)}/results/, {len(parts)} files; some of their rows")
    columns = ["custom_id", "status", "content", "output_tokens"]
    for row in parquet.read_table(parts[0], columns=columns).slice(0, SAMPLE_ROWS).to_pylist():
        print(f"  {row['custom_id']}: {row['status']}, {row['output_tokens']} tokens: {row['content'][:120]}")
    print("\nNow look around in the UI of `make up`, or give your own JSONL to the DAG openai_batch.")


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AirflowApiError, ChildFailedError) as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
