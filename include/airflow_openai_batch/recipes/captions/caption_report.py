"""Captions side by side, and what each model and way of sending took: time, money, tokens."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import InputError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import ShardLedger
from airflow_openai_batch.openai_api.prices import BATCH_SHARE
from airflow_openai_batch.recipes.captions.frame_rounds import (
    WAYS,
    find_captioned,
    list_jobs,
    name_model,
    read_captioned,
)
from airflow_openai_batch.recipes.captions.video_frames import read_frames
from airflow_openai_batch.recipes.cds.answer_extras import to_cell
from airflow_openai_batch.recipes.cds.workbook import WorkbookSheet, write_workbook
from airflow_openai_batch.report.markdown import escape
from airflow_openai_batch.report.report import Report
from airflow_openai_batch.wording import format_duration, number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.json_rows import Row
    from airflow_openai_batch.storage.location import Location

REPORT = "report.md"
WORKBOOK = "captions.xlsx"
PROBLEMS = "problems"
"""Column of the workbook: which caption is missing, and why."""
CAPTION = "caption"
"""Of a prompt with a schema: the property that is compared; the others have columns of their own."""
_SHOWN = 10
"""Frames whose captions stand in the report; the workbook has all."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionOutcome:
    """What one model, sent one way, came to.

    :param seconds: from the first sending until the last row was written; None where that cannot be told.
    :param cost_usd: as it was sent; None where the price is not known.
    :param standard_usd: the same tokens in real time.
    """

    model: str
    way: str
    frames: int
    captions: int
    seconds: float | None
    cost_usd: float | None
    standard_usd: float | None
    input_tokens: int
    output_tokens: int
    agreement: float | None = None
    """Words that its captions share with those of other models, 0 to 1; None where there is no other."""

    @property
    def name(self) -> str:
        return f"{self.model} ({self.way})"

    @property
    def other_usd(self) -> float | None:
        """What the same tokens cost sent the other way."""
        if self.standard_usd is None:
            return None
        return self.standard_usd if self.way == "batch" else self.standard_usd * BATCH_SHARE

    def to_row(self) -> Row:
        """As the workbook has it."""
        per_1000 = (
            None if self.cost_usd is None or not self.captions else 1000 * self.cost_usd / self.captions
        )
        return {
            "model": self.model,
            "sent as": self.way,
            "frames": self.frames,
            "captions": self.captions,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "cost USD": self.cost_usd,
            "USD per 1,000 captions": per_1000,
            "USD sent the other way": self.other_usd,
            "input tokens": self.input_tokens,
            "output tokens": self.output_tokens,
            "agreement": self.agreement,
        }


def compare_captions(video_uri: str) -> dict[str, Any]:
    """Write ``report.md`` and ``captions.xlsx`` about all that was captioned of a video, in this run or before.

    :param video_uri: the directory that `extract_frames` returned.
    :returns: where they are, and the outcomes.
    :raises InputError: if nothing was captioned.
    """
    place = open_place(video_uri.rstrip("/"), "output", find_giver_of(video_uri))
    found = list(find_captioned(place))
    if not found:
        raise InputError(f"{place.uri}: nothing was captioned yet. Look at the tasks before.")
    captions = [_read_captions(folder) for _, _, folder in found]
    agreements = _measure_agreement([model for model, _, _ in found], captions)
    outcomes = [
        _read_outcome(model, way, folder, told, agreement)
        for (model, way, folder), told, agreement in zip(found, captions, agreements, strict=True)
    ]
    report = "\n".join(_describe(outcomes, _pair(place, outcomes, captions))) + "\n"
    place.child(REPORT).write_bytes(report.encode())
    more = _name_more(outcomes, captions)
    names = ["frame", "second", *(each.name for each in outcomes), *more, PROBLEMS]
    written = write_workbook(
        place.child(WORKBOOK),
        (
            WorkbookSheet("captions", names, _pair(place, outcomes, captions)),
            WorkbookSheet("comparison", list(outcomes[0].to_row()), (each.to_row() for each in outcomes)),
        ),
    )
    log.info("%s: captions of %s.\n\n%s", place.uri, number_of(written[0], "frame"), report)
    return {
        "report": place.child(REPORT).uri,
        "workbook": place.child(WORKBOOK).uri,
        "outcomes": [each.to_row() for each in outcomes],
    }


def _read_outcome(
    model: str, way: str, folder: Location, captions: Captions, agreement: float | None
) -> CaptionOutcome:
    """Of all rounds together."""
    jobs = [each for each in list_jobs(folder) if each.child(directory.REPORT_JSON).exists()]
    reports = [Report.from_json(each.child(directory.REPORT_JSON).read_bytes()) for each in jobs]
    shards = [line for report in reports for line in report.shards]
    durations = [_measure(job, report) for job, report in zip(jobs, reports, strict=True)]
    return CaptionOutcome(
        model=name_model(folder, model, shards[0].model if shards else None),
        way=way,
        frames=len(captions),
        captions=sum(each.text is not None for each in captions.values()),
        seconds=_add(durations),
        cost_usd=_add([report.cost.actual_usd for report in reports]),
        standard_usd=_add([report.cost.standard_usd for report in reports]),
        input_tokens=sum(report.tokens.input for report in reports),
        output_tokens=sum(report.tokens.output for report in reports),
        agreement=agreement,
    )


def _add(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    known = [each for each in values if each is not None]
    return sum(known) if known and len(known) == len(values) else None


def _measure(job: Location, report: Report) -> float | None:
    times = [at for line in report.shards for at in _read_times(job, line.shard)]
    return max(times) - min(times) if times else None


def _read_times(output: Location, shard: int) -> list[float]:
    """When the first and the last thing happened to a shard that is done, Unix seconds."""
    events = ShardLedger(output.child(directory.state_folder(shard))).read()
    done = [event.at for event in events if event.kind == "done"]
    return [events[0].at, done[-1]] if done else []


class _Caption(NamedTuple):
    """``text`` is None where there is no good answer; then ``problem`` says why. ``more`` is what a prompt with a
    schema asks beside the caption."""

    text: str | None
    problem: str = ""
    more: Mapping[str, Any] = MappingProxyType({})


_NOT_ASKED = _Caption(None, "not asked about")
Captions = dict[int, _Caption]
"""By frame, of those that were asked about."""


def _read_captions(folder: Location) -> Captions:
    return {frame: _to_caption(row) for frame, row in read_captioned(folder).items()}


def _to_caption(row: Row) -> _Caption:
    if row["answer_status"] == "ok" and row["answer"]:
        return _read_caption(row["answer"].strip())
    return _Caption(None, ", ".join(filter(None, (row["answer_status"], row["answer_error"]))))


def _read_caption(answer: str) -> _Caption:
    """Of an answer with properties the one that is called so, else the first text, is the caption."""
    try:
        said = msgspec.json.decode(answer) if answer.startswith("{") else None
    except msgspec.DecodeError:
        said = None
    texts = [name for name, value in said.items() if isinstance(value, str)] if said else []
    if not said or not texts:
        return _Caption(answer)
    main = CAPTION if CAPTION in texts else texts[0]
    return _Caption(said[main], more={name: to_cell(value) for name, value in said.items() if name != main})


def _name_more(outcomes: Sequence[CaptionOutcome], captions: Sequence[Captions]) -> list[str]:
    """Columns of what was asked beside captions."""
    found = (
        f"{outcome.name}: {name}"
        for outcome, each in zip(outcomes, captions, strict=True)
        for told in each.values()
        for name in told.more
    )
    return list(dict.fromkeys(found))


def _pair(place: Location, outcomes: Sequence[CaptionOutcome], captions: Sequence[Captions]) -> Iterator[Row]:
    """One row per frame, with a column for each outcome."""
    names = [each.name for each in outcomes]
    for frame in read_frames(place, None):
        told = {
            name: each.get(frame["frame"], _NOT_ASKED) for name, each in zip(names, captions, strict=True)
        }
        missing = [f"{name}: {each.problem}" for name, each in told.items() if each.text is None]
        row: Row = {"frame": frame["frame"], "second": frame["second"], PROBLEMS: "; ".join(missing) or None}
        row.update((name, each.text) for name, each in told.items())
        row.update(
            (f"{name}: {key}", value) for name, each in told.items() for key, value in each.more.items()
        )
        yield row


def _measure_agreement(models: Sequence[str], captions: Sequence[Captions]) -> list[float | None]:
    """For each the mean share of words in common with what other models said of the same frame."""
    sums = [0.0] * len(models)
    pairs = [0] * len(models)
    for frame in {frame for each in captions for frame in each}:
        words = [frozenset((each.get(frame, _NOT_ASKED).text or "").casefold().split()) for each in captions]
        for a, b in itertools.combinations(range(len(models)), 2):
            if models[a] == models[b] or not words[a] or not words[b]:
                continue
            share = len(words[a] & words[b]) / len(words[a] | words[b])
            for at in (a, b):
                sums[at] += share
                pairs[at] += 1
    return [round(total / count, 3) if count else None for total, count in zip(sums, pairs, strict=True)]


def _describe(outcomes: Sequence[CaptionOutcome], rows: Iterator[Row]) -> Iterator[str]:
    yield "# Captions compared"
    yield ""
    yield "| model | sent as | captions | time | cost USD | per 1,000 | the other way | tokens in / out | agreement |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for each in outcomes:
        row = each.to_row()
        time = "unknown" if each.seconds is None else format_duration(each.seconds)
        agreement = "" if each.agreement is None else f"{each.agreement:.0%}"
        yield (
            f"| {escape(each.model)} | {each.way} | {each.captions:,} of {each.frames:,} | {time} | "
            f"{_usd(each.cost_usd)} | {_usd(row['USD per 1,000 captions'], 4)} | {_usd(each.other_usd)} | "
            f"{each.input_tokens:,} / {each.output_tokens:,} | {agreement} |"
        )
    for sentence in _conclude(outcomes):
        yield ""
        yield sentence
    yield ""
    yield "## The first frames"
    for row in itertools.islice(rows, _SHOWN):
        yield ""
        yield f"**{row['second']:g} s**"
        yield ""
        for each in outcomes:
            yield f"* {escape(each.name)}: {escape(row[each.name] or 'no caption')}"
        if row[PROBLEMS]:
            yield f"* {PROBLEMS}: {escape(row[PROBLEMS])}"


def _conclude(outcomes: Sequence[CaptionOutcome]) -> Iterator[str]:
    """What the numbers say in words."""
    by_key = {(each.model, each.way): each for each in outcomes}
    for model in dict.fromkeys(each.model for each in outcomes):
        quick, cheap = by_key.get((model, "realtime")), by_key.get((model, "batch"))
        if quick is None or cheap is None or quick.seconds is None or cheap.seconds is None:
            continue
        saved = (quick.cost_usd or 0.0) - (cheap.cost_usd or 0.0)
        yield (
            f"{model}: real time took {format_duration(quick.seconds)}, the batch {format_duration(cheap.seconds)} and "
            f"{_usd(saved)} USD less."
        )
    priced = [each for each in outcomes if each.cost_usd is not None and each.captions]
    for way in WAYS:
        costs = {each.model: (each.cost_usd or 0.0) / each.captions for each in priced if each.way == way}
        if len(costs) > 1 and min(costs.values()) > 0:
            cheapest, dearest = min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)
            times = costs[dearest] / costs[cheapest]
            yield f"Sent as {way}, a caption by {dearest} costs {times:.1f} times one by {cheapest}."


def _usd(value: float | None, digits: int = 6) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
