"""`make demo` as a person sees it, with fewer texts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


def test_the_demo_ends_with_a_report_and_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-m", "demo", "--requests", "400", "--home", str(tmp_path)]
    env = dict(os.environ) | {"PYTHONPATH": str(ROOT / "include"), "OPENAI_API_KEY": "sk-not-to-be-used"}
    done = subprocess.run(
        command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the emulator is used" in done.stdout
    assert "publish ✓" in done.stdout
    assert "400 of 400 requests have a good answer" in done.stdout
    results = re.search(r"^== Results: (\S+),", done.stdout, re.MULTILINE)[1]
    assert list(Path(results).glob("part-*.parquet"))
    left = [process for process in psutil.process_iter(["environ"]) if _belongs(process, tmp_path)]
    assert not left


def _belongs(process: psutil.Process, home: Path) -> bool:
    environment = process.info["environ"] or {}
    return str(home) in environment.get("AIRFLOW_HOME", "")
