"""What a nightly job cost and how much of it failed, night after night, from the reports that the nights left."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.recipes.reviews.day_rounds import list_rounds

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.reviews.nights import Night

STEEP = 2.0
"""So many times the median of the nights before is worth a word."""
LOOK = "Look: "
"""How a sentence on something steep begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightFigures:
    """One night in the trend.

    :param requests: those of the night, and of its rows that came late.
    :param bad: requests without a good answer, and those that are not answered yet.
    :param cost_usd: None where no price is known.
    """

    day: str
    requests: int
    bad: int
    cost_usd: float | None

    @property
    def bad_fraction(self) -> float:
        return self.bad / self.requests if self.requests else 0.0

    @property
    def cost_per_1000_usd(self) -> float | None:
        return None if self.cost_usd is None or not self.requests else 1000 * self.cost_usd / self.requests


def read_trend(night: Night, days: int) -> list[NightFigures]:
    """This night and those of the ``days`` calendar days before it that left a report, oldest first.

    A night that failed has a report as well: it is part of the trend. Reads one small file a day.
    """
    found = [_read_figures(each) for each in (night, *night.days_before(days))]
    return [figures for figures in reversed(found) if figures is not None]


def describe_trend(trend: Sequence[NightFigures]) -> list[str]:
    """Sentences on the last night beside those before it, the steep ones marked with `LOOK`; none for the first."""
    *before, last = trend
    if not before:
        return []
    typical_bad = statistics.median(each.bad_fraction for each in before)
    sentences = [
        f"{_mark(last.bad_fraction, typical_bad)}{last.bad_fraction:.1%} of the requests without a good answer; "
        f"the median of the {_nights(before)} before is {typical_bad:.1%}."
    ]
    prices = [price for each in before if (price := each.cost_per_1000_usd) is not None]
    price = last.cost_per_1000_usd
    if prices and price is not None:
        typical = statistics.median(prices)
        sentences.append(
            f"{_mark(price, typical)}{price:.4f} USD for 1,000 requests; the median of the {_nights(prices)} before "
            f"is {typical:.4f} USD."
        )
    return sentences


def write_trend_table(trend: Iterable[NightFigures], shares: dict[str, str]) -> str:
    """A table in Markdown.

    :param shares: by day, what else to say of it in the last column.
    """
    lines = [
        "| day | requests | not ok | cost USD | USD per 1,000 | answers |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in trend:
        bad = f"{each.bad:,} ({each.bad_fraction:.1%})" if each.bad else "0"
        lines.append(
            f"| {each.day} | {each.requests:,} | {bad} | {_usd(each.cost_usd, 6)} | "
            f"{_usd(each.cost_per_1000_usd, 4)} | {shares.get(each.day, 'no table')} |"
        )
    return "\n".join(lines)


def _read_figures(night: Night) -> NightFigures | None:
    reports = [report for each in list_rounds(night) if (report := each.read_report()) is not None]
    if not reports:
        return None
    costs = [report.cost.actual_usd for report in reports]
    return NightFigures(
        day=str(night.day),
        requests=sum(report.counts.requests for report in reports),
        bad=sum(report.counts.bad + report.counts.unfinished for report in reports),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _mark(value: float, typical: float) -> str:
    return LOOK if value > STEEP * typical else ""


def _nights(before: Sequence[object]) -> str:
    return "night" if len(before) == 1 else f"{len(before)} nights"


def _usd(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
