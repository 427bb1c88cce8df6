"""The book of a connection's month: what is under way, paid, summed up, and late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from airflow_openai_batch.costs.estimate import estimate_plan
from airflow_openai_batch.costs.monthly_book import MonthlyBook, month_end
from airflow_openai_batch.costs.monthly_budget import MonthlyBudget, SendOf
from airflow_openai_batch.errors import BudgetError, ConfigError
from airflow_openai_batch.job.open_plan import OpenPlan
from airflow_openai_batch.job.plan import Counts, Limits, OutputBound, Plan, Shard
from airflow_openai_batch.job.shard_state import Claim, Content, ShardState
from airflow_openai_batch.openai_api.account_limits import read_account_limits
from airflow_openai_batch.storage.location import Location, resolve_plain

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore

CHAT = "/v1/chat/completions"
HOUR, DAY = 3600.0, 86_400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOON = at("2026-11-10T12:00")


def key(number: int) -> str:
    return f"{number:064x}"[::-1]


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path / "book"))


@pytest.fixture
def book(folder: Location) -> MonthlyBook:
    return MonthlyBook(folder)


def sums(book: MonthlyBook, now: float, *, but: str = "") -> tuple[float, float]:
    spent = book.read(now, but=but)
    return spent.paid_usd, spent.reserved_usd


def test_a_reservation_ends_with_the_real_cost(book: MonthlyBook) -> None:
    book.reserve(key(1), 0.25, NOON)
    book.reserve(key(2), 1, NOON)
    assert sums(book, NOON) == (0, 1.25)
    assert sums(book, NOON, but=key(1)) == (0, 1)
    for _ in range(2):  # landing again finds the same
        book.settle(key(1), 0.1, NOON, NOON)
    assert sums(book, NOON) == (0.1, 1)


def test_a_send_belongs_to_the_month_it_is_sent_in(book: MonthlyBook) -> None:
    last, first = at("2026-11-30T23:00"), at("2026-12-01T03:00")
    book.reserve(key(1), 5, last)
    book.settle(key(1), 4, last, first)
    assert sums(book, first) == (0, 0)
    assert sums(book, last) == (4, 0)
    assert month_end(last) == "2026-12-01"
    assert month_end(first) == "2027-01-01"


def test_a_day_is_summed_up_once_and_not_listed_again(book: MonthlyBook, folder: Location) -> None:
    for number in range(50):
        book.reserve(key(number), 0.02, NOON)
        book.settle(key(number), 0.01, NOON, NOON)
    later = NOON + DAY
    assert sums(book, later) == (0.5, 0)
    month = folder.child("2026-11")
    assert "10.total.500000.json" in month.names()
    assert len(month.names()) == 10, "quiet days, too"
    for name in month.child("10").names():
        month.child(f"10/{name}").remove()
    assert sums(book, later) == (0.5, 0)


def test_what_never_lands_counts_with_what_it_may_have_cost_and_what_lands_late_corrects_it(
    book: MonthlyBook, folder: Location
) -> None:
    book.reserve(key(1), 3, NOON)
    book.reserve(key(2), 2, NOON)
    book.settle(key(2), 1, NOON, NOON)
    assert sums(book, NOON + DAY) == (1, 3)
    assert not [name for name in folder.child("2026-11").names() if name.startswith("10.")]
    later = NOON + 3 * DAY
    assert sums(book, later) == (1, 3), "the look that sums it up"
    assert sums(book, later) == (4, 0)
    for _ in range(2):
        book.settle(key(1), 2.5, NOON, later)
        book.settle(key(2), 1, NOON, later)  # was in the sum as it is
    assert sums(book, later) == (3.5, 0)
    book.settle(key(3), 0.25, NOON, later)  # was never reserved: the budget came later
    assert sums(book, later) == (3.75, 0)


def make_budget(book: MonthlyBook, amount: float) -> MonthlyBudget:
    return MonthlyBudget(book=book, conn_id="c", monthly_budget_usd=amount)


def make_send(
    folder: Location,
    number: int,
    *,
    model: str = "gpt-4o-mini",
    bounded: bool = True,
    in_realtime: bool = False,
) -> SendOf:
    plan = make_plan(number, model=model, bounded=bounded)
    content = Content(sha256="", bytes=1, requests=1_000, input_tokens=1_000_000)
    return SendOf(
        key=key(number),
        plan=OpenPlan.of(plan),
        output=folder.child("job"),
        shard=plan.shards[0],
        state=ShardState(content=content),
        in_realtime=in_realtime,
    )


def make_plan(number: int, *, model: str = "gpt-4o-mini", bounded: bool = True) -> Plan:
    """1,000 requests; as batch 0.225 dollars at most: a million tokens in, half a million out."""
    shard = Shard(
        shard=number,
        model=model,
        endpoint=CHAT,
        requests=1_000,
        bytes=4_000_000,
        input_tokens=1_000_000,
        sha256="",
        first_position=0,
    )
    output = OutputBound(
        model=model,
        endpoint=CHAT,
        requests=1_000,
        bounded_tokens=500_000 if bounded else 0,
        unbounded_requests=0 if bounded else 1_000,
        unbounded_choices=0 if bounded else 1_000,
    )
    return Plan(
        fingerprint="f",
        created_at=0.0,
        sources=(),
        limits=Limits(max_requests=1, max_bytes=1, max_tokens=None),
        counts=Counts(positions=1_000, requests=1_000, rejected=0, blank=0),
        shards=(shard,),
        outputs=(output,),
    )


def test_a_send_that_fits_is_reserved_and_may_be_asked_for_again(book: MonthlyBook, folder: Location) -> None:
    budget = make_budget(book, 0.5)
    for _ in range(3):
        budget.reserve(make_send(folder, 1), NOON)
    budget.reserve(make_send(folder, 2), NOON)
    assert sums(book, NOON) == (0, 0.45)
    with pytest.raises(BudgetError) as refused:
        budget.reserve(make_send(folder, 3), NOON)
    for words in ("Connection 'c' has spent $0.0000 in 2026-11", "$0.4500 is under way", "monthly_budget_usd=0.5",
                  "may cost up to $0.2250", "2026-12-01"):  # fmt: skip
        assert words in str(refused.value)
    assert sums(book, NOON) == (0, 0.45), "what was refused holds nothing"
    budget.settle(key(1), 0.05, [NOON], NOON)
    budget.reserve(make_send(folder, 3), NOON)


def test_what_was_reserved_and_lands_the_next_day_is_in_one_day_only(
    book: MonthlyBook, folder: Location
) -> None:
    budget = make_budget(book, 10)
    before, after = at("2026-11-10T23:59:59"), at("2026-11-11T00:00:01")
    budget.reserve(make_send(folder, 1), before)  # the ledger says so two seconds later
    budget.settle(key(1), 0.1, [after], after + HOUR)
    assert sums(book, after) == (0.1, 0)


def claim(send: SendOf, at: float) -> SendOf:
    """The same send, which somebody was about to pay for."""
    return replace(send, state=msgspec.structs.replace(send.state, claims=(Claim(at, "me"),)))


def test_what_is_refused_on_another_day_leaves_that_day_as_it_was(
    book: MonthlyBook, folder: Location
) -> None:
    """A send in real time that was killed has paid for what it had asked by then."""
    send, again = make_send(folder, 1), NOON + 2 * DAY
    make_budget(book, 0.3).reserve(send, NOON)
    with pytest.raises(BudgetError):
        make_budget(book, 0.1).reserve(claim(send, NOON), again)
    assert sums(book, again) == (0, 0.225)


def test_what_is_refused_keeps_what_an_earlier_try_may_have_paid(book: MonthlyBook, folder: Location) -> None:
    send = make_send(folder, 1)
    make_budget(book, 0.3).reserve(send, NOON)
    book.reserve(key(2), 0.2, NOON)
    with pytest.raises(BudgetError):
        make_budget(book, 0.3).reserve(claim(send, NOON), NOON + HOUR)
    assert sums(book, NOON) == (0, 0.425)


@pytest.mark.parametrize("error", [OSError("slow down"), KeyboardInterrupt()])
def test_a_book_that_cannot_be_read_holds_nothing(
    book: MonthlyBook, folder: Location, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(MonthlyBook, "read", fail)
        with pytest.raises(type(error)):
            make_budget(book, 1).reserve(make_send(folder, 1), NOON)
    assert sums(book, NOON) == (0, 0)


def test_a_send_tried_again_on_another_day_counts_there_alone(book: MonthlyBook, folder: Location) -> None:
    budget, send = make_budget(book, 0.3), make_send(folder, 1)
    budget.reserve(send, NOON)
    again = NOON + 2 * DAY
    budget.reserve(claim(send, NOON), again)
    assert sums(book, again) == (0, 0.225)
    budget.settle(key(1), 0.2, [NOON, again], again + HOUR)
    assert sums(book, again) == (0.2, 0)


def test_real_time_counts_at_its_own_price(book: MonthlyBook, folder: Location) -> None:
    with pytest.raises(BudgetError, match=r"may cost up to \$0.4500"):
        make_budget(book, 0.3).check(make_send(folder, 1, in_realtime=True), NOON)
    make_budget(book, 0.3).check(make_send(folder, 1), NOON)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"model": "unheard-of"}, "the price of unheard-of or the most it can write is not known"),
        ({"bounded": False}, r"may cost up to \$4.9902"),
    ],
)
def test_what_cannot_be_known_is_refused(book: MonthlyBook, folder: Location, how: dict, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BudgetError, match=words):
        make_budget(book, 1).check(make_send(folder, 1, **how), NOON)


def test_a_split_warns_of_what_may_not_fit(book: MonthlyBook, folder: Location) -> None:
    estimate = estimate_plan(make_plan(1))
    assert make_budget(book, 0.3).foresee(estimate, NOON) == ""
    book.reserve(key(9), 0.2, NOON)
    assert "may cost up to $0.2250" in make_budget(book, 0.3).foresee(estimate, NOON)
    with pytest.raises(BudgetError, match="no price is known for unheard-of"):
        make_budget(book, 9).foresee(estimate_plan(make_plan(1, model="unheard-of")), NOON)


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_many_that_send_at_once_never_go_above_it(
    request: pytest.FixtureRequest, folder: Location, store: str
) -> None:
    place = folder
    if store == "s3":
        s3: ObjectStore = request.getfixturevalue("s3")
        place = Location(s3.filesystem(), f"{s3.bucket}/book", s3.uri("book"))
    budget = make_budget(MonthlyBook(place), 1)  # room for four

    def send(number: int) -> bool:
        try:
            budget.reserve(make_send(folder, number), NOON)
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        sent = sum(pool.map(send, range(1, 25)))
    paid, reserved = sums(MonthlyBook(place), NOON)
    assert sent <= 4
    assert (paid, reserved) == (0, pytest.approx(0.225 * sent))
    assert [send(number) for number in range(100, 105)].count(True) + sent == 4


@pytest.mark.parametrize("value", ["cheap", -1, True, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_named(value: object) -> None:
    with pytest.raises(ConfigError, match=r"monthly_budget_usd=.* must be US dollars"):
        read_account_limits({"monthly_budget_usd": value}, "connection 'c'")


def test_an_amount_may_be_text() -> None:
    assert read_account_limits({"monthly_budget_usd": "12.5"}, "c").monthly_budget_usd == 12.5
    assert read_account_limits({}, "c").monthly_budget_usd is None
