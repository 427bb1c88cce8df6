"""Where Qdrant's files lie on this machine, for trying things out without a server.

Whoever writes these files runs code on the worker: the client unpickles the rows that it finds in them. So nobody
names the folder, no form and no argument: it has a fixed place, in which no job and no table may lie.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from airflow_openai_batch.access.settings import find_home_root, find_output_root
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.uris import is_local_uri

FOLDER = ".qdrant"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,120}")


def find_qdrant_folder(name: str) -> Path:
    """Below ``output_root``, or below what it is by default where that is in object storage.

    :param name: of the store, for instance the DAG's id.
    :raises ConfigError: if it is no name.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: is no name of a store: letters, digits, '_', '-' and '.'.")
    root = find_output_root()
    local = root if is_local_uri(root) else find_home_root()
    return Path(local.partition("://")[2] if "://" in local else local).expanduser() / FOLDER / name


def make_private(folder: Path) -> None:
    """Create the folder, for this user alone.

    :raises ConfigError: if somebody else could have put files there.
    """
    for each in (folder.parent, folder):
        each.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
        found = each.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigError(
                f"{each}: is a link, or belongs to another user. Qdrant's files hold what is executed when they are "
                "read: remove it, or give it to the user of the workers."
            )
        if stat.S_IMODE(found.st_mode) & 0o022:
            raise ConfigError(
                f"{each}: others may write to it, and Qdrant's files hold what is executed when they are read. If "
                f"nobody did: chmod 700 {each}."
            )
        each.chmod(0o700)


def check_collection(name: str) -> None:
    """The name of a collection becomes that of a folder.

    :raises ConfigError: if it is empty or names a path.
    """
    if not name.strip():
        raise ConfigError("collection is empty: name the Qdrant collection.")
    if name.strip(".") == "" or re.search(r"[/\\\x00-\x1f]", name) or len(name) > 255:
        raise ConfigError(f"collection {name[:80]!r}: is no name: no slashes, at most 255 characters.")
