"""max_cost_usd: what is refused, what is let through, and what the refusal says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_openai_batch.costs.budget import Budget, check_estimate
from airflow_openai_batch.costs.estimate import estimate_plan, estimate_send
from airflow_openai_batch.costs.spending import (
    drop_reserved,
    find_open_requests,
    find_paid_before,
    measure_means,
    read_spending,
    record_spending,
    reserve,
)
from airflow_openai_batch.errors import BudgetError
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.open_plan import OpenPlan
from airflow_openai_batch.job.plan import Counts, Limits, OutputBound, Plan, Shard
from airflow_openai_batch.results.landing_summary import LandingSummary, ShardSummary, Spending, Tokens
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
MINI = "gpt-4o-mini"  # as batch: $0.075 a million tokens in, $0.30 out


def make_shard(number: int, **fields: Any) -> Shard:
    known = {
        "model": MINI,
        "endpoint": CHAT,
        "requests": 1_000,
        "bytes": 4_000_000,
        "input_tokens": 1_000_000,
        "sha256": "",
        "first_position": 1_000 * number,
    }
    return Shard(shard=number, **{**known, **fields})


def make_plan(*shards: Shard, each: int | None = 500) -> Plan:
    """Every request allows ``each`` output tokens."""
    names = {(shard.model, shard.endpoint): 0 for shard in shards}
    for shard in shards:
        names[shard.model, shard.endpoint] += shard.requests
    outputs = [
        OutputBound(
            model=model,
            endpoint=endpoint,
            requests=count,
            bounded_tokens=0 if each is None else each * count,
            unbounded_requests=count if each is None else 0,
            unbounded_choices=count if each is None else 0,
        )
        for (model, endpoint), count in names.items()
    ]
    requests = sum(shard.requests for shard in shards)
    return Plan(
        fingerprint="f",
        created_at=0.0,
        sources=(),
        limits=Limits(max_requests=1, max_bytes=1, max_tokens=None),
        counts=Counts(positions=requests, requests=requests, rejected=0, blank=0),
        shards=shards,
        outputs=tuple(outputs),
    )


def make_landed(
    cost_usd: float, *, answers: int = 1_000, output: int = 100_000, replaced_usd: float = 0
) -> LandingSummary:
    tokens = Tokens(input=answers * 1_000, output=output)
    return LandingSummary(
        requests=1_000,
        rows={"ok": answers},
        spending=Spending(answers=answers, tokens=tokens, cost_usd=cost_usd),
        replaced=Spending(answers=1, cost_usd=replaced_usd),
    )


@pytest.fixture
def output(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path / "job"))


def check(plan: Plan, max_cost_usd: float, *, spent_usd: float = 0.0, **options: Any) -> None:
    check_estimate(estimate_plan(plan, **options), max_cost_usd, spent_usd=spent_usd, where="job")


TWO = make_plan(make_shard(0), make_shard(1))  # 2 x ($0.075 in + $0.15 out)


def test_a_job_that_fits_to_the_cent_goes_through() -> None:
    check(TWO, 0.45)
    check(TWO, 10.45, spent_usd=10.0)


def test_a_job_that_may_cost_more_is_refused_with_both_numbers_and_the_ways_out() -> None:
    with pytest.raises(BudgetError) as caught:
        check(TWO, 0.44)
    text = str(caught.value)
    assert "up to $0.4500" in text
    assert "max_cost_usd=0.44" in text
    for way_out in ("Raise max_cost_usd", "lower max_tokens", "cheaper model", "sample_requests"):
        assert way_out in text
    assert caught.value.permanent


def test_what_was_spent_counts() -> None:
    with pytest.raises(BudgetError, match=r"\$0\.1000 spent so far"):
        check(TWO, 0.5, spent_usd=0.1)


def test_in_real_time_it_costs_twice_as_much() -> None:
    check(TWO, 0.90, in_realtime=lambda requests: True)
    with pytest.raises(BudgetError, match=r"\$0\.9000"):
        check(TWO, 0.89, in_realtime=lambda requests: True)


def test_only_the_small_shards_go_out_in_real_time() -> None:
    plan = make_plan(make_shard(0), make_shard(1, requests=10, input_tokens=10_000))
    found = estimate_plan(plan, in_realtime=lambda requests: requests <= 10)
    assert found.most_cost_usd == pytest.approx(0.225 + 0.00225 * 2)


def test_a_model_without_a_price_makes_a_budget_a_promise_that_cannot_be_kept() -> None:
    plan = make_plan(make_shard(0), make_shard(1, model="llama-at-home"))
    with pytest.raises(BudgetError, match="no price is known for llama-at-home"):
        check(plan, 1_000)


def test_requests_without_a_bound_count_with_the_most_the_model_can_write() -> None:
    plan = make_plan(make_shard(0), each=None)
    check(plan, 0.075 + 16.384 * 0.30)
    with pytest.raises(BudgetError, match=r"1,000 requests for gpt-4o-mini have no bound .* 16,384 tokens"):
        check(plan, 4.98)


def test_several_choices_without_a_bound_count_each() -> None:
    plan = make_plan(make_shard(0), each=None)
    outputs = tuple(msgspec.structs.replace(bound, unbounded_choices=3_000) for bound in plan.outputs)
    found = estimate_plan(msgspec.structs.replace(plan, outputs=outputs))
    assert found.most_output_tokens == 3 * 1_000 * 16_384


def test_requests_without_a_bound_count_with_what_was_measured() -> None:
    plan = make_plan(make_shard(0), each=None)
    means = {(MINI, CHAT): 50.0}
    check(plan, 0.09, means=means)
    with pytest.raises(BudgetError, match="mean measured so far, 50 tokens"):
        check(plan, 0.08, means=means)


def test_a_bound_holds_even_where_answers_were_short_so_far() -> None:
    means = {(MINI, CHAT): 50.0}
    with pytest.raises(BudgetError, match=r"measured so far they would cost \$0\.1800"):
        check(TWO, 0.2, means=means)


def test_a_model_of_which_nothing_is_known_and_no_bound_is_refused_with_the_way_out() -> None:
    plan = make_plan(make_shard(0, model="gpt-5-pro"), each=None)  # its price is known
    with pytest.raises(BudgetError, match=r"not known here\. Nothing was sent\. Set max_tokens"):
        check(plan, 1_000_000)


def test_a_plan_of_a_release_that_did_not_look_counts_as_without_bounds() -> None:
    found = estimate_plan(msgspec.structs.replace(TWO, outputs=()))
    assert found.most_output_tokens == 2_000 * 16_384


def test_embeddings_have_no_output_to_bound() -> None:
    plan = make_plan(make_shard(0, model="text-embedding-3-small", endpoint=EMBED), each=0)
    check(plan, 0.01)
    assert estimate_plan(plan).unbounded == ()


def test_a_part_of_a_plan_costs_its_part() -> None:
    found = estimate_plan(TWO, parts={0: 1_000, 1: 100})
    assert (found.requests, found.input_tokens) == (1_100, 1_100_000)
    assert found.most_cost_usd == pytest.approx(0.225 * 1.1)


def test_the_sends_of_a_plan_cost_what_the_plan_costs() -> None:
    costs = [estimate_send(TWO, shard, requests=1_000, in_realtime=False) for shard in TWO.shards]
    assert sum(cost or 0 for cost in costs) == pytest.approx(estimate_plan(TWO).most_cost_usd)


def test_spending_is_read_from_one_listing_and_landing_again_changes_nothing(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    for send, cost in ((1, 0.1), (2, 0.15)):
        record_spending(output, 0, send, make_landed(cost, answers=900 + 50 * send))
    record_spending(output, 7, 1, make_landed(1.25, replaced_usd=0.25))
    record_spending(output, 7, 1, make_landed(1.25, replaced_usd=0.25))
    monkeypatch.setattr(Location, "read_bytes", None)  # nothing is opened
    spent = read_spending(output)
    assert spent.paid_usd == pytest.approx(1.65)
    assert spent.answers == 2_000


def test_means_are_kept_by_model(output: Location) -> None:
    plan = make_plan(make_shard(0), make_shard(1), make_shard(2, model="gpt-4o"))
    record_spending(output, 0, 1, make_landed(1, answers=1_000, output=50_000))
    record_spending(output, 1, 1, make_landed(1, answers=1_000, output=70_000))
    record_spending(output, 2, 1, make_landed(1, answers=10, output=10))
    assert measure_means(plan, plan.shards, read_spending(output)) == {
        (MINI, CHAT): 60.0,
        ("gpt-4o", CHAT): 1.0,
    }


def test_what_is_open_leaves_out_what_is_answered_or_done(output: Location) -> None:
    record_spending(output, 0, 1, make_landed(1, answers=990))
    record_spending(output, 1, 1, make_landed(1, answers=990))
    output.child("state/00001/0007-done.json").write_bytes(b"{}")
    output.child("state/00000/0006-landed.json").write_bytes(b"{}")
    wanted = {0: 1_000, 1: 1_000, 2: 300}
    assert find_open_requests(output, read_spending(output), wanted) == {0: 10, 2: 300}


def write_event(output: Location, shard: int, number: int, event: Event) -> None:
    place = output.child(f"state/{shard:05d}/{number:04d}-{event.kind}.json")
    place.write_bytes(msgspec.json.encode(event))


def test_what_a_repair_has_reopened_is_open_until_it_is_done_again(output: Location) -> None:
    """Answers that break their schema were paid for, and are asked again all the same."""
    rows = {"ok": 970, "invalid_output": 20, "missing": 10}
    landed = LandingSummary(requests=1_000, rows=rows, spending=Spending(answers=990))
    record_spending(output, 0, 1, landed)
    summary = ShardSummary(shard=0, landed=landed).to_dict()
    write_event(output, 0, 6, Event(kind="done", send=1, at=1.0, summary=summary))
    write_event(output, 0, 7, Event(kind="cleaned", send=1, at=1.0))
    spent = read_spending(output)
    assert find_open_requests(output, spent, {0: 1_000}) == {}
    write_event(output, 0, 8, Event(kind="reopened", send=1, at=2.0))
    write_event(output, 0, 9, Event(kind="landed", send=1, at=3.0))
    assert find_open_requests(output, spent, {0: 1_000}) == {0: 30}
    write_event(output, 0, 10, Event(kind="done", send=2, at=4.0, summary=summary))
    assert find_open_requests(output, spent, {0: 1_000}) == {}


def budget(output: Location, max_cost_usd: float, plan: Plan = TWO) -> Budget:
    return Budget(output=output, plan=OpenPlan.of(plan), max_cost_usd=max_cost_usd)


def send(of: Budget, shard: int, number: int = 1, requests: int = 1_000, **options: Any) -> None:
    options = {"in_realtime": False, **options}
    of.check_send(of.plan.shards[shard], number, requests=requests, **options)


def test_sends_side_by_side_cannot_exceed_the_budget_together(output: Location) -> None:
    tight = budget(output, 0.44)
    send(tight, 0)
    with pytest.raises(BudgetError) as caught:
        send(tight, 1)
    text = str(caught.value)
    assert "$0.2250 for what is under way" in text
    assert "$0.4500, over max_cost_usd=0.44" in text
    assert read_spending(output).reserved.keys() == {0}


def test_once_it_has_landed_a_send_counts_with_what_it_cost(output: Location) -> None:
    tight = budget(output, 0.44)
    send(tight, 0)
    record_spending(output, 0, 1, make_landed(0.2))
    send(tight, 1)
    assert read_spending(output).reserved_usd == pytest.approx(0.225)


def test_asking_again_for_the_same_send_reserves_nothing_more(output: Location) -> None:
    tight = budget(output, 0.225)
    for _ in range(3):
        send(tight, 0)
    assert len(output.child("spent").names()) == 1


def test_a_send_that_was_refused_hands_its_share_to_the_next(output: Location) -> None:
    tight = budget(output, 0.225)
    send(tight, 0, 1)
    send(tight, 0, 2)
    assert read_spending(output).reserved_usd == pytest.approx(0.225)


def test_what_was_given_up_holds_nothing_and_leaves_others_and_the_past_alone(output: Location) -> None:
    for shard, number in ((0, 1), (0, 2), (0, 3), (1, 2)):
        reserve(output, shard, number, 0.25)
    drop_reserved(output, 0, after=1)
    assert read_spending(output).reserved_usd == 0.5
    assert output.child("spent").names() == ["00000.1.reserved.250000.json", "00001.2.reserved.250000.json"]


def test_a_leftover_counts_with_what_it_carries_on_top_of_what_was_paid(output: Location) -> None:
    record_spending(output, 0, 1, make_landed(0.2, answers=900))
    send(budget(output, 0.2226), 0, 2, requests=100, input_tokens=100_000)
    record_spending(output, 0, 2, make_landed(0.22, answers=990))
    with pytest.raises(BudgetError, match=r"\$0\.2200 spent by the job"):
        send(budget(output, 0.2226), 0, 3, requests=20)


def test_a_send_in_real_time_counts_twice(output: Location) -> None:
    with pytest.raises(BudgetError):
        send(budget(output, 0.44), 0, in_realtime=True)


def test_outputs_longer_than_measured_stop_the_rest(output: Location) -> None:
    """A mean is no bound: what is really paid decides."""
    plan = make_plan(*(make_shard(number) for number in range(4)), each=None)
    loose = budget(output, 0.5, plan)
    record_spending(output, 3, 1, make_landed(0.01, answers=100, output=1_000))  # ten tokens each
    send(loose, 0)
    record_spending(output, 0, 1, make_landed(0.45, output=1_250_000))
    with pytest.raises(BudgetError):
        send(loose, 1)


def test_a_send_whose_cost_cannot_be_known_is_refused(output: Location) -> None:
    plan = make_plan(make_shard(0, model="llama-at-home"))
    with pytest.raises(BudgetError, match="llama-at-home"):
        send(budget(output, 1_000, plan), 0)


def test_many_at_the_same_moment_never_exceed_the_budget(output: Location) -> None:
    plan = make_plan(*(make_shard(number) for number in range(16)))
    tight = budget(output, 0.225 * 5, plan)

    def try_send(shard: int) -> bool:
        try:
            send(tight, shard)
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        granted = sum(threads.map(try_send, range(16)))
    assert granted <= 5
    assert read_spending(output).reserved_usd <= tight.max_cost_usd + 1e-3
    assert sum(try_send(shard) for shard in range(16)) == 5  # those that have it ask again and keep it


def test_names_of_other_files_are_left_alone(output: Location) -> None:
    output.child("spent/README.txt").write_bytes(b"mine")
    reserve(output, 0, 1, 0.5)
    assert read_spending(output).reserved_usd == 0.5


def test_the_books_are_kept_on_an_object_store(s3: ObjectStore) -> None:
    fs = s3.filesystem()
    output = Location(fs, f"{s3.bucket}/job", s3.uri("job"))
    tight = budget(output, 0.44)
    send(tight, 0)
    with pytest.raises(BudgetError):
        send(tight, 1)
    record_spending(output, 0, 1, make_landed(0.2))
    send(tight, 1)
    spent = read_spending(output)
    assert (spent.paid_usd, spent.reserved.keys()) == (pytest.approx(0.2), {1})
    assert find_paid_before(output, 0, 2) == pytest.approx(0.2)
    assert find_paid_before(output, 1, 2) == 0.0
    drop_reserved(output, 1, after=0)
    assert read_spending(output).reserved == {}


def test_a_restart_begins_with_nothing_spent(tmp_path: Path, output: Location) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request_line("a")])
    split(source, output)
    record_spending(output, 0, 1, make_landed(0.2))
    split(source, output, on_existing="restart")
    assert read_spending(output).paid_usd == 0
    assert len(output.child("generations/0001/spent").names()) == 1
