"""Rate limits: what headers say, as OpenAI writes them, and how they pace a send."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
import time_machine

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.rate_limits import (
    RealtimeLimits,
    parse_duration,
    read_allowance,
    read_retry_after,
)
from airflow_openai_batch.sending.realtime.pacing import Gate, Pace, Throttle


def headers(limit: object, remaining: object, reset: str, kind: str = "requests") -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"requests_per_minute": 0}, {"tokens_per_minute": -1}, {"max_retries": -1}]
)
def test_limits_check_themselves(wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name}={value}: must"):
        RealtimeLimits(**wrong)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8.64s", 8.64),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3s", 3_723.0),
        ("1d", 86_400.0),
        ("20", 20.0),
        ("", None),
        ("soon", None),
        ("5s!", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_a_limit_per_day_is_not_taken_for_one_per_minute() -> None:
    """OpenAI's headers name the requests per day of small accounts: 10,000 with 8.64 s for each."""
    per_day = read_allowance(headers(10_000, 9_999, "8.64s"), "requests")
    per_minute = read_allowance(headers(500, 499, "120ms"), "requests")
    assert per_day is not None
    assert per_minute is not None
    assert (per_day.per_minute, per_minute.per_minute) == (None, 500)


def test_what_is_used_up_is_waited_for() -> None:
    used_up = read_allowance(headers(10_000, 0, "24h0m0s"), "requests")
    half = read_allowance(headers(60_000, 30_000, "30s", "tokens"), "tokens")
    assert used_up is not None
    assert half is not None
    assert used_up.wait_for(1) == pytest.approx(8.64)
    assert half.wait_for(20_000) == 0
    assert half.wait_for(40_000) == pytest.approx(10)
    assert half.wait_for(10**9) == pytest.approx(30)  # more than ever fits: no longer than until all is free


@pytest.mark.parametrize("broken", [{}, headers("x", 1, "1s"), headers(10, 1, "later"), headers(0, 0, "1s")])
def test_headers_that_cannot_be_read_say_nothing(broken: dict[str, str]) -> None:
    assert read_allowance(broken, "requests") is None


def test_a_reset_is_never_further_away_than_a_day() -> None:
    found = read_allowance(headers(10, 0, f"{'9' * 400}s"), "requests")
    assert found is not None
    assert found.wait_for(1) <= 86_400


def test_retry_after_in_seconds_milliseconds_and_as_a_date() -> None:
    with time_machine.travel(datetime(2026, 1, 5, 12, 0, tzinfo=UTC), tick=False):
        assert read_retry_after({"retry-after": "Mon, 05 Jan 2026 12:00:30 GMT"}) == pytest.approx(30)
        assert read_retry_after({"retry-after": "Mon, 05 Jan 2026 11:00:00 GMT"}) == 0
    assert read_retry_after({"retry-after": "7"}) == 7
    assert read_retry_after({"retry-after": "7", "retry-after-ms": "6500"}) == 6.5
    assert read_retry_after({"retry-after": "soon"}) is None
    assert read_retry_after({}) is None


async def test_a_pace_is_even_and_large_amounts_wait_their_share() -> None:
    pace = Pace(6_000)  # 100 a second, 20 at once
    began = time.monotonic()
    await pace.take(60)  # more than a burst
    assert 0.35 < time.monotonic() - began < 10.0  # a busy machine is late
    await asyncio.wait_for(Pace(None).take(10**9), 0.1)


async def test_one_refusal_of_five_in_the_air_is_one_stall() -> None:
    gate = Gate()
    tickets = [await gate.enter() for _ in range(5)]
    for ticket in tickets:
        gate.refuse(ticket, None)
    assert 0 < gate.closed_s <= 1.5  # the first back-off, not the fifth
    gate.refuse(tickets[0], 7.0)
    assert gate.closed_s == pytest.approx(7.0, abs=0.5)


async def test_after_a_stall_the_others_follow_when_one_was_let_through() -> None:
    gate = Gate()
    gate.refuse(await gate.enter(), 0.01)
    first = await asyncio.wait_for(gate.enter(), 1)
    others = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in others)
    gate.leave(first, served=True)
    await asyncio.wait_for(asyncio.gather(*others), 1)


async def test_a_trial_that_learns_nothing_makes_place_for_the_next() -> None:
    gate = Gate()
    gate.refuse(await gate.enter(), 0.01)
    first = await asyncio.wait_for(gate.enter(), 1)
    others = [asyncio.create_task(gate.enter()) for _ in range(2)]
    gate.leave(first, served=False)
    await asyncio.sleep(0.05)
    assert sum(task.done() for task in others) == 1
    for task in others:
        task.cancel()


async def test_a_cancelled_wait_for_the_pace_does_not_block_the_gate() -> None:
    throttle = Throttle(RealtimeLimits(requests_per_minute=1))
    throttle.gate.refuse(await throttle.enter(0), 0.01)
    waiting = asyncio.create_task(throttle.enter(0))  # goes first, and waits a minute for its turn
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait({waiting})
    await asyncio.wait_for(throttle.gate.enter(), 1)


async def test_headers_win_over_presets_and_may_only_lower_what_was_chosen() -> None:
    preset = Throttle(RealtimeLimits(requests_per_minute=500))
    chosen = Throttle(RealtimeLimits(requests_per_minute=500, chosen=True))
    for throttle in (preset, chosen):
        throttle.learn(headers(5_000, 4_999, "12ms"), 0)
    assert (preset.requests_per_minute, chosen.requests_per_minute) == (5_000, 500)
    for throttle in (preset, chosen):
        throttle.learn(headers(100, 99, "600ms"), 0)
    assert (preset.requests_per_minute, chosen.requests_per_minute) == (100, 100)


async def test_a_pace_slows_down_where_others_use_the_limit_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace = Pace(6_000)
    for _ in range(3):
        pace.slow_down()  # to about a third
    pace.speed_up()  # too early
    began = time.monotonic()
    await pace.take(30)
    slow_s = time.monotonic() - began
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.pacing.RECOVERY_S", 0.0)
    for _ in range(12):
        pace.speed_up()
    began = time.monotonic()
    await pace.take(30)
    assert time.monotonic() - began < slow_s
