"""The servers, started once for all tests, and jobs that go through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo.processes import free_port
from fixtures.gate import open_gate
from fixtures.reviews import write_reviews
from foreign_servers.environments import find_server
from foreign_servers.foreign_server import ForeignServer, run_server

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.job import Job

KEY = "sk-test"
MODEL = "gpt-4o-mini"


@pytest.fixture(scope="session")
def litellm_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignServer]:
    """LiteLLM's proxy, with files and batches handed on to what it takes for OpenAI."""
    program, folder, port = find_server("litellm"), tmp_path_factory.mktemp("litellm"), free_port()
    with open_gate() as backend:
        behind = {"api_base": backend.base_url, "api_key": KEY}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": {"model": f"openai/{MODEL}", **behind}}],
            "files_settings": [{"custom_llm_provider": "openai", **behind}],
            "litellm_settings": {"telemetry": False},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        command = [
            str(program),
            "--config",
            str(folder / "config.yaml"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with run_server(
            "litellm",
            command,
            port=port,
            backend=backend,
            folder=folder,
            LITELLM_MASTER_KEY=KEY,
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_TELEMETRY="False",
        ) as proxy:
            yield proxy


@pytest.fixture(scope="session")
def ogx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignServer]:
    """ogx with its own files and batches, which it works off itself, asking what it takes for OpenAI in real time."""
    program, folder, port = find_server("ogx"), tmp_path_factory.mktemp("ogx"), free_port()
    with open_gate() as backend:
        (folder / "config.yaml").write_text(yaml.safe_dump(configure_ogx(folder, backend.base_url)))
        command = [str(program), "run", str(folder / "config.yaml"), "--port", str(port), "--insecure"]
        with run_server("ogx", command, port=port, backend=backend, folder=folder) as server:
            yield server


def configure_ogx(folder: Path, backend_url: str) -> dict[str, Any]:
    """The parts that batches need, and no more."""

    def store(name: str) -> dict[str, str]:
        return {"table_name": name, "backend": "rows"}

    def provide(name: str, kind: str, **config: Any) -> list[dict[str, Any]]:
        return [{"provider_id": name, "provider_type": kind, "config": config}]

    return {
        "version": 2,
        "distro_name": "batches",
        "apis": ["batches", "files", "inference"],
        "providers": {
            "inference": provide("openai", "remote::openai", api_key=KEY, base_url=backend_url),
            "files": provide(
                "disk", "inline::localfs", storage_dir=str(folder / "files"), metadata_store=store("files")
            ),
            "batches": provide("batches", "inline::reference", sqlstore=store("batches")),
        },
        "storage": {
            "backends": {
                "pairs": {"type": "kv_sqlite", "db_path": str(folder / "pairs.db")},
                "rows": {"type": "sql_sqlite", "db_path": str(folder / "rows.db")},
            },
            "stores": {
                "metadata": {"namespace": "registry", "backend": "pairs"},
                **{name: store(name) for name in ("inference", "conversations", "prompts", "connectors")},
            },
        },
        "registered_resources": {
            "models": [
                {
                    "model_id": MODEL,
                    "provider_id": "openai",
                    "provider_model_id": MODEL,
                    "model_type": "llm",
                    "metadata": {},
                }
            ]
        },
        "server": {"host": "127.0.0.1"},
    }


@pytest.fixture
def ogx(ogx_server: ForeignServer, openai_server: OpenAIServer) -> ForeignServer:
    """ogx before the emulator of this test."""
    ogx_server.backend.upstream = openai_server.url
    return ogx_server


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return write_reviews(tmp_path, model=MODEL)


@pytest.fixture
def connect(define_connection: Callable[..., str]) -> Callable[..., str]:
    """Let ``openai_default`` lead to an address: ``connect("http://...", server="litellm")``."""

    def define(base_url: str, **extra: Any) -> str:
        return define_connection(
            "openai_default", conn_type="openai", password=KEY, host=base_url, extra=extra
        )

    return define


@pytest.fixture
def litellm(litellm_proxy: ForeignServer, openai_server: OpenAIServer) -> ForeignServer:
    """The proxy before the emulator of this test."""
    litellm_proxy.backend.upstream = openai_server.url
    return litellm_proxy
