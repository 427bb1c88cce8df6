"""Where the servers are installed: an environment of its own each, since what they need is not what Airflow needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from release.pythons import find_python

ROOT = Path(__file__).resolve().parents[2]
OGX_PYTHON = "3.12"
"""The oldest that ogx runs on, which is newer than the oldest of ours."""


def find_server(name: str) -> Path:
    """The program of a server. Skips the test where it is not installed, loudly; in CI that is an error."""
    environment = ROOT / f".venv-server-{name}"
    if (environment / ".ready").exists():
        return environment / "bin" / name
    if name == "ogx" and find_python(OGX_PYTHON) is None:
        pytest.skip(f"ogx needs Python {OGX_PYTHON}, which is not on this machine")
    reason = f"{name} is not installed: make test-servers"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (.ci/run has to do that)", pytrace=False)
    pytest.skip(reason)
