"""Folders and files on a disk that the user's own processes read, and nobody else's.

Requests and answers lie in them. Where several users share a job's disk (``run_as_user``), whoever sets it up says so
as one does on Unix: a directory above that hands its group on (``chmod g+rwxs``) is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def make_folders(path: str) -> None:
    """All that are missing; those that are there stay as they are."""
    missing = []
    folder = Path(path)
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        mode = FOLDER_MODE | _shared_mode(each.parent)
        with contextlib.suppress(FileExistsError):  # another process makes it, too
            each.mkdir(mode=FOLDER_MODE)
            if mode != FOLDER_MODE:
                each.chmod(mode)


def create_file(path: str, *, for_people: bool = False) -> BinaryIO:
    """A new file, open for writing.

    :param for_people: whoever may look into a folder may read what is put there for them: in an inbox, for instance.
    :raises FileExistsError: if something of this name is there, a link included.
    """
    folder = Path(path).parent
    shared = _shared_mode(folder) & 0o060
    if for_people:
        shared |= folder.stat().st_mode & 0o044
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    if shared:
        os.fchmod(handle, FILE_MODE | shared)
    return os.fdopen(handle, "wb")


def _shared_mode(folder: Path) -> int:
    """What the group may do, of a folder that hands its group on."""
    mode = folder.stat().st_mode
    return mode & (stat.S_ISGID | stat.S_IRWXG) if mode & stat.S_ISGID else 0
