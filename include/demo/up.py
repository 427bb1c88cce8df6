"""``make up``: Airflow with its UI on this machine, the emulated OpenAI beside it, until Ctrl-C."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from demo.corpus import write_requests
from demo.openai_side import emulated
from demo.processes import ChildFailedError, exit_on_signals, free_port
from demo.standalone import ROOT, LocalAirflow

HOME = ROOT / ".run" / "up"
SAMPLE_REQUESTS = 500
UI_PORT = 8080
EMULATOR_PORT = 8000


def main(home: Path = HOME) -> None:
    """Start everything, say how to use it, and keep watch until a signal comes."""
    with exit_on_signals(), contextlib.ExitStack() as stack:
        print("Starting Airflow, half a minute ...", flush=True)
        openai = stack.enter_context(emulated(home, port=free_port(EMULATOR_PORT), batch_s=20))
        env = openai.connection() | {"AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT": f"file://{home}/jobs"}
        sample = home / "requests.jsonl"
        if not sample.exists():  # a new one would be a changed input to the jobs that are there
            write_requests(sample, SAMPLE_REQUESTS)
        airflow = stack.enter_context(LocalAirflow(home / "airflow", env=env, port=free_port(UI_PORT)))
        print(
            f"""
Airflow    {airflow.url}/dags/openai_batch   (login admin / admin)
OpenAI     {openai.url}   (emulated; connection openai_default leads there)
Sample     {sample}   ({SAMPLE_REQUESTS} requests; give it as input_uri in the form of "Trigger")
Results    {home}/jobs/<run id>/
Logs       {airflow.home}/components/

Changes in dags/ show within seconds, changes in include/ after a restart.
Ctrl-C stops everything; the next `make up` goes on with the same database.""",
            flush=True,
        )
        while True:
            time.sleep(1)
            airflow.check()


if __name__ == "__main__":
    try:
        main()
    except ChildFailedError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        print("\nStopped.")
