"""All runs of a seed, some at a time, with weather and killer around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.killer import Killer
from chaos.person import KeyRing
from chaos.play import Outcome, Play
from chaos.scenario import draw_scenario
from chaos.stage import KEY, Stage, set_stage
from chaos.weather import Weather
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from collections import Counter

AT_ONCE = 6
"""Runs at the same time; two cores are full with it."""


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a storm left."""

    seed: int
    outcomes: dict[int, Outcome]
    struck: Counter[str]
    kills: Counter[str]
    leaks: tuple[str, ...]
    """Log files with the key or a request's text in them."""


def run_storm(folder: Path, seed: int, numbers: Sequence[int]) -> Aftermath:
    """Play the runs with these numbers."""
    with set_stage(folder, seed) as stage:
        for dag_id in ("openai_batch", "openai_batch_one_task"):
            stage.airflow.wait_for_dag(dag_id)
        _warm_up(stage)
        weather, killer = Weather(stage.emulator, seed), Killer(stage.airflow, seed)
        keys = KeyRing(stage.airflow, stage.emulator)
        weather.start()
        killer.start()
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                plays = [Play(draw_scenario(seed, number), stage, killer, keys) for number in numbers]
                outcomes = {}
                for done in as_completed([pool.submit(play.play) for play in plays]):
                    outcome = done.result()
                    outcomes[outcome.scenario.number] = outcome
                    _note(folder, outcome)
        finally:
            killer.stop()
            weather.stop()
        struck = sum((outcome.struck for outcome in outcomes.values()), weather.struck())
    for part in (weather, killer):
        if part.failure is not None:
            raise part.failure
    return Aftermath(seed, outcomes, struck, killer.kills, tuple(find_leaks(folder / "airflow")))


def _warm_up(stage: Stage) -> None:
    """The API server builds the half of it that tasks talk to when the first one calls, which takes a while."""
    job = Job(stage.folder / "jobs" / "warm-up").write([chat_line("warm-up")])
    run = stage.airflow.trigger("openai_batch_one_task", job.conf())
    if stage.airflow.wait(run) != "success":
        raise AssertionError(stage.airflow.explain(run))


def _note(folder: Path, outcome: Outcome) -> None:
    """For whoever waits: ``tail -f`` it."""
    problems = "; ".join(outcome.problems[:3]) or "ok"
    with (folder / "storm.log").open("a") as log:
        log.write(
            f"{outcome.scenario.name}: {outcome.seconds:.0f} s, {dict(outcome.turns) or '-'}, {problems}\n"
        )
        log.writelines(f"  cleared because: {why[:400]}\n" for why in outcome.clears)


def find_leaks(home: Path, *more: str) -> Iterator[str]:
    """Logs that quote the key, a request, or one of ``more``."""
    secrets = (KEY.encode(), b"Positive, Negative or Neutral", b"{chaos-", *map(str.encode, more))
    for path in (file for name in ("logs", "components") for file in (home / name).rglob("*.log")):
        text = path.read_bytes()
        yield from (f"{path}: {secret.decode()}" for secret in secrets if secret in text)
