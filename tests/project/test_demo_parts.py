"""The parts of the demo: real texts, processes that leave nothing behind, progress."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.corpus import read_docstrings, write_requests
from demo.processes import Child, ChildFailedError, free_port, sole_user, wait_for_port
from demo.progress import describe_states
from demo.shell import write_shell_environment

INCLUDE = Path(__file__).resolve().parents[2] / "include"
LONG = "A text that is long enough to be worth a summary by anybody at all."


def test_docstrings_come_once_and_under_names_of_their_own(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(f'"""{LONG}"""\n')
    (tmp_path / "pack" / "b.py").write_text(
        f'def f():\n    """{LONG} One."""\n\ndef f():\n    """{LONG} Two."""\n\n'
        f'class C:\n    def m(self):\n        """{LONG} One."""\n    def n(self):\n        """Too short."""\n'
    )
    (tmp_path / "pack" / "broken.py").write_text("def (:\n")
    found = [(docstring.name, docstring.text) for docstring in read_docstrings([tmp_path])]
    assert found == [("pack", LONG), ("pack.b:f", f"{LONG} One."), ("pack.b:f#2", f"{LONG} Two.")]


def test_requests_are_what_the_batch_api_takes(tmp_path):
    path = tmp_path / "requests.jsonl"
    assert write_requests(path, 300) == 300
    requests = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({request["custom_id"] for request in requests}) == 300
    for request in requests:
        assert set(request) == {"custom_id", "method", "url", "body"}
        assert request["body"]["messages"][-1]["content"]


FAMILY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()  # a grandchild that left the group
    time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""


def start_family(tmp_path: Path) -> tuple[Child, list[psutil.Process]]:
    child = Child("family", [sys.executable, "-c", FAMILY], env={}, log=tmp_path / "family.log")
    deadline = time.monotonic() + 20
    while "ready" not in child.tail() and time.monotonic() < deadline:
        time.sleep(0.02)
    return child, [psutil.Process(child.pid), *child.descendants()]


def test_stopping_a_child_ends_everything_it_started(tmp_path):
    child, family = start_family(tmp_path)
    assert len(family) == 2
    child.stop()
    psutil.wait_procs(family, timeout=10)
    assert not [process for process in family if process.is_running()]
    child.stop()  # the second time is harmless


def test_a_preferred_port_belongs_to_whoever_asked_first():
    """What will listen there may take minutes to start; whoever came next would be taken for it."""
    wanted = free_port()
    ask = "import sys; from demo.processes import free_port; print(free_port(int(sys.argv[1])))"
    assert free_port(wanted) == wanted
    other = subprocess.run(
        [sys.executable, "-c", ask, str(wanted)], capture_output=True, check=True, text=True
    )
    assert int(other.stdout) != wanted


def test_a_child_that_ends_early_is_explained_by_its_log(tmp_path):
    command = [sys.executable, "-c", "import sys; print('no such port', flush=True); sys.exit(3)"]
    child = Child("server", command, env={}, log=tmp_path / "server.log")
    with pytest.raises(ChildFailedError, match=r"server ended with code 3(.|\n)*no such port"):
        wait_for_port(child, free_port())
    child.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_launcher_leaves_no_process_behind(tmp_path, number):
    code = """
import sys, time, pathlib
from demo.processes import Child, exit_on_signals
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
with exit_on_signals():
    child = Child("sleeper", sleep, env={}, log=pathlib.Path(sys.argv[1]))
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    finally:
        child.stop()
"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        env={"PYTHONPATH": str(INCLUDE), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with launcher:
        sleeper = psutil.Process(int(launcher.stdout.readline()))
        launcher.send_signal(number)
        launcher.wait(20)
    deadline = time.monotonic() + 45
    while has_life(sleeper) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not has_life(sleeper)


def has_life(process: psutil.Process) -> bool:
    """An orphan may stay a zombie for as long as the machine's first process likes."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_folder_is_kept_for_one_start_at_a_time(tmp_path):
    with sole_user(tmp_path), pytest.raises(ChildFailedError, match="is in use"), sole_user(tmp_path):
        pass
    with sole_user(tmp_path):
        pass


def test_progress_counts_what_is_done_and_names_what_failed():
    states = {
        ("split", -1): "success",
        ("shard.upload", 0): "success",
        ("shard.upload", 1): "failed",
        ("shard.create", 0): "running",
        ("shard.create", 1): "upstream_failed",
        ("publish", -1): "none",
    }
    assert describe_states(states) == "split ✓ upload 1/2 (1 failed) create 0/2 (1 failed)"


def test_another_shell_gets_the_environment_of_make_up_and_none_of_its_secrets(tmp_path):
    (tmp_path / "secrets.json").write_text(json.dumps({"fernet_key": "f" * 44, "jwt_secret": "j" * 64}))
    env = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW_CONN_OPENAI_DEFAULT": '{"password": "it\'s"}',
        "AIRFLOW__CORE__FERNET_KEY": "f" * 44,
        "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
        "AIRFLOW__API__SECRET_KEY": "s" * 44,
        "UNRELATED": "x",
    }
    write_shell_environment(tmp_path / "env", env, secrets=tmp_path / "secrets.json")
    text = (tmp_path / "env").read_text()
    assert not [secret for secret in ("f" * 44, "j" * 64, "s" * 44, "UNRELATED") if secret in text]
    script = 'source "$0"; echo "$AIRFLOW_CONN_OPENAI_DEFAULT"; eval "$AIRFLOW__CORE__FERNET_KEY_CMD"; which airflow'
    done = subprocess.run(
        ["bash", "-c", script, str(tmp_path / "env")],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        '{"password": "it\'s"}',
        "f" * 44,
        str(Path(sys.executable).parent / "airflow"),
    ]
