"""What arrives at a StatsD server, in a process of its own, since Airflow settles its metrics once per process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

CODE = """
from airflow_openai_batch.hooks import metrics
tags = {"conn_id": "my.conn id", "model": "ft:gpt-4o-mini-2024-07-18:acme::x1", "dag_id": "d"}
metrics.count("sends", **tags, sent_as="batch")
metrics.count("rows", 5, **tags, status="ok")
metrics.count("rows", 0, **tags, status="failed")
metrics.count("failures", 2, **tags, error_code="You exceeded: sk-123")
metrics.gauge("batches_in_flight", 3, conn_id="c", model="gpt-4o")
print(metrics.is_on())
"""
TAGS = "conn_id=my_conn_id,model=gpt-4o-mini,dag_id=d"


@pytest.fixture
def port_of() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.5)
        yield listener


def send(listener: socket.socket, **settings: str) -> list[str]:
    """Our datagrams."""
    env = {
        **os.environ,
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(listener.getsockname()[1]),
        **{f"AIRFLOW__METRICS__{name.upper()}": value for name, value in settings.items()},
    }
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True)
    found = []
    while True:
        try:
            found.append(listener.recv(4096).decode())
        except TimeoutError:
            break
    assert str(bool(found)) in done.stdout
    return [line for line in found if "openai_batch" in line]


def test_plain_statsd_has_tags_in_names_without_what_would_break_or_multiply_them(
    port_of: socket.socket,
) -> None:
    begin = "airflow.openai_batch"
    assert send(port_of, statsd_on="True") == [
        f"{begin}.sends.my_conn_id.gpt-4o-mini.d.batch:1|c",
        f"{begin}.rows.my_conn_id.gpt-4o-mini.d.ok:5|c",
        f"{begin}.failures.my_conn_id.gpt-4o-mini.d.other:2|c",
        f"{begin}.batches_in_flight.c.gpt-4o:3|g",
    ]


def test_where_tags_arrive_names_stay_short(port_of: socket.socket) -> None:
    found = send(port_of, statsd_on="True", statsd_influxdb_enabled="True")
    assert found[0] == f"airflow.openai_batch.sends,{TAGS},sent_as=batch:1|c"
    assert found[-1] == "airflow.openai_batch.batches_in_flight,conn_id=c,model=gpt-4o:3|g"


def test_nothing_is_sent_where_nobody_listens(port_of: socket.socket) -> None:
    assert send(port_of) == []
