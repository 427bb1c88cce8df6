"""From a URI to a place in object storage with Airflow's credentials, and whether one may go there."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf
from airflow.sdk import ObjectStoragePath

from airflow_openai_batch.core.errors import ConfigError
from airflow_openai_batch.core.server_words import describe_error, remember_connection
from airflow_openai_batch.core.storage import Location

SECTION = "openai_batch"


def resolve_location(uri: str) -> Location:
    """A URI (``s3://conn_id@bucket/key``, ``gs://``, ``file://``) or plain path as a `Location`.

    :raises ConfigError: if there is no file system for it or its connection does not exist.
    """
    if "://" not in uri:
        uri = f"file://{Path(uri).expanduser().absolute()}"
    _check_connection(uri)
    try:
        path = ObjectStoragePath(uri)
        fs = path.fs
    except Exception as error:
        raise ConfigError(
            f"{uri}: no way to open it ({describe_error(error)}). Is the provider of this kind of storage "
            "installed and the connection named in the URI defined?"
        ) from None  # the cause may hold signed addresses and keys
    return Location(fs, path.path, uri)


def _check_connection(uri: str) -> None:
    """Some providers go on without credentials where the connection does not exist, and fail much later.

    :raises ConfigError: if the URI names one that does not.
    """
    conn_id, at, _ = urlsplit(uri).netloc.rpartition("@")
    if not at:
        return
    try:
        _find_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigError(
            f"{uri}: connection {conn_id!r} does not exist. Create it, or set AIRFLOW_CONN_{conn_id.upper()} on "
            "workers and triggerers, or leave it out of the URI to use the credentials of the machine."
        ) from None


@functools.lru_cache(maxsize=64)
def _find_connection(conn_id: str) -> None:
    """Once per process: a plan may name a thousand objects. What is not found is looked for again."""
    conn = BaseHook.get_connection(conn_id)
    remember_connection(conn.password, conn.extra_dejson)  # what its storage says is cleaned of it


def find_output_root() -> str:
    """Where job directories lie that nobody named: below ``[openai_batch] output_root``, or ``$AIRFLOW_HOME``."""
    home = os.environ.get("AIRFLOW_HOME", str(Path.home() / "airflow"))
    root = conf.get(SECTION, "output_root", fallback="") or f"file://{home}/openai_batch"
    return str(root).rstrip("/")


def find_books_folder(conn_id: str) -> str:
    """Where the book of a connection's months lies: below ``[openai_batch] books_root``, or where jobs do by default.

    All workers must share it, whatever storage their jobs are in.
    """
    root = str(conf.get(SECTION, "books_root", fallback="") or find_output_root()).rstrip("/")
    return f"{root}/.books/{re.sub(r'[^A-Za-z0-9_.-]', '-', conn_id)}"


def check_uri(uri: str, role: str) -> None:
    """Whoever may trigger a DAG may name URIs: hold them to the allow-list of ``[openai_batch]``.

    :param role: ``input`` or ``output``: the setting is ``allowed_input_roots`` or ``allowed_output_roots``,
        a comma-separated list; unset means no restriction.
    :raises ConfigError: if the URI is below none of the roots.
    """
    roots = _read_list(f"allowed_{role}_roots")
    if roots is None or any(_is_below(_normalize(uri), _normalize(root)) for root in roots):
        return
    raise ConfigError(
        f"{uri}: not below an allowed {role} root. [{SECTION}] allowed_{role}_roots lists {', '.join(roots)}."
    )


def check_conn_id(conn_id: str) -> None:
    """:raises ConfigError: if ``[openai_batch] allowed_conn_ids`` is set and does not list it."""
    allowed = _read_list("allowed_conn_ids")
    if allowed is not None and conn_id not in allowed:
        raise ConfigError(
            f"connection {conn_id!r}: not allowed. [{SECTION}] allowed_conn_ids lists {', '.join(allowed)}."
        )


def _read_list(option: str) -> list[str] | None:
    value = conf.get(SECTION, option, fallback="") or ""
    items = [item.strip() for item in value.split(",") if item.strip()]
    return items or None


def is_local(uri: str) -> bool:
    """A path on a disk, or a URI of one."""
    scheme, separator, _ = uri.partition("://")
    return not separator or scheme in ("file", "local")


def _normalize(uri: str) -> str:
    """One spelling for each place, so that ``..`` leads nowhere."""
    scheme, separator, rest = uri.partition("://")
    if is_local(uri):
        return "file://" + os.path.realpath(Path(rest if separator else uri).expanduser())
    return f"{scheme}://{os.path.normpath(rest)}"


def _is_below(uri: str, root: str) -> bool:
    return uri == root or uri.startswith(root.rstrip("/") + "/")
