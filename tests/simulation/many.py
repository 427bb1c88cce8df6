"""Many simulations at once, in processes of their own."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from simulation.scenario import draw_scenario
from simulation.simulate import SimulationError, simulate
from simulation.verdict import Verdict

CHUNK = 50


@dataclass(slots=True)
class Sums:
    """What came of many seeds."""

    seeds: int = 0
    took_s: float = 0.0
    cpu_s: float = 0.0
    """Of all processes together."""
    total: Verdict = field(default_factory=Verdict)
    failed: dict[int, str] = field(default_factory=dict)
    """What each failing seed said."""


def simulate_many(seeds: range, processes: int, tell: Callable[[str], object] = str) -> Sums:
    """Run the scenarios of all seeds.

    :param tell: is given a line for each seed that fails, at once.
    """
    started = time.perf_counter()
    sums = Sums(seeds=len(seeds))
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_settle_down) as pool:
        for part in pool.imap_unordered(simulate_some, _cut(seeds)):
            sums.total += part.total
            sums.failed |= part.failed
            sums.cpu_s += part.cpu_s
            for seed, text in part.failed.items():
                tell(f"seed {seed} fails: {text.splitlines()[0]}")
    sums.took_s = time.perf_counter() - started
    return sums


def simulate_some(seeds: range) -> Sums:
    """The same, in this process."""
    started = time.process_time()
    sums = Sums(seeds=len(seeds))
    for seed in seeds:
        try:
            sums.total += simulate(draw_scenario(seed))
        except SimulationError as error:
            sums.failed[seed] = str(error)
    sums.cpu_s = time.process_time() - started
    return sums


def _settle_down() -> None:
    """What is imported stays: the collector need not look at it with each seed."""
    gc.collect()
    gc.freeze()


def _cut(seeds: range) -> Iterator[range]:
    for first in range(0, len(seeds), CHUNK):
        yield seeds[first : first + CHUNK]
