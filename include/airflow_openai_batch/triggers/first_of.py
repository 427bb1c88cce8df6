"""The trigger of a task that waits for several shards at once, each in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Self

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_openai_batch.triggers.held import HeldTrigger

SCHEMA_VERSION = 2
"""Of the arguments stored in Airflow's database while a task is deferred."""

Member = tuple[str, dict[str, Any]]
"""Class path and arguments of a trigger, as Airflow stores them."""


class FirstOfTrigger(HeldTrigger):
    """Fires once, as soon as one of several triggers does, with ``events``: what each of those that fired by then
    said, by its name.

    :param tables: the triggers, a table for each kind; see `fold_members`. On MySQL a stored trigger is a text of at
        most 64 KB, in which 50 bytes for each of 256 shards have room, and a whole trigger for each has not.
    :param poll_interval: seconds; the task is sent back to a worker no more often.
    :param triggers: by name, the class path and the arguments of each, as releases before 2 of the schema stored them.
    :param unknown: what another version of this class has stored. It is kept and handed on.
    """

    def __init__(
        self,
        *,
        tables: Sequence[Mapping[str, Any]] = (),
        poll_interval: float = 0.0,
        triggers: Mapping[str, Any] | None = None,
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check and no conversion here: an exception kills the whole triggerer.
        super().__init__()
        self.tables = tables
        self.poll_interval = poll_interval
        self.triggers = triggers
        self.schema_version = schema_version
        self.unknown = unknown
        self._members: dict[str, BaseTrigger] = {}

    @classmethod
    def of(cls, triggers: Mapping[str, BaseTrigger], *, poll_interval: float = 0.0) -> Self:
        """Of triggers that were made."""
        members = {name: trigger.serialize() for name, trigger in triggers.items()}
        return cls(tables=fold_members(members), poll_interval=poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {
            **self.unknown,
            "tables": list(self.tables),
            "poll_interval": self.poll_interval,
            "schema_version": self.schema_version,
        }
        if self.triggers:
            arguments["triggers"] = dict(self.triggers)
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def find_event(self) -> TriggerEvent:
        for name, (path, arguments) in read_members(self.serialize()[1]).items():
            member = make_trigger(path, arguments)
            member.task_instance = self.task_instance
            if isinstance(member, HeldTrigger):
                member.holds = False  # this one does
            self._members[name] = member
        return TriggerEvent({"events": await self._wait(), "schema_version": SCHEMA_VERSION})  # type: ignore[no-untyped-call]

    async def _wait(self) -> dict[str, Any]:
        waiting = {
            asyncio.create_task(_first_event(member), name=name) for name, member in self._members.items()
        }
        if not waiting:
            return {}
        try:
            done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if others and not any(task.exception() for task in done) and (hold_s := self.hold_left_s()):
                done = done.union((await asyncio.wait(others, timeout=hold_s))[0])
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


def fold_members(members: Mapping[str, Member]) -> list[dict[str, Any]]:
    """A table for each kind of trigger: what all have in common once, and a column for what differs."""
    by_path: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, (path, arguments) in members.items():
        by_path[path][name] = arguments
    return [_fold(path, rows) for path, rows in by_path.items()]


def _fold(path: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = rows.values()
    shared = {
        key: value
        for key, value in first.items()
        if all(key in each and each[key] == value for each in others)
    }
    own = sorted({key for each in rows.values() for key in each} - shared.keys())
    return {
        "path": path,
        "shared": shared,
        "names": list(rows),
        "columns": {key: [each.get(key) for each in rows.values()] for key in own},
    }


def read_members(arguments: Mapping[str, Any]) -> dict[str, Member]:
    """By name, the triggers that a stored one waits for, whichever release stored it."""
    members: dict[str, Member] = {
        name: (path, dict(stored)) for name, (path, stored) in (arguments.get("triggers") or {}).items()
    }
    for table in arguments.get("tables") or ():
        for row, name in enumerate(table["names"]):
            own = {key: column[row] for key, column in table["columns"].items()}
            members[name] = (table["path"], {**table["shared"], **own})
    return members


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
