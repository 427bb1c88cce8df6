"""Whether a connection can be that of an OpenAI client, before its key goes to any host.

What is wrong here would otherwise come back as trouble of the network, tried again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.server_words import remember_connection, remember_secret

_NAMES = {"openai": "OpenAI", "http": "HTTP", "qdrant": "Qdrant"}
"""What Airflow's UI calls these types."""
_OPENAI_NAME = "api.openai.com"
_OPENAI_HOST = f"https://{_OPENAI_NAME}/v1"


def check_conn_type(conn_id: str, conn_type: str | None, wanted: str = "openai") -> None:
    """Whoever names a connection could otherwise have the password of any other service sent to an API's host.

    :raises ConfigError: for a connection of another type, or of none.
    """
    if conn_type != wanted:
        kind = f"type {conn_type!r:.60}" if conn_type else "no type"
        raise ConfigError(
            f"connection {conn_id!r}: has {kind}, so its password was sent nowhere. One of type {_NAMES[wanted]} is "
            f'needed: name it, or set the type of this one (Conn Type in the UI, "conn_type": "{wanted}" in JSON, '
            f"{wanted}:// in a URI)."
        )


def check_client_settings(conn_id: str, settings: Mapping[str, Any], extra: Any) -> None:
    """Hold what the client is made with against what a request can carry, and remember what is secret of it.

    :param settings: the client's arguments.
    :param extra: of the connection.
    :raises ConfigError: naming what to change; never with the value of a secret.
    """
    key = settings.get("api_key")
    remember_connection(key if isinstance(key, str) else None, extra)
    if isinstance(key, str):
        check_key(key, f"connection {conn_id!r}: its password (the API key)")
    headers = settings.get("default_headers")
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if isinstance(value, str):
            check_key(value, f"connection {conn_id!r}: the header {name!r:.60} of its extra")
    host = settings.get("base_url")
    if host is not None:
        check_host(str(host), f"connection {conn_id!r}: its host")


def is_openai_host(host: str | None) -> bool:
    """Whether OpenAI itself is asked, be it in one of its regions.

    :param host: None: the client's own choice, which is OpenAI.
    """
    if not host:
        return True
    name = urlsplit(host).hostname or ""
    return name == _OPENAI_NAME or name.endswith(f".{_OPENAI_NAME}")


def check_key(key: str, what: str) -> None:
    """:param what: whose it is, for the message.
    :raises ConfigError: for characters that no HTTP header may have."""
    place = next((at for at, each in enumerate(key) if not " " <= each <= "~"), None)
    if place is None and key == key.strip():
        return
    if place is None or key[place] in "\r\n\t":
        raise ConfigError(
            f"{what} has a line end or a blank in or around its {len(key)} characters, which no request can carry. "
            "Enter it again without; from a file, cut the last line end off."
        )
    raise ConfigError(
        f"{what} has a character beyond ASCII (the {place + 1}th of {len(key)}), which no request can carry. Copy it "
        "again from where it was issued."
    )


def check_host(host: str, where: str) -> None:
    """:param where: whose it is, for the message.
    :raises ConfigError: for what is no address, or none of an API."""
    try:
        parts = urlsplit(host)
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError:
        raise ConfigError(
            f"{where} is no address. Write it as {_OPENAI_HOST}, with scheme, name and path."
        ) from None
    remember_secret(parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = host.rpartition("@")[2][:200]
        raise ConfigError(
            f"{where} {shown!r} has no scheme. Write it with https:// (or http:// for a server within), and with the "
            f"path that the API begins at: https://{shown.partition('://')[2] or shown}, for OpenAI {_OPENAI_HOST}."
        )
    if parts.hostname.endswith(_OPENAI_NAME) and parts.path.strip("/") == "":
        raise ConfigError(
            f"{where} has no /v1, with which OpenAI's addresses begin. Write https://{parts.hostname}/v1."
        )
