"""docker-compose.yaml keeps its promises; its form is checked against the compose schema by `make check`."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
ONCE = {"migrate"}
SECRETS = {
    "FERNET_KEY",
    "JWT_SECRET",
    "API_SECRET_KEY",
    "POSTGRES_PASSWORD",
    "STORE_ACCESS_KEY",
    "STORE_SECRET_KEY",
}


def read_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_all_parts_are_there():
    assert {"api-server", "scheduler", "dag-processor", "triggerer", "worker"} <= OURS
    assert {"postgres", "redis", "store", "emulator"} <= set(SERVICES)
    assert SERVICES["worker"]["deploy"]["replicas"] >= 2
    assert SERVICES["triggerer"]["deploy"]["replicas"] >= 2
    assert SERVICES["emulator"]["profiles"] == ["emulator"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_have_a_fixed_tag(name):
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository, "no tag means latest"
    assert re.match(r"\d", tag)


def test_the_base_image_is_the_airflow_that_is_pinned():
    pinned = re.search(r"^apache-airflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for name in OURS:
        assert f"FROM apache/airflow:{pinned[1]}-python" in SERVICES[name]["build"]["dockerfile_inline"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE))
def test_every_lasting_service_has_a_health_check_and_restarts(name):
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(OURS))
def test_airflow_services_share_secrets_and_import_path(name):
    environment = SERVICES[name]["environment"]
    assert environment["PYTHONPATH"] == "/opt/airflow/include"
    assert any(volume.startswith("./include:/opt/airflow/include") for volume in SERVICES[name]["volumes"])
    for setting in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY"):
        assert environment[setting].startswith("${"), "secrets come from the environment"


@pytest.mark.parametrize("name", ["triggerer", "dag-processor"])
def test_a_health_check_asks_for_the_job_of_its_own_container(name):
    """Another replica's would do otherwise, and a hostname of one's own making need not be Airflow's."""
    test = SERVICES[name]["healthcheck"]["test"]
    assert test[:4] == ["CMD", "airflow", "jobs", "check"]
    assert "--local" in test


def test_waiting_tasks_outlive_redis():
    assert SERVICES["redis"]["command"] == ["redis-server", "--appendonly", "yes"]
    assert any(volume.endswith(":/data") for volume in SERVICES["redis"]["volumes"])


def test_no_more_tasks_go_out_than_the_workers_can_soon_begin():
    environment = SERVICES["worker"]["environment"]
    slots = SERVICES["worker"]["deploy"]["replicas"] * int(environment["AIRFLOW__CELERY__WORKER_CONCURRENCY"])
    assert slots <= int(environment["AIRFLOW__CORE__PARALLELISM"]) <= 2 * slots


def test_redis_gives_no_task_out_twice_while_it_may_run():
    """A shard that waits without the triggerer, or sends in real time, may run for a day."""
    timeout = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"
    assert int(SERVICES["worker"]["environment"][timeout]) >= 24 * 3600


def test_results_go_where_every_worker_sees_them():
    connection = SERVICES["worker"]["environment"]["AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT"]
    assert connection.startswith("s3://aws_default@")


def test_ports_are_published_on_loopback_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_example_names_every_variable_and_no_secret():
    named = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT))
    example = read_example()
    assert named <= set(example)
    assert not [name for name in SECRETS if example[name]]


def test_connections_are_json_once_the_variables_are_filled_in():
    environment = SERVICES["worker"]["environment"]
    for name in ("AIRFLOW_CONN_OPENAI_DEFAULT", "AIRFLOW_CONN_AWS_DEFAULT"):
        filled = re.sub(r"\$\{[A-Z_]+(:\?[^}]*)?\}", "value", environment[name])
        assert json.loads(filled)["conn_type"] in {"openai", "aws"}


def test_the_recipe_for_a_fernet_key_makes_one(capsys):
    from cryptography.fernet import Fernet

    recipe = re.search(r'python3 -c "(import base64.*)"', (ROOT / ".env.example").read_text())
    exec(recipe[1])  # noqa: S102 - what the file tells people to run
    key = capsys.readouterr().out.strip()
    assert len(base64.urlsafe_b64decode(key)) == 32
    Fernet(key)
