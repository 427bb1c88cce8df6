"""The name of the "host" that a process is on: containers have their own, and so do those who play them here."""

from __future__ import annotations

import os


def get_name() -> str:
    """Airflow's ``[core] hostname_callable``; Docker sets HOSTNAME as well."""
    return os.environ["HOSTNAME"]
