"""From a scenario that fails to the smallest that still does: what is left is what it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from simulation.scenario import Scenario
from simulation.simulate import SimulationError, simulate

MOST_TRIES = 400
"""Simulations; a shrunk scenario takes a few milliseconds."""
_LISTS = ("faults", "kills", "storage_errors", "spells", "strangers", "runs")
_PLAIN = (
    "kill_after_events",
    "deletes_upload_at_s",
    "finish_within_s",
    "max_cost_usd",
    "told_limit",
    "mode",
    "on_deadline",
    "max_attempts",
    "poll_s",
    "realtime_threshold",
)
"""Fields that may have their default instead; whatever else is there shrinks in a way of its own."""
_SETTINGS = (
    "list_lag_s",
    "finalizing_s",
    "cancelling_s",
    "validating_s",
    "in_progress_s",
    "queue_limits",
    "list_page_most",
    "clock_skew_s",
)
_FAULT_FIELDS = ("skip", "times", "file_lag", "omit", "unfinished", "done", "shard")


def shrink(scenario: Scenario) -> tuple[Scenario, SimulationError]:
    """Leave out one thing after another, as long as the simulation fails in the same way.

    :return: the smallest scenario found, and how it fails.
    :raises ValueError: if the scenario does not fail.
    """
    error = _try(scenario)
    if error is None:
        raise ValueError("the scenario does not fail")
    kind, tries = _kind(error), 0
    smaller = True
    while smaller and tries < MOST_TRIES:
        smaller = False
        for candidate in _iter_smaller(scenario):
            tries += 1
            found = _try(candidate)
            if found is not None and _kind(found) == kind:
                scenario, error, smaller = candidate, found, True
                break
            if tries >= MOST_TRIES:
                break
    return scenario, error


def describe_drawn(scenario: Scenario) -> str:
    """The scenario without what has its default: what it takes to fail, as Python."""
    drawn = {
        field.name: getattr(scenario, field.name)
        for field in fields(scenario)
        if field.name == "seed" or getattr(scenario, field.name) != _default(field.name)
    }
    return f"Scenario({', '.join(f'{name}={value!r}' for name, value in drawn.items())})"


def _try(scenario: Scenario) -> SimulationError | None:
    try:
        simulate(scenario)
    except SimulationError as error:
        return error
    return None


def _kind(error: SimulationError) -> str:
    """What went wrong, without the numbers."""
    first = str(error).partition("\n")[0]
    return re.sub(r"batch_\w+|\d+", "", first)[:60]


def _default(name: str) -> Any:
    return getattr(Scenario(seed=0), name)


def _iter_smaller(scenario: Scenario) -> Iterator[Scenario]:
    for name in _LISTS:
        yield from _iter_shorter(scenario, name)
    for name in _PLAIN:
        if getattr(scenario, name) != _default(name):
            yield replace(scenario, **{name: _default(name)})
    for name in _SETTINGS:
        if scenario.settings.get(name):
            yield replace(scenario, settings=_without(scenario.settings, name))
    yield from _iter_less_input(scenario)
    yield from _iter_simpler_runs(scenario)
    for number, fault in enumerate(scenario.faults):
        for name in _FAULT_FIELDS:
            if fault.get(name):
                yield replace(scenario, faults=_exchange(scenario.faults, number, _without(fault, name)))


def _iter_less_input(scenario: Scenario) -> Iterator[Scenario]:
    requests, per_shard = scenario.requests, scenario.max_requests_per_shard
    for fewer in (1, requests - per_shard, requests - 1):
        if 1 <= fewer < requests:
            yield replace(scenario, requests=fewer)


def _iter_simpler_runs(scenario: Scenario) -> Iterator[Scenario]:
    """Never back to what was simpler before: this must come to an end."""
    for number, run in enumerate(scenario.runs):
        for simpler in (
            replace(run, start_s=0.0),
            replace(run, after_former=False),
            replace(run, one_task=True),
        ):
            if simpler != run:
                yield replace(scenario, runs=_exchange(scenario.runs, number, simpler))


def _exchange(items: tuple[Any, ...], number: int, item: Any) -> tuple[Any, ...]:
    return (*items[:number], item, *items[number + 1 :])


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _iter_shorter(scenario: Scenario, name: str) -> Iterator[Scenario]:
    """Without all of a list, then without one of it. The last run that wants all stays."""
    items = getattr(scenario, name)
    least = 1 if name == "runs" else 0
    if len(items) <= least:
        return
    if not least and len(items) > 1:
        yield replace(scenario, **{name: ()})
    for number in range(len(items)):
        rest = (*items[:number], *items[number + 1 :])
        if name != "runs" or any(run.sample is None for run in rest):
            yield replace(scenario, **{name: rest})
