"""All services of docker-compose.yaml, as many of each as it says, each a `Container`; the emulator beside them."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from airflow_openai_batch.testing.process import EmulatorProcess
from chaos.stage import KEY, make_settings
from demo.api import AirflowApi
from demo.processes import clean_environment, free_port, stop_all, wait_for_port
from demo.standalone import ROOT
from distributed.compose import ComposeFile
from distributed.container import Container
from fixtures.object_store import ObjectStore
from fixtures.postgres import run_postgres
from fixtures.programs import find_program

SECRETS = (
    "JWT_SECRET", "API_SECRET_KEY", "POSTGRES_PASSWORD", "ADMIN_PASSWORD", "STORE_ACCESS_KEY", "STORE_SECRET_KEY",
)  # fmt: skip
"""Free texts of .env.example."""
SERVICES = ("scheduler", "dag-processor", "triggerer", "worker", "api-server")
QUIET = {"scheduler", "triggerer", "worker"}
"""Their servers of logs listen on all interfaces."""
BATCH_S = 3_600.0
"""Of the emulator's clock, which the test sets forward: nothing ends before it is asked to."""
START_TIMEOUT_S = 900.0
PATIENCE_S = 180.0
"""With the API server, which builds the half of it that tasks talk to when the first one calls."""


@dataclass(slots=True)
class Stage:
    """What runs."""

    folder: Path
    compose: ComposeFile
    airflow: AirflowApi
    emulator: EmulatorProcess
    store: ObjectStore
    secrets: tuple[str, ...]
    """Of the compose file's variables; none may be seen in a log."""
    containers: dict[str, Container] = field(default_factory=dict)

    def check_health(self, name: str, *, once: bool = False) -> bool:
        """What Docker finds out by the health check of the compose file, which has to fail several times in a row: a
        triggerer that takes over what another held may be late with its heartbeat.

        :param once: of a container that is gone, whose heartbeat only gets older.
        """
        service = name.rpartition("-")[0]
        check = self.compose.health_check(service)
        tries = 1 if once else self.compose.health_retries(service)
        return any(self.containers[name].run(check) == 0 for _ in range(tries))


@contextlib.contextmanager
def set_stage(folder: Path, s3_server: str) -> Iterator[Stage]:
    """Everything started and healthy; gone with the block."""
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(EmulatorProcess("--duration", str(BATCH_S)))
        emulator.configure(api_keys=[KEY])
        database = stack.enter_context(run_postgres())
        ports = {name: free_port() for name in ("api-server", "redis", "health")}
        variables = make_variables(emulator.base_url)
        places = {
            "@postgres/": f"@{database}/",
            "redis:6379": f"127.0.0.1:{ports['redis']}",
            "http://store:8333": s3_server,
            "http://api-server:8080": f"http://127.0.0.1:{ports['api-server']}",
            "/opt/airflow/include": f"{ROOT / 'include'}:{ROOT / 'tests'}",
            "/opt/airflow/passwords.json": str(folder / "passwords.json"),
        }
        airflow = AirflowApi(
            f"http://127.0.0.1:{ports['api-server']}",
            password=variables["ADMIN_PASSWORD"],
            timeout_s=PATIENCE_S,
        )
        stack.callback(airflow.close)
        stage = Stage(
            folder=folder,
            compose=ComposeFile(variables, places),
            airflow=airflow,
            emulator=emulator,
            store=ObjectStore(s3_server, variables["BUCKET"]),
            secrets=(variables["FERNET_KEY"], *(variables[name] for name in SECRETS)),
        )
        stack.callback(lambda: stop_all([each.child for each in stage.containers.values()]))
        _start(stage, ports)
        yield stage


def make_variables(base_url: str) -> dict[str, str]:
    """What .env.example asks for."""
    made = {name: secrets.token_urlsafe(48) for name in SECRETS}
    return made | {
        "FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": base_url,
        "BUCKET": "batches",
    }


def _start(stage: Stage, ports: dict[str, int]) -> None:
    redis = stage.compose.command("redis")
    program = find_program(redis[0])
    assert program is not None
    queue = stage.folder / "hosts" / "redis"
    options = ["--bind", "127.0.0.1", "--port", str(ports["redis"]), "--dir", str(queue)]
    _add(stage, "redis", [program, *redis[1:], *options], clean_environment())
    wait_for_port(stage.containers["redis"].child, ports["redis"])
    ours = make_environment(stage.folder, ports)
    migrate = _add(stage, "migrate", stage.compose.command("migrate"), _fill(stage, "migrate", ours))
    while migrate.child.running:
        time.sleep(0.1)
    assert "is ready" in migrate.child.tail(), migrate.child.tail()
    del stage.containers["migrate"]
    for service in SERVICES:
        for n in range(1, stage.compose.replicas(service) + 1):
            name = f"{service}-{n}"
            command = stage.compose.command(service)
            command += ["--skip-serve-logs"] if service in QUIET else []
            command += ["--celery-hostname", f"celery@{name}"] if service == "worker" else []
            _add(stage, name, command, _fill(stage, service, ours))
    _wait_until_healthy(stage)


def _add(stage: Stage, name: str, command: list[str], env: dict[str, str]) -> Container:
    home = stage.folder / "hosts" / name
    (home / "config").mkdir(parents=True)
    imports = ["from chaos.local_settings import task_policy"]
    if name.startswith("worker"):
        imports += ["import distributed.warm"]
    (home / "config" / "airflow_local_settings.py").write_text("\n".join(imports))
    log = stage.folder / "components" / f"{name}.log"
    stage.containers[name] = Container(name, command, env, home=home, log=log)
    return stage.containers[name]


def _fill(stage: Stage, service: str, ours: dict[str, str]) -> dict[str, str]:
    return clean_environment() | stage.compose.environment(service) | ours


def make_environment(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    """What is not as in the compose file: places, ports on loopback, and waits of seconds instead of minutes."""
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags" / "openai_batch.py", dags)
    settings: dict[str, object] = {
        "CORE__DAGS_FOLDER": dags,
        "CORE__PLUGINS_FOLDER": ROOT / "plugins",
        "CORE__HOSTNAME_CALLABLE": "distributed.host.get_name",
        "LOGGING__BASE_LOG_FOLDER": folder / "logs",  # a volume of all
        "LOGGING__COLORED_CONSOLE_LOG": False,
        "API__HOST": "127.0.0.1",
        "API__PORT": ports["api-server"],
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": "127.0.0.1",
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": ports["health"],
        "USAGE_DATA_COLLECTION__ENABLED": False,
        **make_settings(),
    }
    env = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
    programs = Path(sys.executable).parent
    return env | {"PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1"}


def _wait_until_healthy(stage: Stage) -> None:
    """By one question instead of the health checks, each of which imports Airflow: the drill tries those later."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while len(health := stage.airflow.health()) < 4 or set(health.values()) != {"healthy"}:
        for container in stage.containers.values():
            container.child.check()
        assert time.monotonic() < deadline, [each.child.tail() for each in stage.containers.values()]
        time.sleep(0.5)
