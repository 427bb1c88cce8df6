"""What the queue holds, what fits into it, and what a shard is told that never will."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import BatchError, BatchStatus, BatchView
from airflow_openai_batch.sending.queue.refusals import classify_refusal, read_queue_limit
from airflow_openai_batch.sending.queue.room import Held, Need, check_fits, find_room, never_fits, sum_held
from airflow_openai_batch.wording import format_amount

MINI = "gpt-4o-mini"


def view(
    status: BatchStatus = BatchStatus.IN_PROGRESS,
    tokens: str | int | None = 400_000,
    model: str | None = MINI,
    total: int = 0,
    **metadata: str,
) -> BatchView:
    if tokens is not None:
        metadata["input_tokens"] = str(tokens)
    return BatchView(
        id="batch_1",
        status=status,
        input_file_id="file-1",
        times={},
        total=total,
        metadata=metadata,
        model=model,
    )


@pytest.mark.parametrize("status", list(BatchStatus))
def test_a_batch_holds_its_tokens_from_validation_until_it_is_final(status: BatchStatus) -> None:
    held = sum_held([view(status)])
    final = status in ("completed", "failed", "expired", "cancelled")
    assert held == ({} if final else {MINI: Held(400_000, 0)})


def test_dated_and_fine_tuned_models_share_a_queue_and_others_do_not() -> None:
    batches = [
        view(model="gpt-4o-mini-2024-07-18"),
        view(model="ft:gpt-4o-mini-2024-07-18:org::id"),
        view(model="gpt-4o"),
        view(model=None),
    ]
    need = Need(MINI, 1, 1)
    assert find_room(batches, need, QueueLimit(tokens=2_000_000)).free_tokens == 1_200_000


def test_strangers_hold_requests_but_nobody_knows_their_tokens() -> None:
    strange = [view(tokens=None, total=300), view(tokens="many", total=5)]
    assert sum_held(strange) == {MINI: Held(0, 305)}


def test_requests_count_before_openai_has_counted_them() -> None:
    room = find_room(
        [view(BatchStatus.VALIDATING, requests="900")], Need(MINI, 10, 200), QueueLimit(requests=1_000)
    )
    assert room.free_requests == 100
    assert not room.fits


@pytest.mark.parametrize(
    ("tokens", "limit", "fits"),
    [(1_600_000, 2_000_000, True), (1_600_001, 2_000_000, False), (10**12, None, True), (1, 400_000, False)],
)
def test_room_is_there_up_to_the_last_token(tokens: int, limit: int | None, fits: bool) -> None:
    assert find_room([view()], Need(MINI, tokens, 1), QueueLimit(tokens=limit)).fits is fits


def test_a_bound_above_the_limit_goes_when_the_queue_is_empty() -> None:
    need, limit = Need(MINI, 9_000_000, 1, at_most=True), QueueLimit(tokens=2_000_000)
    assert not find_room([view()], need, limit).fits
    assert find_room([], need, limit).fits
    check_fits(need, limit, shard=0)


def test_a_room_says_what_a_person_wants_to_know() -> None:
    room = find_room([view(tokens=1_600_000)], Need(MINI, 1_900_000, 8), QueueLimit(tokens=2_000_000))
    assert str(room) == "needs 1.9M tokens, 0.4M of 2.0M free"
    room = find_room([view(total=999_000)], Need(MINI, 70_000, 8_000), QueueLimit(requests=1_000_000))
    assert str(room) == "needs 70K tokens; 8,000 requests, 1,000 of 1.0M free"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (950, "950"),
        (90_000, "90K"),
        (400_000, "0.4M"),
        (1_350_000, "1.35M"),
        (200_000_000, "200.0M"),
        (15 * 10**9, "15.0B"),
    ],
)
def test_amounts_read_as_in_the_tables_of_limits(amount: int, text: str) -> None:
    assert format_amount(amount) == text


def test_the_stronger_word_counts_field_by_field() -> None:
    tier = QueueLimit(tokens=3_000_000, requests=1_000_000, tokens_by="tier", requests_by="tier")
    told = tier.overridden_by(QueueLimit(tokens=2_000_000, tokens_by="refusal"))
    assert told == QueueLimit(tokens=2_000_000, requests=1_000_000, tokens_by="refusal", requests_by="tier")
    assert told.only_by("refusal").requests is None
    assert QueueLimit.from_dict(told.to_dict()) == told
    assert QueueLimit.from_dict({"batch_id": "batch_1"}) == QueueLimit.from_dict(None) == QueueLimit()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("refusal", "as the server said when it refused a batch"),
        ("connection", "by the connection's extra"),
        ("tier", "by the tier in the connection's extra"),
        ("parameter", "by the run's enqueued_token_limit"),
    ],
)
def test_what_can_never_fit_is_told_the_number_to_split_by(source: str, words: str) -> None:
    need, limit = Need(MINI, 2_300_000, 9), QueueLimit(tokens=2_000_000, tokens_by=source)  # type: ignore[arg-type]
    assert never_fits(need, limit)
    with pytest.raises(JobError) as caught:
        check_fits(need, limit, shard=3)
    text = str(caught.value)
    assert f"shard 3 needs 2,300,000 tokens, the batch queue of {MINI} holds 2,000,000 ({words})" in text
    assert "max_tokens_per_shard=1900000 and on_existing=restart" in text
    assert ("correct the limit" in text) is (source != "refusal")


def test_too_many_requests_are_told_in_requests() -> None:
    with pytest.raises(JobError, match="max_requests_per_shard=1000 "):
        check_fits(Need(MINI, 1, 1_001), QueueLimit(requests=1_000), shard=0)
    check_fits(Need(MINI, 1, 1_000), QueueLimit(requests=1_000), shard=0)


def test_a_refusal_says_the_limit_and_in_what() -> None:
    by_tokens = (
        "Enqueued token limit reached for gpt-4o-mini in organization org-X. Limit: 2,000,000 enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )
    by_requests = (
        "Enqueued request limit reached for text-embedding-3-small in organization org-X. Limit: 1,000,000 enqueued "
        "requests. Please try again once some in_progress batches have been completed."
    )
    tokens = classify_refusal((BatchError(code="token_limit_exceeded", message=by_tokens),))
    requests = classify_refusal((BatchError(message=by_requests),))
    assert (tokens.kind, tokens.limit, tokens.unit) == ("queue_full", 2_000_000, "tokens")
    assert (requests.kind, requests.limit, requests.unit) == ("queue_full", 1_000_000, "requests")
    assert read_queue_limit(by_tokens) == QueueLimit(tokens=2_000_000, tokens_by="refusal")
    assert read_queue_limit(by_requests) == QueueLimit(requests=1_000_000, requests_by="refusal")
    assert read_queue_limit("Cannot find file file-X. Limit: 3") == QueueLimit()
