"""``airflow-openai-batch``: looks at inputs and jobs beside Airflow, with the same core and without Airflow."""

from __future__ import annotations

import importlib.util
import sys

_NEEDED = ("rich", "typer")


def main() -> None:
    """The command; ends the process.

    0: all is well. 1: there are findings (bad lines, a job that is not done or has bad rows). 2: it cannot be done as
    asked.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"airflow-openai-batch needs {' and '.join(missing)}: "
            "pip install 'airflow-provider-openai-batch[cli]'\n"
        )
        raise SystemExit(2)
    from airflow_openai_batch.cli.app import run

    raise SystemExit(run(sys.argv[1:]))
