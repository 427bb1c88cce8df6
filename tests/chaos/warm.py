"""A process that has imported all of Airflow and forks its components: what it has, they need not make again.

A component that starts by itself spends 5 seconds of CPU on importing, and the API server and each triggerer 10 more
on the API that tasks talk to, at the first question. Under a killer that is most of what a storm would cost.

It reads one line of JSON for each component, ``{"argv": [...], "log": path}``, and answers with the process id.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import signal
import sys
import threading
from pathlib import Path
from typing import Any

MODULES = (
    "airflow.__main__",
    "airflow_openai_batch.warm",
    "airflow.cli.commands.api_server_command",
    "airflow.cli.commands.dag_processor_command",
    "airflow.cli.commands.db_command",
    "airflow.cli.commands.scheduler_command",
    "airflow.cli.commands.triggerer_command",
    "airflow.dag_processing.manager",
    "airflow.executors.local_executor",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.providers.openai.hooks.openai",
    "airflow.providers.standard.triggers.temporal",
    "airflow.utils.db",
    "psycopg2",
)
IN_API_SERVER = {"_AIRFLOW_PROCESS_CONTEXT": "server"}
"""What the API server's module puts into the environment when it is imported; meant for no other component."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    warm_up()
    _say("warm")
    for line in sys.stdin:
        _say(str(start(**json.loads(line))))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def warm_up() -> None:
    """Import what any component needs, and build the API that they talk through."""
    for name in MODULES:
        importlib.import_module(name)
    sys.modules["airflow_openai_batch.warm"].warm_up()
    for path in Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).glob("*.py"):
        runpy.run_path(str(path))
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from airflow.jobs import triggerer_job_runner

    api = InProcessExecutionAPI()
    api.app._cadwyn_initialize()
    triggerer_job_runner.in_process_api_server = lambda: api
    served = importlib.import_module("airflow.api_fastapi.main")
    for route in served.app.routes:
        if getattr(route, "path", "") == "/execution":
            route.app._cadwyn_initialize()
    for name in IN_API_SERVER:
        os.environ.pop(name, None)
    from airflow import settings

    if settings.engine is not None:
        settings.engine.dispose()  # a connection must not be shared
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise RuntimeError(f"threads that no fork would have: {others}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    gc.freeze()


def start(argv: list[str], log: str) -> int:
    """Fork a component that is what ``python -m <argv>`` would be, in a session of its own."""
    ours = os.getpid()
    if (pid := os.fork()) != 0:
        return pid
    code = 1
    try:
        _become(log, ours)
        code = _run(argv)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(log: str, parent: int) -> None:
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null, output = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644),
    )
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)
    random.seed()


def _run(argv: list[str]) -> Any:
    from setproctitle import setproctitle

    module, *arguments = argv
    setproctitle(" ".join(["airflow", *arguments]))
    if "api-server" in arguments:
        os.environ |= IN_API_SERVER
    if module == "airflow":
        sys.argv = ["airflow", *arguments]
        return sys.modules["airflow.__main__"].main()
    sys.argv = [module, *arguments]
    return runpy.run_module(module, run_name="__main__", alter_sys=False) and 0


if __name__ == "__main__":
    main()
