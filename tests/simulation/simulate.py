"""One simulation from beginning to end."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from tenacity import nap

from airflow_openai_batch.testing.emulator import Emulator
from airflow_openai_batch.testing.exact_tokens import count_exact_tokens
from airflow_openai_batch.testing.settings import Settings
from simulation.job import plan_job
from simulation.tasks import Job, start_others
from simulation.verdict import Verdict, judge
from simulation.world import START, World

if TYPE_CHECKING:
    from simulation.scenario import Scenario

STEPS_SHOWN = 400


class SimulationError(AssertionError):
    """What a simulation showed; the message has all that happened in it."""


def simulate(
    scenario: Scenario,
    tell: Callable[[str], None] | None = None,
    look: Callable[[Job], None] | None = None,
) -> Verdict:
    """Run the scenario and hold its end against the emulator's books.

    :param look: is given the job at its end.
    :param tell: is given all steps if the simulation comes to a good end; the error has them otherwise.
    :raises SimulationError: if anything was lost, paid twice, or does not come to an end.
    """
    world = World(scenario)
    emulator = Emulator(settings=Settings(**scenario.settings), clock=world, count_tokens=count_exact_tokens)
    for fault in scenario.faults:
        emulator.script.add(dict(fault))
    job = Job(
        world=world,
        emulator=emulator,
        objects=dict(plan_job(scenario.requests, scenario.max_requests_per_shard)),
    )
    try:
        with _virtual_time(world):
            job.start()
            start_others(job)
            world.run()
            if look is not None:
                look(job)
            verdict = judge(job)
    except Exception as error:
        raise SimulationError(describe_failure(world, error)) from error
    if tell is not None:
        tell(f"{scenario}\n{_describe_steps(world)}")
    return verdict


def describe_failure(world: World, error: Exception) -> str:
    """What went wrong, the scenario, each step with its time, and how to run it again."""
    scenario = world.scenario
    return (
        f"{type(error).__name__}: {error}\n{scenario}\n"
        f"seconds since the beginning, who, what:\n{_describe_steps(world)}\n"
        f"{type(error).__name__}: {error}\n"
        f"again: make simulate ARGS='--seed {scenario.seed}'"
    )


def _describe_steps(world: World) -> str:
    steps = world.trace[-STEPS_SHOWN:]
    return "\n".join(f"  {at - START:>10.1f}  {who:<28} {text}" for at, who, text in steps)


@contextlib.contextmanager
def _virtual_time(world: World) -> Iterator[None]:
    """The waits between the client's retries pass in the simulation; their jitter comes from its seed."""
    random.seed(world.scenario.seed)
    real, nap.time = nap.time, SimpleNamespace(sleep=world.sleep)  # type: ignore[assignment]
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        nap.time = real
        logging.disable(level)
