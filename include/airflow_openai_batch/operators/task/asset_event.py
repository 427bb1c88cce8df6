"""Asset events that Airflow takes: a URI that it makes an asset of, and the first event when no other task sends one.

Airflow creates an asset with its first event, while it notes that the task has succeeded. Where two tasks end at the
same moment, one of them finds the other's row in its way, and Airflow marks it failed: without a retry, and without a
word in its log (``ti_update_state`` in airflow/api_fastapi/execution_api/routes/task_instances.py, seen with 3.3 on
PostgreSQL). From the second event on nothing is in the way.
"""

from __future__ import annotations

import logging
import random
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from airflow_openai_batch.access.locations import absolute_uri

if TYPE_CHECKING:
    from airflow.sdk import Asset

log = logging.getLogger(__name__)

TURN_S = 3.0
"""From a task's decision to send an event to the end of Airflow's transaction; usually half a second."""
MAX_TURNS = 20
LOOK_S = 1.0
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def make_asset_uri(uri: str) -> str:
    """Without the connection id that Airflow's object storage URIs may carry: the asset is the place.

    What is not ASCII stands in it as in a URL: of another one Airflow makes no asset, and notes a task that sends its
    event as failed, without a retry and without a word in its log.
    """
    parts = urlsplit(absolute_uri(uri))
    place = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return _NOT_ASCII.sub(lambda found: quote(found[0]), place)


def await_turn(asset: Asset, before: int | None) -> None:
    """Return at once where the asset has had an event; else as soon as it has one, or it is this task's turn.

    :param before: how many others may be about to send the asset's first event, and go before; None where no other
        task sends events of this asset.
    """
    if before is None or _has_event(asset):
        return
    # Two that know nothing of each other, such as runs of two jobs below one root, part by chance.
    patience_s = (min(before, MAX_TURNS) + random.random()) * TURN_S  # noqa: S311
    log.info("Up to %.1f s for another task that may be creating the asset %s.", patience_s, asset.uri)
    deadline = time.monotonic() + patience_s
    while (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left_s))
        if _has_event(asset):
            return


def _has_event(asset: Asset) -> bool:
    """Airflow's own way to an asset's events, the newest alone; operators have no other one."""
    try:
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import GetAssetEventByAsset

        question = GetAssetEventByAsset(name=asset.name, uri=asset.uri, limit=1, ascending=False)
        answer: Any = task_runner.SUPERVISOR_COMMS.send(msg=question)
        return bool(getattr(answer, "asset_events", ()))
    except Exception as error:  # another version, or no supervisor: then only time tells
        log.debug("Airflow could not be asked for events of an asset: %s", type(error).__name__)
        return False
