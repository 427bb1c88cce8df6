"""From a URI to a place in object storage with Airflow's credentials."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.sdk import ObjectStoragePath

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.permissions import check_uri, find_roots
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.server_words import describe_error, remember_connection
from airflow_openai_batch.storage.location import Location
from airflow_openai_batch.storage.uris import is_local_uri, parse_uri

if TYPE_CHECKING:
    from airflow_openai_batch.access.permissions import Role
    from airflow_openai_batch.storage.location import Resolver


def open_place(uri: str, role: Role, giver: Giver = Giver.FORM) -> Location:
    """A place that somebody named, checked, and confined to what they may name.

    What lies in a directory that is written to stays in it, whoever named it: no link in it leads out.

    :raises ConfigError: as `check_uri` and `resolve_location`.
    """
    uri = uri.strip()
    check_uri(uri, role, giver)
    place = resolve_location(uri)
    if not place.is_local:
        return place
    roots = find_roots(role, giver)
    if roots is not None:
        place = place.within(tuple(parse_uri(root).key for root in roots if is_local_uri(root)))
    if role == "input":
        return place
    place.check_bounds()  # what became of the name: a client drops a "#" at its end, for instance
    return place.within((os.path.realpath(place.path),))


def make_resolver(role: Role, giver: Giver = Giver.FORM) -> Resolver:
    """`open_place` for what finds the URIs by itself."""
    return functools.partial(open_place, role=role, giver=giver)


def resolve_location(uri: str) -> Location:
    """A URI (``s3://conn_id@bucket/key``, ``gs://``, ``file://``) or plain path as a `Location`; checks nothing.

    :raises ConfigError: if there is no file system for it or its connection does not exist.
    """
    uri = absolute_uri(uri)
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


def absolute_uri(uri: str) -> str:
    """A plain path as a URI: ``~`` is the user's home, and what is relative is below the working directory.

    :raises ConfigError: for a ``file://`` URI that does not say from the root on where it is.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return f"file://{Path(uri).expanduser().absolute()}"
    if (
        scheme in ("file", "local")
        and not rest.rpartition("@")[2].startswith("/")
        and not rest.startswith("/")
    ):
        raise ConfigError(
            f"{uri}: a {scheme}:// URI needs the whole path, as in {scheme}:///data/{rest.lstrip('~/') or 'jobs'}."
        )
    return uri


def _check_connection(uri: str) -> None:
    """Some providers go on without credentials where the connection does not exist, and fail much later.

    :raises ConfigError: if the URI names one that does not.
    """
    conn_id, at, _ = urlsplit(uri).netloc.rpartition("@")
    if not at:
        return
    try:
        _find_connection(conn_id, int(time.monotonic() // _LOOK_EVERY_S))
    except AirflowNotFoundException:
        raise ConfigError(
            f"{uri}: connection {conn_id!r} does not exist. Create it, or set AIRFLOW_CONN_{conn_id.upper()} on "
            "workers and triggerers, or leave it out of the URI to use the credentials of the machine."
        ) from None


_LOOK_EVERY_S = 60.0
"""In a process that lives on, so that a new password is cleaned out of errors as well."""


@functools.lru_cache(maxsize=64)
def _find_connection(conn_id: str, _: int) -> None:
    """Seldom: a plan may name a thousand objects. What is not found is looked for again."""
    conn = BaseHook.get_connection(conn_id)
    remember_connection(conn.password, conn.extra_dejson)  # what its storage says is cleaned of it
