"""Many simulations: ``make simulate SEEDS=10000``, or one with all its steps: ``make simulate ARGS='--seed 7'``."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections import Counter

from simulation.many import Sums, simulate_many
from simulation.scenario import draw_scenario
from simulation.shrink import describe_drawn, shrink
from simulation.simulate import SimulationError, simulate

SHOWN = 3
"""Failing seeds of which the least that fails is printed, with its steps."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone, with all its steps")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None:
        return show_one(options.seed)
    seeds = range(options.first, options.first + options.seeds)
    sums = simulate_many(seeds, options.processes, tell=functools.partial(print, flush=True))
    report(sums)
    return 1 if sums.failed else 0


def show_one(seed: int) -> int:
    """All steps of one seed, whether it fails or not."""
    try:
        verdict = simulate(draw_scenario(seed), tell=print)
    except SimulationError as error:
        print(error)
        show_least(seed)
        return 1
    print(verdict)
    return 0


def show_least(seed: int) -> None:
    """The least that it takes to fail like this seed."""
    scenario, error = shrink(draw_scenario(seed))
    print(
        f"\n--- seed {seed}, with all left out that it fails without ---\n{describe_drawn(scenario)}\n{error}"
    )


def report(sums: Sums) -> None:
    total, failed = sums.total, sums.failed
    cpu_ms = 1e3 * sums.cpu_s / max(1, sums.seeds)
    print(
        f"{sums.seeds:,} seeds in {sums.took_s:.0f} s, {cpu_ms:.0f} ms of CPU each: "
        f"{total.sends:,} batches, {total.kills:,} kills, {total.virtual_s / 86_400:,.0f} days of virtual time, "
        f"{total.duplicates:,} duplicates of a lagging list"
    )
    for title, counts in (("faults", total.faults), ("failed tasks, cleared", total.failures)):
        print(
            f"{title}: " + (", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "none")
        )
    for seed in sorted(failed)[:SHOWN]:
        show_least(seed)
    reasons = Counter(text.partition("\n")[0][:110] for text in failed.values())
    for reason, count in reasons.most_common(20):
        example = min(seed for seed, text in failed.items() if text.startswith(reason))
        print(f"FAILED {count:,} times, for instance seed {example}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
