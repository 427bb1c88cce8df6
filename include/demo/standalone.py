"""A real Airflow on this machine: scheduler, triggerer, DAG processor and API server, on SQLite.

The four are started one by one instead of by ``airflow standalone``, which opens log servers on all
network interfaces and leaves its children behind when it is terminated.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.api import AirflowApi
from demo.processes import Child, ChildFailedError, clean_environment, free_port, sole_user, stop_all

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ("scheduler", "triggerer", "dag_processor", "metadatabase")
START_TIMEOUT_S = 600.0
"""Half a minute is usual; a busy machine takes several."""
STILL_WAITING_S = 30.0
"""Healthy after 20 to 45 s on two cores; a busy machine may need longer."""


def allow_forms(folder: Path) -> dict[str, str]:
    """Settings by which a form may name inputs and outputs below a folder."""
    return {
        "AIRFLOW__OPENAI_BATCH__INPUT_ROOT": f"file://{folder}",
        "AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS": f"file://{folder}",
    }


class LocalAirflow(AirflowApi):
    """Starts on entering the ``with`` block and is gone without a trace of a process after it.

    :param home: where database, logs and secrets lie; what was there before is gone on with.
    :param dags: the DAG folder.
    :param env: settings and connections to add, for instance ``AIRFLOW_CONN_OPENAI_DEFAULT``.
    :param parallelism: tasks at the same time. SQLite collapses ("database is locked") above 8.
    :param port: of API and UI on 127.0.0.1; 0 takes a free one.
    :param triggerers: how many triggerers.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path = ROOT / "dags",
        env: Mapping[str, str] | None = None,
        parallelism: int = 4,
        port: int = 0,
        triggerers: int = 1,
    ) -> None:
        self.home = home.resolve()
        self.dags = dags.resolve()
        self.parallelism = parallelism
        self.port = port or free_port()
        self.triggerers = triggerers
        self._extra = dict(env or {})
        self._kept = contextlib.ExitStack()
        self.children: list[Child] = []
        super().__init__(f"http://127.0.0.1:{self.port}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Create or migrate the database, start everything and wait until all are healthy.

        :raises ChildFailedError: if a component ends or is not healthy in time, with the end of its log.
        """
        self._kept.enter_context(sole_user(self.home))
        env = self.environment()
        self._migrate(env)
        for name in self.commands():
            self.children.append(self._start_component(name))
        self._wait_until_healthy(timeout_s)

    def commands(self) -> dict[str, list[str]]:
        """What each component is started with, after ``python -m``."""
        serve = ["airflow", "api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        names = ["triggerer", *(f"triggerer-{n}" for n in range(2, self.triggerers + 1))]
        return {
            "scheduler": ["airflow_openai_batch.warm", "scheduler", "--skip-serve-logs"],
            **{name: ["airflow", "triggerer", "--skip-serve-logs"] for name in names},
            "dag-processor": ["airflow_openai_batch.warm", "dag-processor"],
            "api-server": serve,
        }

    def _start_component(self, name: str) -> Child:
        command = [sys.executable, "-m", *self.commands()[name]]
        return Child(name, command, env=self.environment(), log=self.home / "components" / f"{name}.log")

    def component(self, name: str) -> Child:
        return next(child for child in self.children if child.name == name)

    def restart(self, name: str) -> None:
        """Start a component that has ended, as an init system does; its log is gone on with."""
        ended = self.component(name)
        ended.close()
        self.children[self.children.index(ended)] = self._start_component(name)

    def stop(self) -> None:
        """End all components and every process they started."""
        self.close()
        children, self.children = self.children, []
        stop_all(children)
        self._kept.close()

    def check(self) -> None:
        """:raises ChildFailedError: if a component has ended."""
        for child in self.children:
            child.check()

    def environment(self) -> dict[str, str]:
        """The environment of every component; what `python -m airflow` needs to reach this Airflow."""
        keys = self._secrets()
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({"admin": "admin"}))
        settings = {
            "CORE__DAGS_FOLDER": self.dags,
            "CORE__PLUGINS_FOLDER": ROOT / "plugins",
            "CORE__LOAD_EXAMPLES": False,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__PARALLELISM": self.parallelism,
            "CORE__MAX_ACTIVE_TASKS_PER_DAG": max(self.parallelism, 16),
            "CORE__MAX_MAP_LENGTH": 20_000,
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "CORE__FERNET_KEY": keys["fernet_key"],
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "LOGGING__BASE_LOG_FOLDER": self.home / "logs",
            "LOGGING__COLORED_CONSOLE_LOG": False,
            "API__HOST": "127.0.0.1",
            "API__PORT": self.port,
            "API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "API__SECRET_KEY": keys["secret_key"],
            "API_AUTH__JWT_SECRET": keys["jwt_secret"],
            # New and changed DAG files are seen within seconds, and unchanged ones do not eat a core.
            "DAG_PROCESSOR__REFRESH_INTERVAL": 5,
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 60,
            # A worker that lingers after deferring loses the task when its event is quick.
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
            "OPENAI_BATCH__MIN_DEFERRAL": 3,  # enough for that
            "USAGE_DATA_COLLECTION__ENABLED": False,
        }
        env = clean_environment()
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "include"), env.get("PYTHONPATH"))))
        env |= {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
        return env | {"AIRFLOW_HOME": str(self.home), "NO_COLOR": "1"} | self._extra

    def _secrets(self) -> dict[str, str]:
        """Made once per home, so that what one start encrypted the next can read."""
        path = self.home / "secrets.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        keys = {
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "jwt_secret": secrets.token_urlsafe(64),
            "secret_key": secrets.token_urlsafe(32),
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(keys))
        return keys

    def _migrate(self, env: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ChildFailedError(f"airflow db migrate failed:\n{(done.stdout + done.stderr)[-3000:]}")

    def _wait_until_healthy(self, timeout_s: float) -> None:
        now = time.monotonic()
        deadline, tell_at = now + timeout_s, now + STILL_WAITING_S
        while True:
            self.check()
            health = self.health()
            late = [name for name in COMPONENTS if health.get(name) != "healthy"]
            if not late:
                return
            missing = ", ".join(late) if health else "the API server, which does not answer yet"
            if (now := time.monotonic()) >= deadline:
                logs = "\n".join(f"--- {child.log}\n{child.tail()}" for child in self.children)
                raise ChildFailedError(
                    f"Airflow did not start within {timeout_s:g} s: not healthy is {missing}. On a busy machine, run "
                    f"it again.\n{logs}"
                )
            if now >= tell_at:
                tell_at = now + STILL_WAITING_S
                print(f"Still waiting for {missing} ...", flush=True)
            time.sleep(0.5)
