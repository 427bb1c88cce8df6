"""URIs of object storage, taken apart: which scheme, connection, bucket and key, each compared for itself.

As a text, ``s3://other@evil/../conn@bucket/jobs/x`` begins with nothing that is allowed and ends in something that is;
what a client makes of it is a third thing. So nothing is normalised here that a client would not normalise, and what
could mean two things is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from airflow_openai_batch.errors import ConfigError

_SCHEME = re.compile(r"[a-z][a-z0-9]*\Z")
_LOCAL = ("file", "local")
PUT_IT_THERE = "Put the file itself there, or allow the place that it leads to."
WHERE_IT_LEADS = "<where the link leads>"
"""In place of that: whoever reads the error of a form need not learn it, and who may set up Airflow can look."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class StorageUri:
    """A place in object storage; of a local disk the real path, with all links followed."""

    scheme: str
    connection: str
    """Id of an Airflow connection; empty: the credentials of the machine."""
    bucket: str
    key: str

    def is_below(self, root: StorageUri) -> bool:
        """Whether it is the root or lies below it, through the same connection."""
        same = (self.scheme, self.connection, self.bucket) == (root.scheme, root.connection, root.bucket)
        return same and is_path_below(self.key, root.key)


def is_path_below(path: str, root: str) -> bool:
    """Of two keys or paths; a root without a name is the whole bucket or disk."""
    root = root.rstrip("/")
    return not root or path == root or path.startswith(f"{root}/")


def is_local_uri(uri: str) -> bool:
    """A path on a disk, or a URI of one."""
    scheme, separator, _ = uri.partition("://")
    return not separator or scheme.lower() in _LOCAL


def find_link_out(uri: str, bounds: Iterable[str]) -> str | None:
    """The symbolic link on the way to a local place by which it comes to lie outside, as it was named.

    :param bounds: real paths.
    """
    if not is_local_uri(uri):
        return None
    bounds, found, is_inside = tuple(bounds), None, False
    path = Path(uri.strip().partition("://")[2] or uri.strip()).expanduser().absolute()
    for place in (*reversed(path.parents), path):
        was_inside, real = is_inside, os.path.realpath(place)
        is_inside = any(is_path_below(real, bound) for bound in bounds)
        found = None if is_inside else str(place) if was_inside else found
    return found


def parse_uri(uri: str) -> StorageUri:
    """Take apart what a person named; a path without a scheme is one on this machine.

    :raises ConfigError: for what is no plain address of one place.
    """
    if _UNPRINTABLE.search(uri):
        raise ConfigError(f"{uri!r}: has characters that cannot be printed. Name the place without them.")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        path = Path(uri).expanduser()
        check_segments(uri, str(path))
        return StorageUri("file", "", "", os.path.realpath(path.absolute()))
    if not _SCHEME.match(scheme):
        raise ConfigError(
            f"{uri}: {scheme!r} is no scheme that can be used here (small letters; no chain of protocols)."
        )
    if scheme in _LOCAL:
        if not rest.startswith("/"):
            raise ConfigError(f"{uri}: a file on this machine is named by its whole path: {scheme}:///path.")
        check_segments(uri, rest)
        return StorageUri("file", "", "", os.path.realpath(rest))
    authority, _, key = rest.partition("/")
    connection, at, bucket = authority.rpartition("@")
    if not bucket or (at and not connection) or re.search(r"[?#\\%]", authority):
        raise ConfigError(
            f"{uri}: is no address of the form {scheme}://connection@bucket/key, the connection optional."
        )
    if "#" in key or re.search(r"\?[^/]*=", key):
        raise ConfigError(f"{uri}: has a query or a fragment. Name the object alone.")
    check_segments(uri, key)
    return StorageUri(scheme, connection, bucket, key.rstrip("/"))


def check_segments(uri: str, path: str) -> None:
    """No part of a path may lead upwards, stand for nothing, or become something else once it is decoded.

    :param uri: for the message.
    :raises ConfigError: for such a part.
    """
    for part in path.strip("/").split("/"):
        decoded = unquote(part)
        if (
            decoded in (".", "..")
            or "\\" in part
            or (decoded != part and re.search(r"[/\\\x00-\x1f]", decoded))
        ):
            raise ConfigError(f"{uri}: the part {part!r} of its path is not allowed. Name the place itself.")
    if "//" in path.rstrip("/") or path.startswith("//"):
        raise ConfigError(f"{uri}: two slashes in a row in its path. Name the place with one.")
