"""What is committed is fit for anybody's machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "a package registry's host": re.compile(
        r"pypi\.(org|python)|pythonhosted\.org|registry\.npmjs|deb\.debian\.org|crates\.io|"
        + "files\\.python"
    ),
    "a path of one machine": re.compile(r"/(home|Users)/\w+|/root/|/work/|/tmp/v/"),
    "a key": re.compile(r"\bsk-(proj-)?[A-Za-z0-9]{20,}"),
}


def read_committed() -> dict[str, str]:
    """Every committed text file but this one and the licence."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    own = str(Path(__file__).relative_to(ROOT))
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and name not in {own, "LICENSE"}:
            try:
                texts[name] = path.read_text()
            except UnicodeDecodeError:
                continue
    return texts


@pytest.mark.parametrize("kind", sorted(FORBIDDEN))
def test_no_committed_file_holds(kind):
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in read_committed().items()
        for match in FORBIDDEN[kind].finditer(text)
    ]
    assert not found


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_are_plain_pins(name):
    """URLs or local paths would tie the set-up to one machine."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []


def test_every_make_target_explains_itself():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    # As a person runs it, not as a part of `make test`.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "help"], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    shown = done.stdout
    assert [line.split()[0] for line in shown.splitlines()] == targets
    assert {"setup", "demo", "test", "check", "bench", "up"} <= set(targets)


def test_a_commit_is_checked_by_what_make_check_runs():
    """Each tool once, with the same arguments, from the same environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "--assume-old=.venv/.ready", "check"]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    config = ROOT / ".pre-commit-config.yaml"
    [repository] = yaml.safe_load(config.read_text())["repos"]
    assert repository["repo"] == "local", "nothing is fetched"
    assert [hook["entry"] for hook in repository["hooks"]] == done.stdout.splitlines()
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", config], check=True)
