"""An hour without OpenAI: how often it is asked, and what is said of it."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import TransientError
from airflow_openai_batch.triggers.stall import Stall


def test_an_hour_costs_few_calls_and_a_line_every_five_minutes() -> None:
    now, calls, lines = 0.0, 0, []
    stall = Stall(now)
    while now < 3600:
        calls += 1
        if (line := stall.meet(TransientError("no way to OpenAI"), now)) is not None:
            lines.append(line)
        now += stall.wait_s(None)
    assert 25 < calls < 60
    assert 10 <= len(lines) <= 13
    assert "for " not in lines[0]
    assert "min now" in lines[1]
    assert all("no way to OpenAI" in line for line in lines)
    assert "60 min" in stall.end(3600.0)


def test_it_is_asked_again_soon_at_first_and_two_minutes_later_at_most() -> None:
    stall = Stall(0.0)
    waits = []
    for _ in range(30):
        stall.meet(TransientError("x"), 0.0)
        waits.append(stall.wait_s(None))
    assert waits[0] < 3
    assert max(waits) <= 150
    assert len(set(waits)) == 30  # a thousand triggerers do not come back at the same moment


@pytest.mark.parametrize("asked_s", [0.5, 20.0, 1800.0])
def test_never_sooner_than_the_server_asked(asked_s: float) -> None:
    stall = Stall(0.0)
    stall.meet(TransientError("x"), 0.0)
    assert asked_s <= stall.wait_s(asked_s) <= asked_s * 1.1


def test_a_server_that_asks_for_a_week_is_asked_within_the_hour() -> None:
    assert Stall(0.0).wait_s(604_800.0) <= 3600 * 1.1
