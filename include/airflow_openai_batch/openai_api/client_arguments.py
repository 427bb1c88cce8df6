"""Whether what a connection's extra says of the client can be: told before a request, with the key that is wrong.

The client itself takes any value, and stumbles over it at its first request, as if the network had failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from airflow_openai_batch.errors import ConfigError

WHERE = "openai_client_kwargs of its extra"
_NOT_IN_JSON = frozenset({"workload_identity", "provider", "http_client"})
"""Of the client: they are objects of Python. What begins with an underscore is not meant for users either."""

_OF_NO_USE = frozenset({"admin_api_key", "webhook_secret", "websocket_base_url"})
"""For batches. Others that use the connection may need them."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_timeout(value: Any) -> bool:
    return value is None or (_is_number(value) and value > 0)


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 0


def _is_headers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for each in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "timeout": (_is_timeout, "a number of seconds above 0, or null for no limit"),
    "max_retries": (_is_count, "a whole number of 0 or more"),
    "default_headers": (_is_headers, 'an object of texts, for instance {"x-team": "search"}'),
    "default_query": (_is_mapping, 'an object, for instance {"api-version": "preview"}'),
}
_TEXT = (_is_text, "a text")
_IDENTITY_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "identity_provider_id": _TEXT,
    "service_account_id": _TEXT,
    "token_file_path": _TEXT,
    "token_provider": (_is_text, "a text, as package.module.function"),
    "token_type": (lambda value: value in ("jwt", "id"), '"jwt" or "id"'),
    "refresh_buffer_seconds": (
        lambda value: _is_number(value) and value >= 0,
        "a number of seconds, 0 or more",
    ),
}


def check_client_arguments(conn_id: str, extra: Mapping[str, Any], known: Collection[str]) -> None:
    """Values are not quoted: any of them may be a secret.

    :param known: the names of the installed client's arguments.
    :raises ConfigError: naming the key, and what its value has to be.
    """
    given = extra.get("openai_client_kwargs", {})
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"connection {conn_id!r}: {WHERE} is {_name_kind(given)}. Write an object, for instance "
            '{"timeout": 120}.'
        )
    usable = {name for name in known if name not in _NOT_IN_JSON and name[0] != "_" and name != "self"}
    for name, value in given.items():
        where = f"connection {conn_id!r}: {name!r:.60} in {WHERE}"
        if name == "workload_identity":
            raise ConfigError(
                f'{where} cannot be written in JSON. Set "auth_type": "workload_identity" in the extra.'
            )
        if name not in usable:
            raise ConfigError(
                f"{where} cannot be set there. It can hold: {', '.join(sorted(usable - _OF_NO_USE))}."
            )
        _check(where, value, _KINDS.get(name, _TEXT), may_miss=True)
    if "data_residency" in given and "websocket_base_url" in given:
        raise ConfigError(
            f"connection {conn_id!r}: {WHERE} has data_residency and websocket_base_url. Leave one out."
        )
    if extra.get("auth_type") == "workload_identity":
        for name, kind in _IDENTITY_KINDS.items():
            if name in extra:
                _check(f"connection {conn_id!r}: {name!r} in its extra", extra[name], kind)


def check_made_arguments(conn_id: str, settings: Mapping[str, Any]) -> None:
    """:param settings: the client's arguments, as the provider's hook makes them.
    :raises ConfigError: for a region and an address at once, or a ``token_provider`` that cannot be called."""
    provider = settings.get("workload_identity", {}).get("provider")
    if provider is not None and not callable(provider["get_token"]):
        raise ConfigError(
            f"connection {conn_id!r}: 'token_provider' in its extra names no function. Name one that takes nothing "
            "and returns a token, as package.module.function."
        )
    if settings.get("data_residency") is not None and settings.get("base_url") is not None:
        raise ConfigError(
            f"connection {conn_id!r}: has 'data_residency' in {WHERE} and a host (or base_url), and each of them says "
            "where requests go. Leave one of them out."
        )


def _check(
    where: str, value: Any, kind: tuple[Callable[[Any], bool], str], *, may_miss: bool = False
) -> None:
    fits, wanted = kind
    if not fits(value) and not (may_miss and value is None):
        raise ConfigError(f"{where} is {_name_kind(value)}. Write {wanted}.")


def _name_kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a text", int: "a number", float: "a number", list: "a list"}
    return f"{names.get(type(value), 'an object')} that does not fit" if value else "empty or 0"
