"""What the package tells Airflow's metrics: StatsD, Datadog or OpenTelemetry, as `[metrics]` of the configuration says.

Datadog, OpenTelemetry and StatsD with InfluxDB tags get one name with tags. Plain StatsD drops tags, so there their
values stand in the name, in the order they are given in, as in Airflow's own older names:
``openai_batch.sends.openai_default.gpt-6-luna.nightly.batch``. A metric that cannot be sent fails nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_openai_batch.openai_api.models import base_model

if TYPE_CHECKING:
    from concurrent.futures import Executor

log = logging.getLogger(__name__)

PREFIX = "openai_batch"
LONGEST_PART = 60
"""Characters of a tag's value; Airflow drops names beyond 250."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_CODE = re.compile(r"[a-z][a-z0-9_]*")


def count(name: str, value: int = 1, **tags: str) -> None:
    """Add to a counter.

    :param tags: a few values each: no batch ids, no shard numbers.
    """
    if value > 0:
        _send("incr", name, value, tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Set what something is now. StatsD keeps it until it is set again, so what has ended is set to 0."""
    _send("gauge", name, value, tags)


def soon(tell: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """From an event loop: in a thread of its own, in order, since the first metric looks up a host name."""
    if is_on():
        asyncio.get_running_loop().run_in_executor(_thread(), functools.partial(tell, *args, **kwargs))


@functools.cache
def is_on() -> bool:
    """Whether anybody listens; where nobody does, nothing is worked out."""
    return any(
        conf.getboolean("metrics", name, fallback=False)
        for name in ("statsd_on", "statsd_datadog_enabled", "otel_on")
    )


@functools.cache
def _has_tags() -> bool:
    """Whether the tags arrive: Airflow asks for Datadog first, then StatsD, then OpenTelemetry."""
    if conf.getboolean("metrics", "statsd_datadog_enabled", fallback=False):
        return bool(conf.getboolean("metrics", "statsd_datadog_metrics_tags", fallback=True))
    if conf.getboolean("metrics", "statsd_on", fallback=False):
        return bool(conf.getboolean("metrics", "statsd_influxdb_enabled", fallback=False))
    return True


@functools.cache
def _thread() -> Executor:
    return ThreadPoolExecutor(1, thread_name_prefix="openai-batch-metrics")


def _send(how: str, name: str, value: float, tags: dict[str, str]) -> None:
    if not is_on():
        return
    fit = {key: _fit(key, text) for key, text in tags.items()}
    try:
        send = getattr(_find_stats(), how)
        if _has_tags():
            send(f"{PREFIX}.{name}", value, tags=fit)
        else:
            send(".".join((PREFIX, name, *fit.values())), value)
    except Exception as error:
        log.debug("No metric %s: %s", name, type(error).__name__)


@functools.cache
def _find_stats() -> Any:
    """It has moved from one release of Airflow to the next; the provider knows where it is."""
    from airflow.providers.common.compat.sdk import Stats

    if hasattr(Stats, "initialize"):  # from 3.2 on; the process in which triggers run does not do it (3.3.2)
        from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

        names = conf.getboolean("metrics", "legacy_names_on", fallback=True)
        Stats.initialize(factory=get_stats_factory(), export_legacy_names=names)
    return Stats


def _fit(key: str, text: str) -> str:
    """Of letters that every backend takes, without the dot, which would be another level of the name."""
    if key == "model":
        text = base_model(text)  # dates and names of fine-tuned ones would be without end
    elif key == "error_code" and not _CODE.fullmatch(text):
        text = "other"
    return _UNFIT.sub("_", text)[:LONGEST_PART] or "none"
