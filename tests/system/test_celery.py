"""The services of docker-compose.yaml without Docker: PostgreSQL, Redis, an S3-compatible store, Celery workers.

The environment is read from the compose file, so that what it says is what is tried.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from demo.api import AirflowApi
from demo.processes import Child, clean_environment, free_port, stop_all, wait_for_port
from demo.standalone import ROOT
from fixtures.job import chat_line
from fixtures.postgres import run_postgres
from fixtures.programs import find_program

if TYPE_CHECKING:
    from airflow_openai_batch.testing.server import OpenAIServer
    from fixtures.object_store import ObjectStore

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(420),
    pytest.mark.needs_program("initdb", "redis-server"),
]

COMPONENTS = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "worker-1": ["celery", "worker", "--skip-serve-logs", "-H", "worker-1@127.0.0.1"],
    "worker-2": ["celery", "worker", "--skip-serve-logs", "-H", "worker-2@127.0.0.1"],
}


@pytest.fixture
def postgres() -> Iterator[str]:
    """An address of a PostgreSQL with the empty database ``airflow``."""
    with run_postgres() as address:
        yield address


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [find_program("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    server = Child("redis", command, env=clean_environment(), log=tmp_path / "redis.log")
    wait_for_port(server, port)
    yield f"127.0.0.1:{port}"
    server.stop()


def read_compose_environment(values: dict[str, str], hosts: dict[str, str]) -> dict[str, str]:
    """The workers' environment, with variables filled in and services replaced by what runs here."""
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    environment = {}
    for name, text in services["worker"]["environment"].items():
        filled = re.sub(r"\$\{([A-Z_]+)[^}]*\}", lambda match: values[match[1]], text)
        for theirs, ours in hosts.items():
            filled = filled.replace(theirs, ours)
        environment[name] = filled
    return environment


@pytest.fixture
def airflow(
    tmp_path: Path, postgres: str, redis: str, s3: ObjectStore, openai_server: OpenAIServer
) -> Iterator[AirflowApi]:
    port = free_port()
    words = ("JWT_SECRET", "API_SECRET_KEY", "POSTGRES_PASSWORD", "STORE_ACCESS_KEY", "STORE_SECRET_KEY")
    values = {name: secrets.token_urlsafe(48) for name in words} | {
        "FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": openai_server.base_url,
        "BUCKET": s3.bucket,
    }
    hosts = {
        "@postgres/": f"@{postgres}/",
        "redis:6379": redis,
        "http://store:8333": s3.endpoint_url,
        "http://api-server:8080": f"http://127.0.0.1:{port}",
        "/opt/airflow/include": str(ROOT / "include"),
        "/opt/airflow/passwords.json": str(tmp_path / "passwords.json"),
    }
    (tmp_path / "passwords.json").write_text('{"admin": "admin"}')
    env = clean_environment() | read_compose_environment(values, hosts)
    env |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",  # its server listens on all interfaces
    }
    command = [sys.executable, "-m", "airflow"]
    subprocess.run([*command, "db", "migrate"], check=True, capture_output=True, env=env)
    arguments = COMPONENTS | {"api-server": ["api-server", "--host", "127.0.0.1", "--port", str(port)]}
    children = [
        Child(name, [*command, *options], env=env, log=tmp_path / f"{name}.log")
        for name, options in arguments.items()
    ]
    api = AirflowApi(f"http://127.0.0.1:{port}")
    try:
        wait_until_healthy(api, children)
        yield api
    finally:
        api.close()
        stop_all(children)


def wait_until_healthy(api: AirflowApi, children: list[Child], *, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while set(api.health().values()) != {"healthy"} or len(api.health()) < 4:
        for child in children:
            child.check()
        assert time.monotonic() < deadline, [child.tail() for child in children]
        time.sleep(0.5)


def test_a_job_runs_on_celery_workers_with_results_in_the_store(airflow: AirflowApi, s3: ObjectStore) -> None:
    lines = "".join(f"{chat_line(f'r{n}')}\n" for n in range(12))
    conf = {
        "input_uri": s3.put("in/requests.jsonl", lines.encode()),
        "max_requests_per_shard": 3,
        "poll_interval": 1,
    }
    run = airflow.trigger("openai_batch", conf)
    assert airflow.wait(run, timeout_s=240) == "success", airflow.explain(run)
    keys = s3.keys()
    assert len([key for key in keys if re.fullmatch(r"jobs/[^/]+/results/part-\d+\.parquet", key)]) == 4
    assert [key for key in keys if re.fullmatch(r"jobs/[^/]+/report\.md", key)]
