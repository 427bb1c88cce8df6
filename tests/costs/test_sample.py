"""The first requests of a plan, and what they say of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from airflow_openai_batch.costs.forecast import forecast_costs
from airflow_openai_batch.costs.sample import choose_sample, extrapolate
from airflow_openai_batch.costs.spending import read_spending, record_spending
from airflow_openai_batch.operators.task.plan_costs import PlanCosts
from airflow_openai_batch.results.landing_summary import LandingSummary, Spending, Tokens
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan


@pytest.fixture
def output(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path / "job"))


@pytest.fixture
def plan(tmp_path: Path, output: Location) -> Plan:
    """Ten requests of gpt-4o-mini and two of gpt-4o, in shards of four, four, two and two."""
    lines = [request_line(f"{n}", max_tokens=1_000) for n in range(10)]
    lines += [request_line(f"x{n}", model="gpt-4o", max_tokens=1_000) for n in range(2)]
    source = write_lines(tmp_path / "in.jsonl", lines)
    return split(source, output, max_requests=4).plan


def land(output: Location, shard: int, answers: int, *, output_each: int = 100, input_each: int = 10) -> None:
    tokens = Tokens(input=answers * input_each, output=answers * output_each)
    spending = Spending(answers=answers, tokens=tokens, cost_usd=0.001 * answers)
    record_spending(
        output, shard, 1, LandingSummary(requests=answers, rows={"ok": answers}, spending=spending)
    )


@pytest.mark.parametrize(
    ("requests", "wanted"),
    [
        (1, {0: 1}),
        (4, {0: 4}),
        (6, {0: 4, 1: 2}),
        (12, {0: 4, 1: 4, 2: 2, 3: 2}),
        (1_000, {0: 4, 1: 4, 2: 2, 3: 2}),
        (None, {0: 4, 1: 4, 2: 2, 3: 2}),
    ],
)
def test_a_sample_is_the_first_requests(plan: Plan, requests: int | None, wanted: dict[int, int]) -> None:
    assert choose_sample(plan, requests) == wanted


def test_refs_name_a_number_only_where_a_shard_is_wanted_in_part(plan: Plan, output: Location) -> None:
    refs = forecast_costs(plan, output, sample_requests=6).refs
    assert refs == [{"job": output.uri, "shard": 0}, {"job": output.uri, "shard": 1, "first": 2}]
    assert all(ref.keys() == {"job", "shard"} for ref in forecast_costs(plan, output).refs)


def test_answers_that_do_not_say_what_they_used_are_no_measure(plan: Plan, output: Location) -> None:
    land(output, 0, 4, output_each=0, input_each=0)
    assert extrapolate(plan, read_spending(output)) is None


def test_a_sample_of_what_has_no_output_says_what_the_rest_costs(tmp_path: Path, output: Location) -> None:
    body = {"model": "text-embedding-3-small", "input": "Good?"}
    lines = [
        json.dumps({"custom_id": f"{n}", "method": "POST", "url": "/v1/embeddings", "body": body})
        for n in range(6)
    ]
    plan = split(write_lines(tmp_path / "in.jsonl", lines), output, max_requests=3).plan
    land(output, 0, 3, output_each=0)
    assert "By 3 answers, which cost $0.0030, all 6 requests" in str(extrapolate(plan, read_spending(output)))


def test_a_sample_is_estimated_alone(plan: Plan, output: Location) -> None:
    whole, sample = forecast_costs(plan, output), forecast_costs(plan, output, sample_requests=5)
    assert sample.estimate.requests == 5
    assert sample.estimate.input_tokens == round(5 / 12 * whole.estimate.input_tokens)
    assert sample.estimate.most_output_tokens == 5_000
    assert "only the first 5 requests" in str(sample)
    assert sample.to_xcom()["sample_requests"] == 5
    assert sample.to_xcom()["requests"] == 12


@pytest.mark.parametrize("with_bound", [False, True])
def test_a_budget_tells_of_content_that_only_openai_has_whatever_else_is_counted(
    tmp_path: Path, output: Location, *, with_bound: bool
) -> None:
    file = [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]
    lines = [request_line("a", messages=file, max_tokens=10)]
    if with_bound:  # of a model whose tokens are not known exactly
        image = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
        seen = [{"role": "user", "content": [image]}]
        lines.append(request_line("b", model="gpt-4o", messages=seen, max_tokens=10))
    plan = split(write_lines(tmp_path / "in.jsonl", lines), output).plan
    assert {shard.tokens for shard in plan.shards} == ({"lower", "upper"} if with_bound else {"lower"})
    costs = PlanCosts(Policy(), max_cost_usd=1.0, sample_requests=None)
    (notice,) = costs.check(forecast_costs(plan, output), None, plan_only=False)
    assert "a lower bound" in notice


def test_what_a_sample_measured_says_what_the_whole_would_cost(plan: Plan, output: Location) -> None:
    land(output, 0, 4)
    land(output, 3, 2, output_each=50)
    found = extrapolate(plan, read_spending(output))
    assert found is not None
    assert (found.answers, found.requests, found.spent_usd) == (6, 12, pytest.approx(0.006))
    assert found.output_tokens == 10 * 100 + 2 * 50
    assert found.input_tokens == sum(shard.input_tokens for shard in plan.shards)
    mini, large = (
        sum(s.input_tokens for s in plan.shards if s.model == m) for m in ("gpt-4o-mini", "gpt-4o")
    )
    left = 6 / 10 * (mini * 0.075 + 1_000 * 0.30) / 1e6
    assert found.cost_usd == pytest.approx(0.006 + left), (
        "what was paid, and the rest at the price of a batch"
    )
    assert "By 6 answers" in str(found)
    in_realtime = extrapolate(plan, read_spending(output), choose_lane=lambda shard, requests: "realtime")
    assert in_realtime is not None
    assert in_realtime.cost_usd == pytest.approx(0.006 + 2 * left)
    assert "6 of the rest in real time at the full price" in str(in_realtime)
    assert large > 0


def test_a_model_of_which_nothing_was_measured_is_named(plan: Plan, output: Location) -> None:
    land(output, 0, 4)
    found = extrapolate(plan, read_spending(output))
    assert found is not None
    assert found.unmeasured_models == ("gpt-4o",)
    assert found.output_tokens == 10 * 100


def test_nothing_measured_says_nothing(plan: Plan, output: Location) -> None:
    assert extrapolate(plan, read_spending(output)) is None


def test_input_that_could_not_be_counted_is_taken_as_measured(plan: Plan, output: Location) -> None:
    doubtful = tuple(msgspec.structs.replace(shard, tokens="lower") for shard in plan.shards)
    land(output, 0, 4, input_each=1_000)
    found = extrapolate(msgspec.structs.replace(plan, shards=doubtful), read_spending(output))
    assert found is not None
    assert found.input_tokens == 10 * 1_000


def test_a_later_run_pays_only_for_what_is_left(plan: Plan, output: Location) -> None:
    land(output, 0, 4)
    output.child("state/00000/0009-done.json").write_bytes(b"{}")
    land(output, 1, 2)
    forecast = forecast_costs(plan, output)
    assert (forecast.estimate.requests, forecast.left.requests) == (12, 6)
    text = str(forecast)
    assert "Spent so far by this job: $0.0060; 6 requests are still to be answered." in text
    assert "By 6 answers" in text
    assert forecast.to_xcom()["left_most_cost_usd"] == forecast.left.most_cost_usd
