"""``make up``: Airflow with its UI on this machine, the emulated OpenAI beside it, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from pathlib import Path

from demo.corpus import write_requests
from demo.openai_side import OpenAISide, emulated
from demo.processes import ChildFailedError, exit_on_signals, free_port
from demo.shell import write_shell_environment
from demo.standalone import ROOT, LocalAirflow

HOME = ROOT / ".run" / "up"
SAMPLE_REQUESTS = 500
UI_PORT = 8080
_INPUT_ROOT = "AIRFLOW__OPENAI_BATCH__INPUT_ROOT"
EMULATOR_PORT = 8000
POLL_INTERVAL_S = 5
"""The emulator's batches take 22 s; the DAG's own default, a minute, is for OpenAI's hours."""
EMULATOR_FORGETS = """
The emulator keeps its files and batches in memory: those of an earlier start are gone. A run that was waiting for
one of them finds it missing and sends it again; should it stop with an error, clear the red task or trigger it anew."""


def main(home: Path = HOME) -> None:
    """Start everything, say how to use it, and keep watch until a signal comes."""
    with exit_on_signals(), contextlib.ExitStack() as stack:
        print("Starting Airflow, half a minute ...", flush=True)
        openai = stack.enter_context(emulated(home, port=free_port(EMULATOR_PORT), batch_s=20))
        sample, inputs = home / "requests.jsonl", home / "inputs"
        inputs.mkdir(parents=True, exist_ok=True)
        env = openai.connection() | {
            # What a form may name: this sample, what is put into a folder for it, and what jobs wrote.
            _INPUT_ROOT: _join_roots(f"file://{sample}, file://{inputs}", os.environ.get(_INPUT_ROOT, "")),
            "AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT": f"file://{home}/jobs",
        }
        if not sample.exists():  # a new one would be a changed input to the jobs that are there
            write_requests(sample, SAMPLE_REQUESTS)
        is_old = (home / "airflow" / "airflow.db").exists()
        airflow = stack.enter_context(LocalAirflow(home / "airflow", env=env, port=free_port(UI_PORT)))
        write_shell_environment(home / "env", airflow.environment(), secrets=airflow.home / "secrets.json")
        print(_describe(home, sample, airflow, openai), flush=True)
        if is_old:
            print(EMULATOR_FORGETS, flush=True)
        while True:
            time.sleep(1)
            airflow.check()


def _join_roots(*lists: str) -> str:
    """What the shell says comes on top: an error that refuses an input names this variable."""
    roots = (root.strip() for roots in lists for root in roots.split(","))
    return ", ".join(dict.fromkeys(filter(None, roots)))


def _describe(home: Path, sample: Path, airflow: LocalAirflow, openai: OpenAISide) -> str:
    conf = {
        "input_uri": str(sample),
        "output_uri": f"file://{home}/jobs/first",
        "poll_interval": POLL_INTERVAL_S,
    }
    return f"""
Airflow    {airflow.url}/dags/openai_batch   (login admin / admin)
OpenAI     {openai.url}   (emulated; connection openai_default leads there)
Sample     {sample}   ({SAMPLE_REQUESTS} requests; give it as input_uri in the form of "Trigger")
Inputs     {home}/inputs/   (forms may name files of yours that you put here; to name others,
           start with {_INPUT_ROOT}=/your/folder)
Results    {home}/jobs/<DAG id>/<run id>/
Logs       {airflow.home}/components/

To use this environment in another shell, and to run the sample from there:
  source {_show(home / "env")}
  airflow dags trigger openai_batch --conf {shlex.quote(json.dumps(conf))}

Changes in dags/ show within seconds, changes in include/ after a restart.
Ctrl-C stops everything; the next `make up` goes on with the same database."""


def _show(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    try:
        main()
    except ChildFailedError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        print("\nStopped.")
