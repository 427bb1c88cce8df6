"""The environment of a running Airflow as a file for another shell: ``source .run/up/env``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_SECRET = ("FERNET_KEY", "JWT_SECRET", "SECRET_KEY")


def write_shell_environment(path: Path, env: Mapping[str, str], *, secrets: Path) -> None:
    """Write what ``airflow`` needs to reach the same database, DAGs and connections.

    Airflow's secrets are not in it: the one that a command line needs is read from their file by a command.

    :param env: of the components, see `LocalAirflow.environment`.
    :param secrets: the JSON file with ``fernet_key``.
    """
    path.write_text("".join(f"{line}\n" for line in _lines(env, secrets)))


def _lines(env: Mapping[str, str], secrets: Path) -> Iterator[str]:
    yield "# Written by `make up`: source it in a shell to talk to the Airflow that runs there."
    for name, value in sorted(env.items()):
        if name == "PYTHONPATH" or (name.startswith("AIRFLOW_") and not name.endswith(_SECRET)):
            yield f"export {name}={shlex.quote(value)}"
    read_key = f"import json; print(json.load(open({str(secrets)!r}))['fernet_key'])"
    yield f"export AIRFLOW__CORE__FERNET_KEY_CMD={shlex.quote(shlex.join([sys.executable, '-c', read_key]))}"
    yield f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
