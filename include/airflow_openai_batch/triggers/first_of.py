"""The trigger of a task that waits for several shards at once, each in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from airflow.triggers.base import BaseTrigger, TriggerEvent

SCHEMA_VERSION = 1
"""Of the arguments stored in Airflow's database while a task is deferred."""


class FirstOfTrigger(BaseTrigger):
    """Fires once, as soon as one of several triggers does, with ``events``: what each of those that fired by then
    said, by its name.

    :param triggers: by name, the class path and the arguments of each.
    :param unknown: what another version of this class has stored. It is kept and handed on.
    """

    def __init__(
        self,
        *,
        triggers: Mapping[str, Any] | None = None,
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check and no conversion here: an exception kills the whole triggerer.
        super().__init__()  # type: ignore[no-untyped-call]
        self.triggers = triggers
        self.schema_version = schema_version
        self.unknown = unknown
        self._members: dict[str, BaseTrigger] = {}

    @classmethod
    def of(cls, triggers: Mapping[str, BaseTrigger]) -> Self:
        """Of triggers that were made."""
        return cls(triggers={name: list(trigger.serialize()) for name, trigger in triggers.items()})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**self.unknown, "triggers": dict(self.triggers or {}), "schema_version": self.schema_version},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        for name, (path, arguments) in (self.triggers or {}).items():
            member = make_trigger(path, arguments)
            member.task_instance = self.task_instance
            self._members[name] = member
        yield TriggerEvent({"events": await self._wait(), "schema_version": SCHEMA_VERSION})  # type: ignore[no-untyped-call]

    async def _wait(self) -> dict[str, Any]:
        waiting = {
            asyncio.create_task(_first_event(member), name=name) for name, member in self._members.items()
        }
        if not waiting:
            return {}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return {task.get_name(): task.result() for task in done}
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)  # each gives back what it holds

    async def on_kill(self) -> None:
        """Called by Airflow 3.3 after what a user does to the task; each trigger knows what that means for it."""
        kills = [member.on_kill() for member in self._members.values() if hasattr(member, "on_kill")]
        await asyncio.gather(*kills, return_exceptions=True)

    async def cleanup(self) -> None:
        await asyncio.gather(*(member.cleanup() for member in self._members.values()), return_exceptions=True)


def make_trigger(path: str, arguments: Mapping[str, Any]) -> BaseTrigger:
    """From the class path and the arguments, as Airflow stores them."""
    module, _, kind = path.rpartition(".")
    trigger: BaseTrigger = getattr(importlib.import_module(module), kind)(**arguments)
    return trigger


async def _first_event(trigger: BaseTrigger) -> Any:
    async with contextlib.aclosing(trigger.run()) as events:  # type: ignore[type-var]  # an async generator
        async for event in events:
            return event.payload
    raise RuntimeError(f"{type(trigger).__name__} ended without an event")
