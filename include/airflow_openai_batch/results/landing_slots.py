"""At most so many landings at once on a machine, whatever processes they run in.

Landing takes a core and up to 240 MB, and shards that were sent together tend to end together: a worker of sixteen
slots would land sixteen of them at once, and on a small machine die of it. A pool of Airflow's would be the wrong
measure: it counts tasks over all machines, so that two large workers share what was meant for one small one, and it
counts them for as long as they run, with all that a shard does besides; nobody has it before it is made, either.
(Whoever wants one can still name it: ``pool=`` of the operators.)

Who waits does so in its process, asleep, since a landing takes seconds: going to the triggerer and back costs as
much as landing. A landing asks for nothing else that is limited, and a send in real time gives its place back before
its shard lands, so that no two wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.storage.this_machine import (
    count_usable_cores,
    find_lock_folder,
    open_within,
    take_first_free,
    try_lock,
)

MEMORY_PER_LANDING = 1_000_000_000
"""Bytes: 240 MB at most for the landing, its task's process around it, and what else the machine does."""
LOOK_EVERY_S = 0.2
PATIENCE_S = 3 * 3600.0
"""For a place: a hundred landings of a minute each may well be before this one."""
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of a container: version 2, version 1."""


def count_default_slots() -> int:
    """One for each core that this process may use, as far as the machine's (or the container's) memory goes."""
    return max(1, min(count_usable_cores(), _read_memory() // MEMORY_PER_LANDING))


def _read_memory() -> int:
    """Bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or ``max``
            limits.append(int(place.read_text()))
    return min(limits)


class LandingBusyError(OpenAIBatchError):
    """No place for landing came free: one of those that hold them may hang. What was answered waits at OpenAI."""

    permanent = False

    def __init__(self, folder: Path, patience_s: float) -> None:
        super().__init__(
            f"{folder}: no place for landing came free within {patience_s:,.0f} s. A process that holds one may hang: "
            f"`fuser -v {folder}/landing.*.lock` names them. End it, and its place is free; or raise [openai_batch] "
            "landings_per_machine."
        )


@contextlib.contextmanager
def take_landing_slot(
    slots: int, on_wait: Callable[[], None], patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Hold one of the machine's places for landing; waits for one, in the order of arrival.

    Whoever comes stands in line for one lock, which the kernel hands on in order; only the first in line looks for a
    free place.

    :param slots: how many places there are; processes that were told different numbers share the first ones.
    :param on_wait: called once, where there is something to wait for.
    :param patience_s: seconds.
    :raises LandingBusyError: if none came free for so long.
    """
    folder = find_lock_folder()
    places = [folder / f"landing.{number}.lock" for number in range(slots)]
    until = time.monotonic() + patience_s
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as line:
            first = open_within(folder / "landing.line.lock", line)
            told = not try_lock(first)
            if told:
                on_wait()
                if not _lock_in_turn(first, patience_s):
                    raise LandingBusyError(folder, patience_s)
            while not take_first_free(places, held):
                if not told:
                    told = True
                    on_wait()
                if time.monotonic() >= until:
                    raise LandingBusyError(folder, patience_s)
                time.sleep(LOOK_EVERY_S)
        yield


def _lock_in_turn(handle: int, patience_s: float) -> bool:
    """Wait for it as the kernel hands it on, which knows no time-out: in a thread, with a handle of its own to the same
    lock, so that whoever gives up may close theirs."""
    own, taken = os.dup(handle), threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            taken.set()
        finally:
            os.close(own)

    threading.Thread(target=wait, name="landing-line", daemon=True).start()
    return taken.wait(patience_s)
