"""One small job and all that happens to it, drawn from a seed.

Everything is bounded so that each job can end: faults strike a number of times, spells pass, nobody is killed
for ever. What cannot be explained by what stands here is a defect.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.testing.servers.choice import RULES
from simulation.world import START

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_openai_batch.sending.policy import Lane, Mode, OnDeadline

DAY_S = 86_400.0
MODEL = "gpt-5.4"
MAX_OUTPUT_TOKENS = 30
"""Of one request; no answer of the emulator is as long."""
MOST_COST_USD = 275e-6
"""Of one request in a batch, roughly."""
QUEUE_TOKENS = 600
"""What the queue holds, where it has a limit: about two of the largest shards."""
SCHEMA_EACH = 3
"""Each third request asks for an answer in a schema."""

Fault = dict[str, Any]
"""As `Emulator.script.add` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One DAG run over the job. Seconds are counted from the beginning."""

    start_s: float = 0.0
    one_task: bool = False
    """Whether one task takes a shard all the way, or five take one step each."""
    sample: int | None = None
    """Only so many of the first requests are wanted."""
    after_former: bool = False
    """Whether it begins only when all runs before it are through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """A time in which every call is refused: a wrong key, no quota, OpenAI down."""

    start_s: float
    end_s: float
    status: int
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Someone else of the organisation in the same queue."""

    start_s: float
    end_s: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is drawn. Seconds are counted from the beginning."""

    seed: int
    requests: int = 3
    max_requests_per_shard: int = 3
    max_attempts: int = 3
    mode: Mode = "batch"
    realtime_threshold: int = 2
    finish_within_s: float | None = None
    on_deadline: OnDeadline = "fail"
    pace_per_s: float = 0.0
    """What is taken for the pace of requests one by one."""
    foreseen_per_s: Mapping[Lane, float] = field(default_factory=dict)
    """The same by lane, where that is not ``pace_per_s``."""
    answer_s: Mapping[Lane, float] = field(default_factory=dict)
    """What passes from one answer to the next, on top of the call."""
    max_cost_usd: float | None = None
    """At first; whoever clears a task that failed for it doubles it."""
    told_limit: bool = False
    """Whether the connection knows the limit of the queue."""
    runs: tuple[Run, ...] = (Run(),)
    poll_s: float = 60.0
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the emulator."""
    faults: tuple[Fault, ...] = ()
    spells: tuple[Spell, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    deletes_upload_at_s: float | None = None
    """Someone removes all uploaded inputs at this moment."""
    kills: tuple[int, ...] = ()
    """A process dies after so many points, another after so many more, and so on."""
    kill_after_events: bool = False
    """A process dies after each event of a ledger, the first time it is written."""
    storage_errors: tuple[int, ...] = ()
    """The storage fails after so many operations, and so on."""

    @property
    def shards(self) -> int:
        return -(-self.requests // self.max_requests_per_shard)

    @property
    def list_lag_s(self) -> float:
        return float(self.settings.get("list_lag_s", 0.0))

    def find_spell(self, now: float) -> Spell | None:
        return next((each for each in self.spells if each.start_s <= now - START < each.end_s), None)

    @property
    def answers_all(self) -> bool:
        """Whether the first send of a request brings its good answer, however late."""
        in_batches = self.mode == "batch" or not self.count_faults("http")
        return (
            in_batches
            and self.finish_within_s is None
            and not self.count_faults("batch")
            and not any(fault.get("line", "no_capacity") != "no_capacity" for fault in self.faults)
        )

    def count_faults(self, kind: str) -> int:
        """Faults of a kind: ``batch``, ``line`` or ``http``."""
        return sum(kind in fault for fault in self.faults)


def draw_scenario(seed: int, chance: random.Random | None = None) -> Scenario:
    """The scenario of a seed, or, in the hands of hypothesis, one that shrinks with ``chance``."""
    chance = chance or random.Random(f"scenario {seed}")
    requests, most = _draw_size(chance)
    shards = -(-requests // most)
    max_attempts = chance.choice((3, 3, 3, 2, 1))
    settings = _draw_settings(chance, seed)
    faults = (
        *_draw_batch_faults(chance, shards),
        *_draw_line_faults(chance, requests, max_attempts),
        *_draw_http_faults(chance),
    )
    if any(fault.get("line") == "duplicate" for fault in faults):
        # A line that stands twice makes up, in the counts, for one that a proxy cuts off each time.
        faults = tuple(fault for fault in faults if "keep_lines" not in fault)
    if any(fault.get("line") == "missing" or "request_counts" in fault.get("omit", ()) for fault in faults):
        # What a server has really lost cannot be told from a cut file where it says nothing of its files: the shard
        # stops until a person repairs the job. Nor can a file that is cut in good order each time, alike, where it
        # says nothing of its requests either.
        settings["file_objects"] = True
    strangers = _draw_strangers(chance)
    if strangers or chance.random() < 0.2:
        settings["queue_limits"] = {MODEL: QUEUE_TOKENS}
    scenario = Scenario(
        seed=seed,
        requests=requests,
        max_requests_per_shard=most,
        max_attempts=max_attempts,
        mode=chance.choice(("batch", "batch", "batch", "auto", "flex", "realtime")),
        realtime_threshold=chance.randint(0, 6),
        finish_within_s=chance.choice((600.0, 10_000.0, 100_000.0)) if chance.random() < 0.15 else None,
        on_deadline=chance.choice(("flex", "realtime", "publish", "fail")),
        pace_per_s=chance.choice((0.0, 1.0, 0.01)),
        told_limit="queue_limits" in settings and chance.random() < 0.5,
        max_cost_usd=chance.uniform(0.1, 2.0) * requests * MOST_COST_USD if chance.random() < 0.2 else None,
        runs=_draw_samples(chance, requests) or _draw_runs(chance),
        poll_s=chance.choice((60.0, 10.0, 300.0)),
        settings=settings,
        faults=faults,
        spells=_draw_spells(chance),
        strangers=strangers,
        deletes_upload_at_s=chance.uniform(0, 20_000) if chance.random() < 0.03 else None,
        kills=_draw_gaps(chance, 0.5, 6, 40),
        kill_after_events=chance.random() < 0.25,
        storage_errors=_draw_gaps(chance, 0.15, 3, 150),
    )
    return _draw_server(chance, scenario)  # last, so that a seed means what it has always meant


def _draw_server(chance: random.Random, scenario: Scenario) -> Scenario:
    """OpenAI mostly; else the same with another server, less what that one never does."""
    if chance.random() < 0.6:
        return scenario
    name = chance.choice([each for each in RULES if each != "openai"])
    settings, faults = {**scenario.settings, "server": name}, scenario.faults
    if name == "azure":
        # On top of files that are not visible for a while that would be more than anybody waits for.
        slow = chance.choice((0.0, 3.0, 40.0, 200.0))
        settings["processing_s"] = 0.0 if any(_speaks_of_a_file(fault) for fault in faults) else slow
        # Its batches do not expire, and one that hangs for ever is nobody's to end.
        faults = tuple(fault for fault in faults if not _may_take_forever(fault))
    if name == "together":  # it counts no requests, so that only a file's size tells that it is whole
        settings["file_objects"] = True
    return replace(scenario, settings=settings, faults=faults)


def _speaks_of_a_file(fault: Fault) -> bool:
    return "file" in fault.get("message", "").lower()


def _may_take_forever(fault: Fault) -> bool:
    return fault.get("batch") in ("expired", "finalizing", "in_progress", "validating")


def _draw_size(chance: random.Random) -> tuple[int, int]:
    most = chance.randint(1, 8)
    shards = chance.choice((1, 1, 1, 2, 3))
    return chance.randint((shards - 1) * most + 1, shards * most), most


def _draw_runs(chance: random.Random) -> tuple[Run, ...]:
    first = Run(one_task=chance.random() < 0.5)
    if chance.random() < 0.7:
        return (first,)
    others = chance.choice((1, 1, 2))
    starts = (0.0, chance.uniform(0, 3), chance.uniform(0, 300), chance.uniform(0, 50_000))
    more = (Run(start_s=chance.choice(starts), one_task=chance.random() < 0.5) for _ in range(others))
    return (first, *more)


def _draw_samples(chance: random.Random, requests: int) -> tuple[Run, ...]:
    """A sample, sometimes a larger one, then the whole; mostly one after the other."""
    if chance.random() > 0.15:
        return ()
    sizes: list[int | None] = [chance.randint(1, requests)]
    if chance.random() < 0.3:
        sizes.append(chance.randint(1, requests))
    return tuple(
        Run(
            start_s=chance.choice((0.0, chance.uniform(0, 300), chance.uniform(0, 50_000)))
            if number
            else 0.0,
            one_task=chance.random() < 0.5,
            sample=size,
            after_former=number > 0 and chance.random() < 0.8,
        )
        for number, size in enumerate((*sizes, None))
    )


def _draw_settings(chance: random.Random, seed: int) -> dict[str, Any]:
    in_progress_s = chance.choice((0.0, 30.0, 600.0, 7_200.0, 40_000.0))
    return {
        "seed": seed,
        "validating_s": chance.choice((0.0, 5.0, 60.0, 900.0)),
        "in_progress_s": in_progress_s,
        "finalizing_s": chance.choice((0.0, 0.0, 60.0, 600.0)),
        "cancelling_s": chance.choice((0.0, 30.0, 600.0, 12_000.0)),
        "list_lag_s": chance.choice((0.0, 0.0, 0.0, 3.0, 30.0)),
        "list_page_most": chance.choice((None, None, 1, 2)),
        "list_has_more": chance.random() < 0.7,
        "keeps_metadata": chance.random() < 0.9,
        "clock_skew_s": chance.choice((0.0, 0.0, -900.0, 900.0)),
        "file_objects": chance.random() < 0.8,
        "window_s": chance.choice((DAY_S, 3_600.0)) if in_progress_s <= 600 else DAY_S,
        "flex_models": ("*",) if chance.random() < 0.8 else (),
    }


def _draw_batch_faults(chance: random.Random, shards: int) -> list[Fault]:
    """At most three that can bring no progress: five in a row stop a shard, and rightly."""
    faults: list[Fault] = []
    for _ in range(_draw_count(chance, 0.5, 3)):
        fault = dict(chance.choice(_ENDINGS))
        if fault["batch"] in ("expired", "cancelled") and chance.random() < 0.7:
            fault |= {"done": chance.randint(0, 8)}
        if chance.random() < 0.3:
            fault |= {"shard": chance.randrange(shards)}
        if chance.random() < 0.2:
            fault |= {"file_lag": chance.randint(1, 3)}
        if fault["batch"] in ("expired", "cancelled") and chance.random() < 0.3:
            fault |= {"unfinished": "missing"}
        if chance.random() < 0.2:
            fault |= {"omit": ["request_counts", "usage", "model"]}
        faults.append(fault)
    if chance.random() < 0.15:
        faults.append({"batch": "failed", "times": chance.randint(1, 12), **chance.choice(_REFUSALS)})
    return faults


_ENDINGS: tuple[Fault, ...] = (
    {"batch": "expired"},
    {"batch": "expired", "takes_s": 80_000.0},
    {"batch": "cancelled"},
    {"batch": "finalizing"},
    {"batch": "in_progress"},
    {"batch": "validating"},
    {"batch": "failed", "code": "billing_hard_limit_reached"},
    {"batch": "completed", "file_ids_late_s": 40.0},
    {"batch": "completed", "file_ids_late_s": 3_000.0},
    {"batch": "completed", "deleted": ["output"]},
    {"batch": "completed", "deleted": ["error"]},
    {"batch": "cancelled", "cancelling_s": 30_000.0},
    {"batch": "completed", "empty_error_file_id": True},
)
_REFUSALS: tuple[Fault, ...] = (
    {"code": "token_limit_exceeded"},
    {"code": "request_limit_exceeded"},
    {"code": "invalid_request"},
)


def _draw_line_faults(chance: random.Random, requests: int, max_attempts: int) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(_draw_count(chance, 0.5, 4)):
        fault = dict(chance.choice(_LINES))
        numbers = range(requests)
        if fault["line"] in ("bad_schema", "not_json"):
            numbers = range(SCHEMA_EACH - 1, requests, SCHEMA_EACH)
        if not numbers:
            continue
        ids = sorted({f"r-{chance.choice(numbers)}" for _ in range(chance.randint(1, 3))})
        faults.append({**fault, "custom_id": ids, "times": chance.choice((1, 1, 2, max_attempts, None))})
        if fault.get("code") == "insufficient_quota":
            faults[-1]["times"] = chance.randint(1, 2)
    if chance.random() < 0.2:
        faults.append(dict(chance.choice(_REALTIME_LINES)))
    if chance.random() < 0.3:
        faults.append(dict(chance.choice(_NO_CAPACITY)))
    return faults


_LINES: tuple[Fault, ...] = (
    {"line": 500},
    {"line": 503},
    {"line": 429},
    {"line": 429, "code": "insufficient_quota"},
    {"line": 400},
    {"line": 0},
    {"line": "missing"},
    {"line": "duplicate"},
    {"line": "string_body"},
    {"line": "request_timeout"},
    {"line": "length"},
    {"line": "refusal"},
    {"line": "content_filter"},
    {"line": "bad_schema"},
    {"line": "not_json"},
    {"line": "unparsable", "scope": "batch"},
)
_REALTIME_LINES: tuple[Fault, ...] = (
    {"line": 500, "scope": "realtime", "share": 0.5, "times": 2},
    {"line": 429, "scope": "realtime", "share": 0.5, "times": 1},
)
_NO_CAPACITY: tuple[Fault, ...] = (
    {"line": "no_capacity", "times": 2},
    {"line": "no_capacity", "share": 0.5, "times": 15},
    {"line": "no_capacity", "times": 40},
)


def _draw_http_faults(chance: random.Random) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(_draw_count(chance, 0.6, 5)):
        route = chance.choice(_ROUTES)
        fault: Fault = {"http": route, "skip": chance.choice((0, 0, 0, 1, 2, 5)), **chance.choice(_TROUBLES)}
        fault["times"] = chance.choice((1, 1, 2, 6, 12))
        if route.endswith("content") and chance.random() < 0.5:
            spoilt = chance.choice(
                (
                    {"truncate_bytes": chance.randint(0, 900)},
                    {"keep_lines": chance.randint(0, 4)},
                    {"page": "<html>Please log in.</html>"},
                )
            )
            fault = {"http": route, **spoilt, "times": chance.choice((1, 2, 4, 6, 12, 40))}
        if route == "GET /v1/batches" and chance.random() < 0.3:
            fault = {"http": route, "forget_after": True, "times": chance.randint(1, 6)}
        if route == "POST /v1/batches" and chance.random() < 0.3:
            fault |= chance.choice(_NOT_VISIBLE)
            fault.pop("drop", None)
            fault.pop("delay_s", None)
        faults.append(fault)
    return faults


_NOT_VISIBLE: tuple[Fault, ...] = (
    {"status": 400, "code": None, "message": "Cannot find file file-x, or you do not have access to it."},
    {"status": 400, "code": None, "message": "File file-x is not processed yet."},
    {"status": 404, "code": None, "message": "No such File object: file-x"},
    {"status": 429, "code": None, "retry_after_s": 5_400.0},
    {"status": 503, "code": None, "retry_after_s": 1.0},
)
_ROUTES = (
    "POST /v1/files",
    "POST /v1/batches",
    "POST /v1/batches",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/*",
    "POST /v1/batches/*/cancel",
    "POST /v1/chat/completions",
    "DELETE /v1/files/*",
    "GET /v1/files/*/content",
    "/v1/**",
)
_TROUBLES: tuple[Fault, ...] = (
    {"drop": "before"},
    {"drop": "after"},
    {"drop": "after"},
    {"status": 429, "retry_after_s": 20.0},
    {"status": 500},
    {"status": 503},
    {"status": 408},
    {"status": 401},
    {"status": 429, "code": "insufficient_quota"},
    {"delay_s": 40.0},
    {"delay_s": 500.0},
    {"delay_s": 700.0},
)


def _draw_spells(chance: random.Random) -> tuple[Spell, ...]:
    if chance.random() > 0.15:
        return ()
    start = chance.choice((0.0, chance.uniform(0, 100), chance.uniform(0, 50_000)))
    status, code = chance.choice(
        ((401, "invalid_api_key"), (429, "insufficient_quota"), (503, None), (403, None))
    )
    return (
        Spell(
            start_s=start, end_s=start + chance.choice((60.0, 3_600.0, 20_000.0)), status=status, code=code
        ),
    )


def _draw_strangers(chance: random.Random) -> tuple[Stranger, ...]:
    if chance.random() > 0.15:
        return ()
    start = chance.choice((0.0, chance.uniform(0, 1_000)))
    return (
        Stranger(start_s=start, end_s=start + chance.choice((600.0, 6_000.0)), tokens=590),
        Stranger(start_s=start + 3_000.0, end_s=start + 9_000.0, tokens=400),
    )


def _draw_gaps(chance: random.Random, share: float, most: int, widest: int) -> tuple[int, ...]:
    return tuple(chance.randint(1, widest) for _ in range(_draw_count(chance, share, most)))


def _draw_count(chance: random.Random, share: float, most: int) -> int:
    """0 for most scenarios, else up to ``most``."""
    return chance.randint(1, most) if chance.random() < share else 0
