"""Waiting for several shards at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from airflow_openai_batch.triggers.first_of import FirstOfTrigger
from fixtures import simple_triggers
from fixtures.simple_triggers import SimpleTrigger


@pytest.fixture(autouse=True)
def seen() -> list[str]:
    """What happened to which trigger."""
    simple_triggers.seen.clear()
    return simple_triggers.seen


def make(**after_s: float | None) -> FirstOfTrigger:
    """Of triggers that fire after so many seconds, as it comes out of Airflow's database."""
    made = FirstOfTrigger.of({name: SimpleTrigger(name=name, after_s=s) for name, s in after_s.items()})
    _, arguments = made.serialize()
    return FirstOfTrigger(**arguments)


async def run(trigger: FirstOfTrigger) -> Any:
    found = [event async for event in trigger.run()]
    assert len(found) == 1
    assert isinstance(found[0], TriggerEvent)
    return found[0].payload


async def test_it_fires_with_the_first_and_the_others_give_back_what_they_hold(seen: list[str]) -> None:
    payload = await run(make(a=None, b=0.0, c=None))
    assert payload["events"] == {"b": {"name": "b"}}
    assert sorted(seen) == ["a ended", "b ended", "c ended"]


async def test_those_that_fire_together_are_all_told() -> None:
    payload = await run(make(a=0.0, b=0.0, c=None))
    assert payload["events"] == {"a": {"name": "a"}, "b": {"name": "b"}}


async def test_what_a_user_does_to_the_task_reaches_each(seen: list[str]) -> None:
    trigger = make(a=None, b=None)
    task = asyncio.create_task(run(trigger))
    for _ in range(20):  # until each of them waits
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await trigger.on_kill()
    await trigger.cleanup()
    assert sorted(seen) == [f"{name} {what}" for name in "ab" for what in ("cleaned up", "ended", "killed")]


async def test_a_failure_is_the_tasks_and_the_others_end(seen: list[str]) -> None:
    failing = SimpleTrigger(name="a", after_s=0.0, fails=True)
    trigger = FirstOfTrigger.of({"a": failing, "b": SimpleTrigger(name="b", after_s=None)})
    with pytest.raises(RuntimeError, match="a"):
        await run(trigger)
    assert "b ended" in seen


async def test_what_another_version_stored_is_kept() -> None:
    trigger = FirstOfTrigger(later="x")
    assert trigger.serialize()[1]["later"] == "x"
    assert (await run(trigger))["events"] == {}
