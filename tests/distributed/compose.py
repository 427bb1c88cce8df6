"""docker-compose.yaml, read as Docker would, with variables filled in and services found on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from demo.standalone import ROOT

_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)?\}")


class ComposeFile:
    """What the file says of each service.

    :param variables: what stands in ``.env``; where a variable has a default, that is used.
    :param places: text in the file to what takes its place here: a service's address, a path in its container.
    """

    def __init__(self, variables: Mapping[str, str], places: Mapping[str, str]) -> None:
        self._services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
        self._variables = variables
        self._places = places

    def replicas(self, service: str) -> int:
        return int(self._services[service].get("deploy", {}).get("replicas", 1))

    def environment(self, service: str) -> dict[str, str]:
        return {name: self._fill(text) for name, text in self._services[service]["environment"].items()}

    def command(self, service: str) -> list[str]:
        """As the image's entry point runs it: what is no program is a command of Airflow."""
        command = self._services[service]["command"]
        words = command.split() if isinstance(command, str) else command
        filled = [self._fill(word) for word in words]
        return filled if filled[0] in ("bash", "python", "redis-server") else ["airflow", *filled]

    def health_check(self, service: str) -> list[str]:
        kind, *words = (self._fill(word) for word in self._services[service]["healthcheck"]["test"])
        return ["sh", "-c", *words] if kind == "CMD-SHELL" else words

    def health_retries(self, service: str) -> int:
        return int(self._services[service]["healthcheck"]["retries"])

    def _fill(self, text: Any) -> str:
        filled = _VARIABLE.sub(lambda found: self._variables.get(found[1], found[2]), str(text))
        for theirs, ours in self._places.items():
            filled = filled.replace(theirs, ours)
        return filled.replace("$$", "$")
