"""What this machine has: cores to work on, and the place of the locks that processes of one user share.

The folder for temporary files is everybody's: another user may have put a folder or a link where ours is expected, to
have our locks held up or our files written elsewhere. The operating system lets go of a lock when its process dies.

filelock was tried in place of `fcntl.flock`: it asks again and again for a lock that is taken, so that those who wait
get it in any order, where the kernel has them in line; and it does not ask whose a lock's file is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from airflow_openai_batch.errors import ConfigError


def find_lock_folder() -> Path:
    """A folder of the user's own, since files of another one cannot be opened in a shared folder.

    :raises ConfigError: if somebody else has put something there.
    """
    folder = Path(tempfile.gettempdir()) / f"airflow-openai-batch-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise _make_foreign_error(folder, found)
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def open_lock(path: Path) -> int:
    """The file of a lock, which no process inherits that is started meanwhile. Closing it gives the lock back.

    :raises ConfigError: if it is a link or somebody else's.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        raise _make_foreign_error(path, path.lstat()) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        os.close(handle)
        raise _make_foreign_error(path, found)
    return handle


def take_first_free(paths: Iterable[Path], held: contextlib.ExitStack) -> bool:
    """Hold the first of these locks that nobody has, as long as ``held`` is open. False if all are taken.

    The files stay: removing a lock's file is a race.

    :raises ConfigError: if one is a link or somebody else's.
    """
    for path in paths:
        with contextlib.ExitStack() as opened:
            if try_lock(open_within(path, opened)):
                held.push(opened.pop_all())
                return True
    return False


def open_within(path: Path, stack: contextlib.ExitStack) -> int:
    """The file of a lock, given back and closed with ``stack``.

    :raises ConfigError: if it is a link or somebody else's.
    """
    handle = open_lock(path)
    stack.callback(os.close, handle)
    # Closing alone would leave it to a child that was forked meanwhile and lives on.
    stack.callback(fcntl.flock, handle, fcntl.LOCK_UN)
    return handle


def try_lock(handle: int) -> bool:
    """Take it if it is free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_foreign_error(path: Path, found: os.stat_result) -> ConfigError:
    kind = stat.filemode(found.st_mode)
    return ConfigError(
        f"{path}: must be ours (user {os.getuid()}) and no link, but is {kind} of user {found.st_uid}. Remove it, or "
        "set TMPDIR to a directory that nobody else may write to."
    )


def count_usable_cores() -> int:
    """Those that this process may use, where the system tells."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
