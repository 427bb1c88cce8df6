"""A real API server on the database that the tests' own runs fill."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from airflow_openai_batch.testing import OpenAIServer
from demo.processes import Child, free_port
from fixtures.narrow_auth import USERS
from fixtures.wait import wait_for_api

ROOT = Path(__file__).resolve().parents[2]

Login = Callable[[str | None], httpx.Client]


@pytest.fixture(scope="session")
def page_openai() -> Iterator[OpenAIServer]:
    """The emulator that the API server's ``openai_default`` leads to."""
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="session")
def api_server(
    airflow_db: None, page_openai: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Its URL. Directories below ``/forbidden-jobs`` are outside the allowed roots, as any but temporary ones."""
    folder, port = tmp_path_factory.mktemp("api-server"), free_port()
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({name: name for name in USERS}))
    settings = {
        "CORE__AUTH_MANAGER": "fixtures.narrow_auth.NarrowAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__SECRET_KEY": "not-secret",
        "API_AUTH__JWT_SECRET": "0123456789abcdef" * 4,
        "OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS": tmp_path_factory.getbasetemp(),
    }
    env = os.environ | {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
    env["PYTHONPATH"] = os.pathsep.join((str(ROOT / "include"), str(ROOT / "tests")))
    env["AIRFLOW_CONN_OPENAI_DEFAULT"] = page_openai.airflow_connection()
    command = [sys.executable, "-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port)]
    child = Child("api-server", [*command, "--workers", "1"], env=env, log=folder / "log")
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_api(child, url)
        yield url
    finally:
        child.stop()


@pytest.fixture(scope="session")
def login(api_server: str) -> Iterator[Login]:
    """``login("viewer")``: a client of the page's API with that user's token; ``None`` for a stranger to Airflow."""
    clients: dict[str | None, httpx.Client] = {}

    def client(user: str | None) -> httpx.Client:
        if user not in clients:
            clients[user] = made = httpx.Client(
                base_url=f"{api_server}/openai-batch", timeout=30, trust_env=False
            )
            if user is not None:
                said = {"username": user, "password": user}
                answer = httpx.post(f"{api_server}/auth/token", json=said, trust_env=False, timeout=30)
                made.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return clients[user]

    yield client
    for made in clients.values():
        made.close()
