"""One run of `openai_batch` on all of it, while the containers that hold work are killed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from chaos.audit import find_problems
from chaos.scenario import Scenario
from chaos.stage import KEY
from chaos.storm import find_leaks
from distributed.stage import BATCH_S, Stage
from distributed.stored_job import StoredJob, find_wrong_answers

if TYPE_CHECKING:
    from demo.api import Run

SHARDS = 60
PER_SHARD = 20
SENDING = ("shard.upload", "shard.create", "shard.wait")
LANDING = ("shard.download", "shard.resend_leftovers")
PATIENCE_S = 600.0
"""With each step: seconds are usual, but other things may run beside it."""
GLANCE_S = 2.0
"""Between two looks: each costs the API server some of the cores that tasks need, too."""

SCENARIO = Scenario(
    seed=0, number=0, dag_id="openai_batch", model="gpt-4o-mini", requests=SHARDS * PER_SHARD, per_shard=PER_SHARD,
    batch_evils=(), line_evils={}, aims=(), turn=None,
)  # fmt: skip
"""In the words of the chaos suite, whose audit is used: nothing goes wrong at OpenAI, so every row has to be good."""

Instance = tuple[str, int]
"""Task and shard."""


@dataclass(slots=True)
class Loss:
    """A container that was killed, and what became of what it held."""

    container: str
    held: int
    """Running tasks of a worker, waiting triggers of a triggerer, queued tasks of Redis."""
    taken_over: Counter[str] = field(default_factory=Counter)
    """By whom; the same container is another one after its restart."""
    seconds: float = 0.0
    """From the kill until the last of it went on."""


@dataclass(slots=True)
class Aftermath:
    """What the drill left."""

    losses: list[Loss] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    health: dict[str, bool] = field(default_factory=dict)
    """By the compose file's checks: of a dead triggerer and of the living one, and of the workers at the end."""
    ended_with: Counter[str] = field(default_factory=Counter)
    """Shards whose batch ended while this triggerer waited for it."""
    landed_on: Counter[str] = field(default_factory=Counter)
    """Shards whose results this worker wrote."""
    seconds: float = 0.0
    """From the trigger to the end of the run."""


class Drill:
    """Plays it once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._airflow = stage.airflow
        self._run: Run
        self._found = Aftermath()
        self._lost_tasks: list[tuple[Loss, float, dict[Instance, int]]] = []

    def play(self) -> Aftermath:
        stage, emulator = self._stage, self._stage.emulator
        job = StoredJob(stage.folder / "job", store=stage.store)
        job.write(SCENARIO.lines())
        job.send()
        self._airflow.wait_for_dag(SCENARIO.dag_id, timeout_s=PATIENCE_S)
        began = time.monotonic()
        self._run = self._airflow.trigger(SCENARIO.dag_id, job.conf(), run_id=SCENARIO.name)
        self._until(lambda: self._count_sent() >= SHARDS // 10, "some shards are sent")
        self._kill_worker("worker-1", SENDING)
        self._until(lambda: len(self._waiting()) >= SHARDS * 2 // 5, "24 shards wait")
        self._until(lambda: len(self._triggerers(is_alive=True)) == 2, "both triggerers are there")
        first, second = self._rank_triggerers()
        self._kill_triggerer(first)
        self._until(lambda: len(self._waiting()) == SHARDS, "all shards wait")
        self._end_batches(SHARDS // 5)
        self._kill_worker("worker-2", LANDING)
        self._until(lambda: first in self._triggerers(is_alive=True).values(), f"{first} is back")
        self._kill_triggerer(second)
        self._end_batches(SHARDS)
        self._kill_redis()
        self._airflow.wait(self._run, timeout_s=2 * PATIENCE_S)
        self._found.seconds = time.monotonic() - began
        self._found.health |= {name: stage.check_health(name) for name in ("worker-1", "worker-2")}
        self._settle_tasks()
        job.fetch()
        self._found.problems += find_problems(SCENARIO, job, [self._run], [], self._airflow, emulator)
        self._found.problems += find_wrong_answers(job)
        self._found.leaks += find_leaks(stage.folder, *stage.secrets)
        return self._found

    # -- kills ---------------------------------------------------------------------------------

    def _kill_worker(self, name: str, tasks: Sequence[str]) -> None:
        """While it runs at least two such tasks; Docker starts it again at once."""
        worker = self._stage.containers[name]

        def is_busy() -> bool:
            worker.pause()
            if len(self._running_on(name, tasks)) >= 2:
                return True
            worker.unpause()
            return False

        self._until(is_busy, f"{name} runs two of {tasks}")
        held = self._running_on(name)
        worker.kill()
        worker.restart()
        loss = self._add_loss(name, len(held))
        self._lost_tasks.append((loss, time.time(), held))

    def _kill_triggerer(self, name: str) -> None:
        """It comes back when the other one has taken over all that it held."""
        triggerer = self._stage.containers[name]
        triggerer.pause()
        dead = max(id_ for id_, host in self._triggerers().items() if host == name)
        held = {instance for instance, holder in self._waiting().items() if holder == dead}
        triggerer.kill()
        killed_at = time.monotonic()
        self._until(lambda: dead not in self._waiting().values(), f"what {name} held is taken over")
        loss = self._add_loss(name, len(held))
        loss.seconds = time.monotonic() - killed_at
        hosts, now = self._triggerers(), self._waiting()
        loss.taken_over.update(hosts.get(now[each] or 0, "nobody") for each in held if each in now)
        others = [other for other in self._stage.containers if other.startswith("triggerer")]
        self._found.health |= {
            f"{other}{'' if other == name else ', alive'}": self._stage.check_health(
                other, once=other == name
            )
            for other in others
        }
        triggerer.restart()

    def _kill_redis(self) -> None:
        """While tasks wait in it for a worker."""
        self._until(lambda: bool(self._instances("queued")), "tasks are queued")
        redis = self._stage.containers["redis"]
        redis.pause()
        held = {_name(each): each["try_number"] for each in self._instances("queued")}
        redis.kill()
        redis.restart()
        loss = self._add_loss("redis", len(held))
        self._lost_tasks.append((loss, time.time(), {name: tries - 1 for name, tries in held.items()}))

    def _add_loss(self, container: str, held: int) -> Loss:
        loss = Loss(container, held)
        self._found.losses.append(loss)
        return loss

    # -- what Airflow's API says ------------------------------------------------------------------

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            states = (
                Counter(self._airflow.states(self._run).values()) if time.monotonic() > deadline else None
            )
            assert states is None, f"not within {PATIENCE_S:g} s: {what}; the tasks are {states}"
            time.sleep(GLANCE_S)

    def _instances(self, state: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._airflow.get(
            f"{self._run.path}/taskInstances", state=state, limit=100
        )["task_instances"]
        return found

    def _running_on(self, host: str, tasks: Sequence[str] = ()) -> dict[Instance, int]:
        """Tasks with the number of the try."""
        return {
            _name(each): each["try_number"]
            for each in self._instances("running")
            if each["hostname"] == host and (not tasks or each["task_id"] in tasks)
        }

    def _count_sent(self) -> int:
        return sum(each["task_id"] == "shard.upload" for each in self._instances("success"))

    def _waiting(self) -> dict[Instance, int | None]:
        """Deferred tasks, with the id of the triggerer that has them."""
        deferred = [each for each in self._instances("deferred") if each["task_id"] == "shard.wait"]
        return {_name(each): (each["trigger"] or {}).get("triggerer_id") for each in deferred}

    def _triggerers(self, **which: bool) -> dict[int, str]:
        """Hosts by the ids of their jobs: each start makes one."""
        jobs = self._airflow.get("/api/v2/jobs", job_type="TriggererJob", **which)["jobs"]
        return {job["id"]: job["hostname"] for job in jobs}

    def _rank_triggerers(self) -> list[str]:
        """Who has most comes first."""
        holders = Counter(self._waiting().values())
        hosts = self._triggerers()
        return sorted(
            hosts.values(), key=lambda host: -sum(holders[id_] for id_ in hosts if hosts[id_] == host)
        )

    def _end_batches(self, oldest: int) -> None:
        """Set the emulator's clock forward to where so many have ended, stop it there, and note who waits for them."""
        emulator, hosts, holders = self._stage.emulator, self._triggerers(), self._waiting()
        created = sorted((batch["created_at"], batch["metadata"]["shard"]) for batch in self._batches())
        last = created[oldest - 1][0]
        ending = {int(shard) for created_at, shard in created if created_at <= last}
        emulator.run_clock(0)
        emulator.advance(max(0.0, last + 1 + BATCH_S - emulator.now()))  # its times are whole seconds
        self._found.ended_with.update(
            hosts.get(holder or 0, "nobody") for (_, shard), holder in holders.items() if shard in ending
        )

    def _batches(self) -> list[dict[str, Any]]:
        """As OpenAI lists them."""
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.get(
            f"{self._stage.emulator.base_url}/batches",
            params={"limit": 100},
            headers=headers,
            trust_env=False,
        )
        found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
        return found

    def _settle_tasks(self) -> None:
        """What became of the tasks of dead workers: those of them that a later try has ended."""
        final = {_name(each): each for each in self._airflow.task_instances(self._run)}
        for loss, killed_at, held in self._lost_tasks:
            for name, try_number in held.items():
                if (now := final[name])["try_number"] > try_number:
                    loss.taken_over[now["hostname"]] += 1
                    began_at = datetime.fromisoformat(now["start_date"]).timestamp()
                    loss.seconds = max(loss.seconds, began_at - killed_at)
        self._found.landed_on.update(
            each["hostname"] for each in final.values() if each["task_id"] == "shard.download"
        )


def _name(instance: dict[str, Any]) -> Instance:
    return instance["task_id"], instance["map_index"]
