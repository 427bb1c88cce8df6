"""Build what is published into dist/ and check it: ``make release-check``.

What its wheel asks for is installed with pip as it is configured, pinned in constraints.txt, once for each Python
(a minute or two).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import airflow_openai_batch
from release.contents import (
    ROOT,
    build,
    find_differences,
    find_sdist_problems,
    find_wheel_problems,
    unpack,
)
from release.pythons import find_python, read_supported
from release.version import find_version_problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="make release-check", description=__doc__)
    parser.add_argument(
        "--unreleased", action="store_true", help="CHANGELOG.md need not name the version yet"
    )
    options = parser.parse_args()
    version = airflow_openai_batch.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    if not options.unreleased and (unsaid := find_version_problems(version, changelog)):
        return refuse(unsaid)
    with tempfile.TemporaryDirectory() as temporary:
        problems = check_files(Path(temporary), version)
    if problems:
        return refuse(problems)
    good = "works; CHANGELOG.md was not asked." if options.unreleased else "is fit for a release."
    print(f"What dist/ holds of {version} {good}")
    return 0


def refuse(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print("Not fit for a release.")
    return 1


def check_files(temporary: Path, version: str) -> list[str]:
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    wheel, sdist = build(ROOT, "wheel", dist), build(ROOT, "sdist", dist)
    sources = unpack(sdist, temporary / "sources")
    problems = find_wheel_problems(wheel) + find_sdist_problems(sdist)
    problems += find_differences(wheel, build(sources, "wheel", temporary / "rebuilt"))
    print(f"built {wheel.name} and {sdist.name}", flush=True)
    for python_version in read_supported():
        python = find_python(python_version)
        if python is None:
            print(f"Python {python_version}: not on this machine, not checked", flush=True)
            continue
        folder = temporary / python_version
        problems += check_with(python, folder, wheel, [str(sources / "dags"), version], python_version)
        shutil.rmtree(folder)  # 600 MB each
    return problems


def check_with(
    python: Path, folder: Path, wheel: Path, arguments: Sequence[str], python_version: str
) -> list[str]:
    """Install the wheel into a clean environment and load all of it."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    environment.pop("PYTHONPATH", None)  # ours leads to the repository
    clean = folder / "bin" / "python"
    pins = ["--constraint", str(ROOT / "constraints.txt")]
    steps = (
        ("no environment", [python, "-m", "venv", folder]),
        ("does not install", [clean, "-m", "pip", "install", "--quiet", "--quiet", *pins, wheel]),
        ("does not load", [clean, ROOT / "tests" / "release" / "loads.py", *arguments]),
    )
    for problem, command in steps:
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return [f"Python {python_version}: {problem}. It ends so:\n{done.stderr[-2_000:]}"]
    told = [line for line in done.stdout.splitlines() if line.startswith(("imported", "Airflow"))]
    print(f"Python {python_version}: {'; '.join(told)}", flush=True)
    return []


if __name__ == "__main__":
    sys.exit(main())
