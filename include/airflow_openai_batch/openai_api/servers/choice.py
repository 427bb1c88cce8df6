"""Which server a connection leads to: as its extra says, or by its host where that is plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.servers.azure import AZURE
from airflow_openai_batch.openai_api.servers.generic import GENERIC
from airflow_openai_batch.openai_api.servers.groq import GROQ
from airflow_openai_batch.openai_api.servers.litellm import LITELLM
from airflow_openai_batch.openai_api.servers.openai import OPENAI
from airflow_openai_batch.openai_api.servers.profile import ServerProfile, fits_window
from airflow_openai_batch.openai_api.servers.together import TOGETHER

if TYPE_CHECKING:
    import re

SERVERS: Mapping[str, ServerProfile] = {
    each.name: each for each in (OPENAI, AZURE, GROQ, TOGETHER, LITELLM, GENERIC)
}
DEFAULT_SERVER = OPENAI
"""For a host that is nobody's that is known."""


def read_server(extra: Mapping[str, Any], host: str | None, where: str) -> ServerProfile:
    """The server of a connection.

    :param host: its address, if it names one.
    :param where: for messages, for instance ``connection 'openai_default'``.
    :raises ConfigError: for a server that is not known, or a window that it does not take.
    """
    profile = _read_named(extra.get("server"), where) or find_by_host(host)
    window = extra.get("completion_window")
    if window is None or window == "":
        return profile
    if not fits_window(profile, window):
        raise ConfigError(
            f"{where}: completion_window={window!r:.60} in its extra must be {profile.describe_windows()} for "
            f"server={profile.name}."
        )
    return replace(profile, completion_window=window)


def find_by_host(host: str | None) -> ServerProfile:
    """The server that is known by this host; `DEFAULT_SERVER` where none is."""
    return _find_known(host) or DEFAULT_SERVER


def name_by_host(host: str | None) -> str:
    """Who is asked, for errors."""
    known = _find_known(host)
    return "the server" if known is None else known.title


def _find_known(host: str | None) -> ServerProfile | None:
    try:
        name = urlsplit(host or "").hostname or ""
    except ValueError:  # said better by who checks the host
        name = ""
    for profile in SERVERS.values():
        if any(name == known or (known[0] == "." and name.endswith(known)) for known in profile.hosts):
            return profile
    return None


def complete_host(profile: ServerProfile, host: str | None, where: str) -> str | None:
    """The address that a client is given; ``None``: its own choice, which is OpenAI.

    :raises ConfigError: where the server is nowhere unless somebody says where, or the path is that of another API.
    """
    if not host:
        if profile.needs_host:
            raise ConfigError(
                f"{where}: has no host, and server={profile.name} is at no address of its own. Set the host, with the "
                f"path that the API begins at: https://...{profile.base_path}."
            )
        return profile.address
    if profile is OPENAI or profile.name == OPENAI.name:
        return host
    if profile.name == AZURE.name and "/openai/deployments" in host:
        raise ConfigError(
            f"{where}: its host names a deployment, and batches are created for a whole resource. Write "
            "https://RESOURCE.openai.azure.com/openai/v1; the deployment's name stands as the model in the requests."
        )
    return profile.complete_address(host)


def find_full_queue(message: str) -> re.Match[str] | None:
    """Where a server's words say that its queue is full, whichever server's they are."""
    patterns = (profile.full_queue for profile in SERVERS.values() if profile.full_queue is not None)
    return next((found for pattern in patterns if (found := pattern.search(message))), None)


def read_amount(found: re.Match[str]) -> int | None:
    """The limit that such words name, ``30K`` as 30,000."""
    if not found["limit"]:
        return None
    scale = {"K": 1_000, "M": 1_000_000, "B": 1_000_000_000}.get((found["scale"] or "").upper(), 1)
    try:
        return int(float(found["limit"].replace(",", "")) * scale)
    except ValueError:
        return None


def _read_named(name: Any, where: str) -> ServerProfile | None:
    if name is None or name == "":
        return None
    found = SERVERS.get(name.strip().lower()) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(
            f"{where}: server={name!r:.60} in its extra is not known. Known are {', '.join(SERVERS)}; leave it away "
            "for another server that speaks OpenAI's Batch API."
        )
    return found
