"""Processes of our own beside a task: what they find around them, and why one has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import airflow_openai_batch

_MAX_DIAGNOSIS_CHARACTERS = 500


def start_worker(module: str, errors: IO[bytes], files: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """``python -m module``, with pipes to and from it.

    :param errors: a file that takes what it says besides.
    :param files: descriptors that it has as well, and is told as its arguments.
    """
    return subprocess.Popen(  # noqa: S603 - a module of ours
        [sys.executable, "-m", module, *map(str, files)],
        pass_fds=files,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=_environment(),
        start_new_session=True,  # a signal meant for the task must not end a worker half-way
    )


def describe_end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """Why a process is dead that has been waited for, and what it said last."""
    code = process.wait()
    if code < 0:
        cause = f"was ended by {signal.Signals(-code).name}"
        cause += " (out of memory?)" if code == -signal.SIGKILL else ""
    else:
        cause = f"ended with exit code {code}"
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()[-_MAX_DIAGNOSIS_CHARACTERS:]
    return f"{cause}{': ' + said if said else ''}"


def _environment() -> dict[str, str]:
    """What an interpreter needs to find the same packages; no credentials of the task."""
    wanted = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "VIRTUAL_ENV", "PYTHONHOME")
    environment = {name: os.environ[name] for name in wanted if name in os.environ}
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    root = str(Path(airflow_openai_batch.__file__).resolve().parents[1])
    if Path(root).name not in ("site-packages", "dist-packages"):
        paths.insert(0, root)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # One seed for all workers: the hashes of the custom_ids that they count are compared.
    environment["PYTHONHASHSEED"] = "0"
    environment["PYTHONUTF8"] = "1"
    return environment
