"""Virtual time, and the processes that share it: what runs, waits and dies in one simulation.

Processes are greenlets. One runs at a time, and another gets its turn only in `World.sleep`, so that a
simulation is the same every time. Nothing really sleeps.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import greenlet

if TYPE_CHECKING:
    from simulation.scenario import Scenario, Spell

START = 1_790_000_000.0
"""Unix seconds at which every simulation begins."""
MOST_TURNS = 60_000
"""More sleeps than these in one simulation: something goes round in circles."""


class Killed(BaseException):
    """SIGKILL: no handler for errors may hold it up."""


class EndlessError(AssertionError):
    """The job does not come to an end."""


class World:
    """The clock, and who is to run when."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(f"world {scenario.seed}")
        self.trace: list[tuple[float, str, str]] = []
        self.kills = 0
        """Processes that were killed."""
        self.storage_failures = 0
        self.looked_at: dict[str, float] = {}
        """By batch: when whoever created it had last listed batches."""
        self._now = START
        self._calm = False
        self._turns = 0
        self._due: list[tuple[float, int, greenlet.greenlet]] = []
        self._watching: dict[greenlet.greenlet, int] = {}
        """Who sleeps only as long as nothing happens, with the turn it would have."""
        self._void: set[int] = set()
        """Turns that nobody takes any more."""
        self._hub = greenlet.getcurrent()
        self._kill_gaps = list(scenario.kills)
        self._storage_gaps = list(scenario.storage_errors)
        self._killed_after: set[str] = set()

    def now(self) -> float:
        """Unix seconds."""
        return self._now

    def note(self, who: str, text: str) -> None:
        self.trace.append((self._now, who, text))

    def start(self, delay_s: float, work: Callable[[], None]) -> None:
        """Let ``work`` run beside the others, ``delay_s`` from now."""
        self._push(delay_s, greenlet.greenlet(work, self._hub))

    def run(self) -> None:
        """Until everyone who was started is through.

        :raises EndlessError: if that does not happen.
        """
        while len(self._due) > len(self._void):
            self._take_turn().switch()

    def sleep(self, seconds: float) -> None:
        """Let time pass for the one who asks; others run meanwhile."""
        at = self._now + max(0.0, seconds)
        if not self._due or self._due[0][0] > at:  # nobody is due before: no need to queue up
            self._count_turn()
            self._now = at
            return
        me = greenlet.getcurrent()
        self._push(seconds, me)
        following = self._take_turn()
        if following is not me:
            following.switch()

    def watch(self, seconds: float) -> None:
        """Sleep, but no longer than until `stir`."""
        me = greenlet.getcurrent()
        self._push(seconds, me)
        self._watching[me] = self._turns
        following = self._take_turn()
        if following is not me:
            following.switch()
        self._watching.pop(me, None)

    def stir(self) -> None:
        """Something happened that those who watch may want to know."""
        for who, turn in self._watching.items():
            self._void.add(turn)
            self._push(0.0, who)
        self._watching.clear()

    def _count_turn(self) -> None:
        self._turns += 1
        if self._turns > MOST_TURNS:
            raise EndlessError(f"more than {MOST_TURNS:,} turns")

    def _push(self, seconds: float, who: greenlet.greenlet) -> None:
        self._count_turn()
        heapq.heappush(self._due, (self._now + max(0.0, seconds), self._turns, who))

    def _take_turn(self) -> greenlet.greenlet:
        at, turn, who = heapq.heappop(self._due)
        while turn in self._void:
            self._void.remove(turn)
            at, turn, who = heapq.heappop(self._due)
        self._now = max(self._now, at)
        return who

    def strikes_kill(self, label: str, event: str | None) -> bool:
        """Whether a process dies at this point. ``event``: of the ledger, if one was just written."""
        if self.scenario.kill_after_events and event is not None and event not in self._killed_after:
            self._killed_after.add(event)
            return True
        return _counts_down(self._kill_gaps)

    def strikes_storage(self) -> bool:
        """Whether the storage fails now."""
        fails = _counts_down(self._storage_gaps)
        self.storage_failures += fails
        return fails

    def find_spell(self) -> Spell | None:
        """The spell that every call meets now."""
        return None if self._calm else self.scenario.find_spell(self._now)

    def calm_down(self) -> None:
        """Nothing strikes any more: the time to look at what is there."""
        self._calm = True
        self._kill_gaps.clear()
        self._storage_gaps.clear()


def _counts_down(gaps: list[int]) -> bool:
    """One more call; true when the first gap is used up, which is then gone."""
    if not gaps:
        return False
    gaps[0] -= 1
    if gaps[0] > 0:
        return False
    del gaps[0]
    return True


class Process:
    """One process of a worker: it dies as a whole, and what it holds in memory with it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.listed_at = 0.0
        """When it last listed batches, by OpenAI's clock."""

    def point(self, label: str, *, event: str | None = None) -> None:
        """A place where the process may be killed.

        :raises Killed: if it is, and ever after: the dead do not clean up.
        """
        if self.alive and self.world.strikes_kill(label, event):
            self.alive = False
            self.world.kills += 1
            self.world.note(self.name, f"KILLED {label}")
        if not self.alive:
            raise Killed(label)

    def check_alive(self) -> None:
        """:raises Killed: if the process is dead."""
        if not self.alive:
            raise Killed
