"""How many shards land at once on this machine, as Airflow's configuration says, and what waiting for it looks like."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from airflow.providers.common.compat.sdk import conf

from airflow_openai_batch.access.settings import SECTION
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.task.parameters import read_optional_int
from airflow_openai_batch.results.landing_slots import count_default_slots, take_landing_slot
from airflow_openai_batch.wording import number_of

log = logging.getLogger(__name__)

OPTION = "landings_per_machine"


@contextlib.contextmanager
def wait_to_land(slots: int, *, show: Callable[[str], None]) -> Iterator[None]:
    """Hold one of the machine's places for landing.

    :param show: told what is waited for, and nothing once that is over.
    """
    waited = False

    def tell() -> None:
        nonlocal waited
        waited = True
        text = f"waits to land: {number_of(slots, 'landing')} at once on this machine"
        log.info("%s ([%s] %s).", text.capitalize(), SECTION, OPTION)
        show(text)

    with take_landing_slot(slots, tell):
        if waited:
            log.info("Landing.")
            show("")
        yield


def read_landing_slots() -> int:
    """:raises ConfigError: if it is no whole number above 0."""
    name = f"[{SECTION}] {OPTION}"
    slots = read_optional_int(name, conf.get(SECTION, OPTION, fallback=""))
    if slots is not None and slots < 1:
        raise ConfigError(f"{name}={slots}: must be at least 1; leave it empty for one per core and GB.")
    return count_default_slots() if slots is None else slots
