"""What a deadline costs: each lane by itself, and ``auto``, which turns from one to the other to keep it.

    python -m bench lanes [--requests 2000]

The account is emulated, and so is time: hours pass in a second. A lane by itself meets a deadline if it answers all
within it; ``auto`` is held against the cheapest lane that does, of those that ``on_deadline`` allows.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.table import print_table
from simulation.lanes import FLEX_IS_FULL, HANGS, HOUR_S, Capacity, Played, play_lane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_openai_batch.sending.policy import Lane, OnDeadline

CAPACITIES = (
    Capacity(name="batches take an hour"),
    Capacity(name="batches take ten hours", batch_s=10 * HOUR_S),
    Capacity(name="batches hang when a quarter is answered", faults=(HANGS,)),
    Capacity(name="batches hang, and flex is slow", flex_per_s=0.1, faults=(HANGS,)),
    Capacity(name="batches hang, and flex has no room", faults=(HANGS, FLEX_IS_FULL)),
)
DEADLINES_H = (2, 6, 24)
LANES: dict[Lane, tuple[OnDeadline, ...]] = {
    "batch": ("flex", "realtime"),
    "flex": ("flex",),
    "realtime": ("flex", "realtime"),
}
"""With the ways of keeping a deadline that may use each."""
RATIO_LIMIT = 1.05


@dataclass(frozen=True, slots=True)
class Auto:
    """One run of ``auto``."""

    hours: int
    on_deadline: OnDeadline
    played: Played
    best_usd: float | None
    """Of the cheapest lane that meets the deadline; None where none does."""

    @property
    def ratio(self) -> float | None:
        return None if self.best_usd is None else self.played.cost_usd / self.best_usd

    def is_fine(self, requests: int) -> bool:
        if self.ratio is None:
            return True
        return meets(self.played, self.hours, requests) and self.ratio <= RATIO_LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000)
    requests = parser.parse_args().requests
    good = [compare(capacity, requests) for capacity in CAPACITIES]
    sys.exit(not all(good))


def compare(capacity: Capacity, requests: int) -> bool:
    """Whether ``auto`` keeps each deadline that a lane could, and costs hardly more."""
    most_s = max(DEADLINES_H) * HOUR_S
    alone: dict[Lane, Played] = {
        lane: play_lane(capacity, requests=requests, mode=lane, within_s=most_s, on_deadline="publish")
        for lane in LANES
    }
    autos = [
        Auto(
            hours,
            on_deadline,
            play_lane(
                capacity, requests=requests, mode="auto", within_s=hours * HOUR_S, on_deadline=on_deadline
            ),
            find_best(alone, hours, on_deadline, requests),
        )
        for on_deadline in LANES["batch"]
        for hours in DEADLINES_H
    ]
    rows = [[lane, *_describe(played, requests), ""] for lane, played in alone.items()]
    rows += [
        [
            f"auto, {auto.on_deadline} after {auto.hours} h",
            *_describe(auto.played, requests),
            "" if auto.ratio is None else f"{auto.ratio:.2f}",
        ]
        for auto in autos
    ]
    head = ["", "hours", "US dollars", "batch", "flex", "real time", "in time", "times the best lane"]
    print_table(f"{requests:,} requests, {capacity.name}", head, rows)
    return all(auto.is_fine(requests) for auto in autos)


def meets(played: Played, hours: int, requests: int) -> bool:
    return played.answers.total() == requests and played.took_s <= hours * HOUR_S


def find_best(alone: dict[Lane, Played], hours: int, on_deadline: OnDeadline, requests: int) -> float | None:
    allowed = (played for lane, played in alone.items() if on_deadline in LANES[lane])
    return min((each.cost_usd for each in allowed if meets(each, hours, requests)), default=None)


def _describe(played: Played, requests: int) -> Iterator[str]:
    yield f"{played.took_s / HOUR_S:.2f}"
    yield f"{played.cost_usd:.4f}"
    for lane in LANES:
        yield f"{played.answers[lane]:,}"
    met = [str(hours) for hours in DEADLINES_H if meets(played, hours, requests)]
    yield f"{', '.join(met)} h" if met else "no"


if __name__ == "__main__":
    main()
