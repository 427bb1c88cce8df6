"""The images that a row names, as they go into its request.

Rows come from strangers: a path in one is read only where it leads below the prefix that the DAG declared, and
only through that prefix's own connection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.requests.tokens.images import seen_size
from airflow_openai_batch.storage.sources import explained, is_no_file
from airflow_openai_batch.tables.preparation.image_check import MAX_PIXELS, ImageCheck
from airflow_openai_batch.tables.preparation.image_formats import find_formats, load_pillow
from airflow_openai_batch.tables.prompts.request_bodies import Picture
from airflow_openai_batch.tables.prompts.templates import BadRowError

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts.spec import ImageSpec

_DATA_URL = re.compile(r"data:image/[a-z+.-]+;base64,", re.IGNORECASE)
_USER = re.compile(r"^([a-z0-9+.-]+://)[^/@]*@")


class PictureLoader:
    """Loads the images of rows for one prompt. May be used by several threads.

    :param root: what paths in rows must lie below; without it rows may name web addresses and data URLs only.
    :param model: that looks at them; what it does not see of them is not sent.
    :raises ConfigError: if something is asked for that needs Pillow and it is not installed.
    """

    def __init__(self, images: Sequence[ImageSpec], root: Location | None, *, model: str) -> None:
        self._columns = [(spec, _make_check(spec, model)) for spec in images]
        self._root = root

    def load(self, values: Mapping[str, Any]) -> list[Picture]:
        """The images of one row, in the order of the prompt's.

        :raises BadRowError: if one is missing, damaged, too large or not where it may be.
        :raises ConfigError: if rows name files and no root was declared.
        :raises UnreadableInputError: if the storage does not answer.
        """
        pictures = []
        for spec, check in self._columns:
            value = values.get(spec.column)
            named = value if isinstance(value, list) else [value]
            found = [each for each in named if each not in (None, "")]
            if not found and not spec.optional:
                raise BadRowError(f"column {spec.column!r} names no image")
            for each in found:
                try:
                    pictures.append(Picture(self._make_url(each, spec, check), spec.detail))
                except BadRowError as error:
                    raise BadRowError(f"{spec.column}: {error}") from None
        return pictures

    def _make_url(self, value: object, spec: ImageSpec, check: ImageCheck) -> str:
        if isinstance(value, dict):  # as data sets of images in Parquet have it: {"bytes": ..., "path": ...}
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return _to_data_url(*check.check(value))
        if not isinstance(value, str):
            raise BadRowError("is neither a path nor an address")
        if value.startswith(("https://", "http://")):
            return value
        if value[:5].lower() == "data:":
            return _to_data_url(*check.check(_read_data_url(value)))
        if self._root is None:
            raise ConfigError(
                f"images: rows name files in column {spec.column!r}, and no images_root says where they may lie. "
                "Set images_root to the directory that holds them."
            )
        data = _read_file(find_below(self._root, value), check)
        return _to_data_url(*check.check(data))


def _make_check(spec: ImageSpec, model: str) -> ImageCheck:
    def find_seen(size: tuple[int, int]) -> tuple[int, int]:
        return seen_size(*size, model=model, low_detail=spec.detail == "low")

    return ImageCheck(max_side=spec.max_side, max_bytes=spec.max_bytes, find_seen=find_seen)


def describe_reading(images: Sequence[ImageSpec]) -> str:
    """What decides which files are rejected, as a short text: the prompt's images, what can be decoded, how much."""
    pillow = load_pillow()
    formats = [] if pillow is None else find_formats(pillow)
    decides = msgspec.json.encode([images, formats, MAX_PIXELS])
    return hashlib.blake2b(decides, digest_size=8).hexdigest()


def find_below(root: Location, path: str) -> Location:
    """The place that a path or URI from a row names, if it lies below the root.

    :raises BadRowError: if it does not. The message does not quote the path.
    """
    name = _strip_root(root, path)
    if name is None or not name or "\0" in name or ".." in name.split("/"):
        raise BadRowError("the image does not lie below images_root")
    place = root.child(name)
    if root.is_local:
        base = os.path.realpath(root.path)
        if not os.path.realpath(place.path).startswith(base.rstrip("/") + "/"):
            raise BadRowError("the image does not lie below images_root")  # a link leads out
    return place


def _strip_root(root: Location, path: str) -> str | None:
    """The path below the root; None where it names another place."""
    if "://" not in path and not path.startswith("/"):
        return path
    if path.startswith("/"):
        path = f"file://{path}"
    roots = {root.uri if "://" in root.uri else f"file://{root.uri}"}
    if root.is_local:
        roots.add(f"file://{root.path}")
    roots |= {_USER.sub(r"\1", uri) for uri in roots}  # the same bucket, by the connection of the root
    for each in roots:
        base = each.rstrip("/") + "/"
        if path.startswith(base):
            return path[len(base) :]
    return None


def _read_file(place: Location, check: ImageCheck) -> bytes:
    limit = check.most_read_bytes
    try:
        info = place.fs.info(place.path)
        if is_no_file(place, info):
            raise BadRowError("the image is a device or a pipe")
        size = info["size"]
        if size is None or size <= limit:
            data = place.read_at_most(limit)
            if len(data) <= limit:
                return data
            size = len(data)
        raise BadRowError(f"the image file has {size:,} bytes, limit {limit:,}")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadRowError("there is no such image file") from None
    except PermissionError:
        raise BadRowError("the image file may not be read") from None
    except OSError as error:
        with explained(place.uri):
            raise error


def _read_data_url(url: str) -> bytes:
    head = _DATA_URL.match(url)
    if head is None:
        raise BadRowError("the data URL holds no image in base64")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise BadRowError("the data URL is not valid base64") from None


def _to_data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
