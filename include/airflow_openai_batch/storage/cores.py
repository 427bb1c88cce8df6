"""How many cores there are to work on."""

from __future__ import annotations

import os


def count_usable_cores() -> int:
    """Those that this process may use, where the system tells."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
