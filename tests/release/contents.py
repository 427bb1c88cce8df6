"""What is in the files of a release, beside what is in the repository."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "include" / "airflow_openai_batch"
SOURCE_FOLDERS = ("include", "dags", "plugins", "tests")
"""Of the source archive: with the prompts and samples that the DAGs read, which a wheel has in the package."""
SHIPPED = ("prompts", "samples")


def build(root: Path, target: str, folder: Path) -> Path:
    """Build ``wheel`` or ``sdist`` with the hatchling that is installed, which needs no network.

    :raises subprocess.CalledProcessError: with hatchling's own words, if it cannot be built.
    """
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl" if target == "wheel" else "*.tar.gz"))


def unpack(sdist: Path, folder: Path) -> Path:
    """The one folder that the archive holds."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def find_wheel_problems(wheel: Path) -> list[str]:
    """Files of the package that are missing from the wheel, and files that do not belong into it."""
    distribution, version = wheel.name.split("-")[:2]
    wanted = {f"{PACKAGE.name}/{name}" for name in list_files(PACKAGE)}
    for folder in SHIPPED:
        wanted |= {f"{PACKAGE.name}/{folder}/{name}" for name in list_files(ROOT / "include" / folder)}
    # Hatchling's own: metadata, entry points and the licence.
    own = {name for name in _names(wheel) if name.startswith(f"{distribution}-{version}.dist-info/")}
    return _compare(wheel.name, wanted, _names(wheel) - own) + [
        f"{wheel.name}: {name} is missing"
        for name in ("METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE")
        if f"{distribution}-{version}.dist-info/{name}" not in own
    ]


def find_sdist_problems(sdist: Path, root: Path = ROOT) -> list[str]:
    """Files that are missing from the source archive, which holds what the tests and the DAGs need."""
    with tarfile.open(sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    wanted = {f"{folder}/{name}" for folder in SOURCE_FOLDERS for name in list_files(root / folder)}
    wanted |= {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
    return [f"{sdist.name}: {name} is missing" for name in sorted(wanted - names)]


def find_differences(one: Path, other: Path) -> list[str]:
    """Between two wheels: whoever builds from the source archive gets what was published."""
    contents = [_read_all(wheel) for wheel in (one, other)]
    return [
        f"{one.name}: {name} is not the same when built from the source archive"
        for name in sorted(contents[0].keys() | contents[1].keys())
        if contents[0].get(name) != contents[1].get(name)
    ]


def list_files(folder: Path) -> set[str]:
    """Relative names of all that is not left behind by a run."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _compare(name: str, wanted: set[str], found: set[str]) -> list[str]:
    missing = [f"{name}: {file} is missing" for file in sorted(wanted - found)]
    return missing + [f"{name}: {file} does not belong into it" for file in sorted(found - wanted)]


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _read_all(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
