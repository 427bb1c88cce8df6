"""What answers cost, worked out by hand from the prices that OpenAI publishes (dollars per million tokens)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_openai_batch.openai_api.prices import Cost, estimate_cost, price_answer
from airflow_openai_batch.openai_api.rates import MediaTokens

NOVEMBER = datetime(2026, 11, 28, tzinfo=UTC).timestamp()
LONG = 300_000
"""Input tokens of a request that is priced as a long one."""


def price(
    model: str, sent_as: str = "batch", tokens: tuple[int, int, int, int] = (0, 0, 0, 0), **options: object
) -> Cost:
    """:param tokens: input, of which cached, of which written to the cache, output."""
    read, cached, written, output = tokens
    found = price_answer(
        model,
        sent_as,  # type: ignore[arg-type]
        read,
        output,
        cached,
        **{"at": NOVEMBER, **options},  # type: ignore[arg-type]
        written_tokens=written,
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "tokens", "batch", "standard"),
    [
        # 10,000 x 6.25 + 500 x 25; 10,000 x 12.5 + 500 x 50
        ("gpt-6-astra", (10_000, 0, 10_000, 500), 0.075, 0.15),
        # 8,000 x 5 + 2,000 x 6.25 + 500 x 25
        ("gpt-6-astra", (10_000, 0, 2_000, 500), 0.065, 0.13),
        # 1,000 x 5 + 6,000 x 0.5 + 3,000 x 6.25 + 500 x 25
        ("gpt-6-astra", (10_000, 6_000, 3_000, 500), 0.03925, 0.0785),
        # 10,000 x 0.0625 + 1,000 x 0.25
        ("gpt-6-luna", (10_000, 0, 10_000, 1_000), 0.000875, 0.00175),
        # 1,000,000 x 0.05 + 1,000,000 x 0.25, as a short request of the same price would have it: long, 0.1 and 0.375
        ("gpt-6-luna", (1_000_000, 0, 0, 1_000_000), 0.475, 0.95),
        ("gpt-6-sol", (10_000, 5_000, 5_000, 1_000), 0.01175, 0.0235),
        ("gpt-6.1-sol", (10_000, 5_000, 5_000, 1_000), 0.0115, 0.023),
        ("gpt-6.1-terra", (10_000, 5_000, 5_000, 1_000), 0.00575, 0.0115),
        ("gpt-5.6-luna", (10_000, 0, 10_000, 1_000), 0.00185, 0.0037),
        ("gpt-5.6-terra", (10_000, 0, 10_000, 1_000), 0.0185, 0.037),
        ("gpt-5.6-sol", (10_000, 0, 10_000, 1_000), 0.035, 0.07),
        # No price of its own for writes before gpt-5.6: they are input.
        ("gpt-5.5", (10_000, 0, 10_000, 1_000), 0.04, 0.08),
        ("gpt-5.4", (10_000, 4_000, 0, 1_000), 0.01552, 0.031),
        ("gpt-5.4-mini-2026-03-17", (10_000, 4_000, 0, 1_000), 0.00465, 0.0093),
        ("gpt-5.4-nano", (10_000, 4_000, 0, 1_000), 0.001265, 0.00253),
        ("gpt-5.2", (10_000, 4_000, 0, 1_000), 0.0126, 0.0252),
        ("gpt-5-mini", (10_000, 4_000, 0, 1_000), 0.0018, 0.0036),
        # What is cached costs as much in a batch as it does otherwise: discounts do not add up.
        ("gpt-4.1", (10_000, 4_000, 0, 1_000), 0.012, 0.022),
        ("gpt-4.1-mini", (10_000, 4_000, 0, 1_000), 0.0024, 0.0044),
        ("gpt-4o", (10_000, 4_000, 0, 1_000), 0.0175, 0.03),
        ("gpt-4o-mini", (10_000, 4_000, 0, 1_000), 0.00105, 0.0018),
        ("o3", (10_000, 4_000, 0, 1_000), 0.012, 0.022),
        ("o4-mini", (10_000, 4_000, 0, 1_000), 0.0066, 0.0121),
        ("ft:gpt-4o-mini-2024-07-18:us::1", (10_000, 0, 0, 1_000), 0.0021, 0.0042),
        ("text-embedding-3-small", (1_000_000, 0, 0, 0), 0.01, 0.02),
        ("text-embedding-3-large", (1_000_000, 0, 0, 0), 0.065, 0.13),
        # Its batch price is the standard one, says OpenAI.
        ("gpt-3.5-turbo-1106", (10_000, 0, 0, 1_000), 0.012, 0.012),
        ("gpt-3.5-turbo", (10_000, 0, 0, 1_000), 0.00325, 0.0065),
    ],
)
def test_a_batch_and_the_same_at_the_standard_price(
    model: str, tokens: tuple[int, int, int, int], batch: float, standard: float
) -> None:
    assert price(model, "batch", tokens) == pytest.approx((batch, standard))
    assert price(model, "realtime", tokens) == pytest.approx((standard, standard))


@pytest.mark.parametrize(
    ("tier", "cost"),
    [
        ("default", 0.0037),
        ("auto", 0.0037),
        (None, 0.0037),
        ("flex", 0.00185),
        ("batch", 0.00185),
        ("priority", 0.0074),
        ("fast", 0.0074),
    ],
)
def test_the_tier_that_answered_decides_what_is_written_and_read_costs(tier: str | None, cost: float) -> None:
    """gpt-5.6-luna: 10,000 written at 0.25, 1,000 out at 1.20, at half, once, twice."""
    found = price("gpt-5.6-luna", "realtime", (10_000, 0, 10_000, 1_000), service_tier=tier)
    assert found == pytest.approx((cost, 0.0037))


@pytest.mark.parametrize(
    ("model", "tokens", "batch"),
    [
        # (200,000 x 10 + 100,000 x 12.5 + 1,000 x 37.5) / 1,000,000
        ("gpt-6-astra", (LONG, 0, 100_000, 1_000), 3.2875),
        # (200,000 x 0.1 + 100,000 x 0.01 + 1,000 x 0.375) / 1,000,000
        ("gpt-6-luna", (LONG, 100_000, 0, 1_000), 0.021375),
        ("gpt-5.4", (LONG, 0, 0, 1_000), 0.76125),
        # To the token: 272,000 is not long yet.
        ("gpt-6-luna", (272_000, 0, 0, 0), 0.0136),
        ("gpt-6-luna", (272_001, 0, 0, 0), 0.0272001),
        # No long inputs in its price.
        ("gpt-5.4-mini", (LONG, 0, 0, 1_000), 0.11475),
    ],
)
def test_a_long_input_is_dearer_from_its_first_token(
    model: str, tokens: tuple[int, int, int, int], batch: float
) -> None:
    assert price(model, "batch", tokens).actual_usd == pytest.approx(batch)


@pytest.mark.parametrize(
    ("model", "day", "standard"),
    [
        ("gpt-5.6-luna", "2026-07-29", 0.0185),  # 10,000 x 1.25 + 1,000 x 6
        ("gpt-5.6-luna", "2026-07-30", 0.0037),
        ("gpt-5.6-sol", "2026-08-20", 0.0925),
        ("gpt-5.6-sol", "2026-08-21", 0.07),
        ("o3", "2025-06-09", 0.14),
        ("o3", "2025-06-10", 0.028),
    ],
)
def test_a_price_is_that_of_the_day_of_the_answer(model: str, day: str, standard: float) -> None:
    at = datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()
    found = price(model, "batch", (10_000, 0, 10_000, 1_000), at=at)
    assert found == pytest.approx((standard / 2, standard))


def test_more_cached_and_written_than_read_is_no_more_than_was_read() -> None:
    """As a server may say it in error: what is cached goes first."""
    assert price("gpt-6-luna", "batch", (1_000, 900, 900, 0)).actual_usd == pytest.approx(
        (900 * 0.005 + 100 * 0.0625) / 1e6
    )


def test_at_most_all_of_the_input_is_written_to_the_cache() -> None:
    """10,000 x 6.25 + 500 x 25, where 10,000 x 5 would be a bound that an answer can exceed."""
    chat = "/v1/chat/completions"
    assert estimate_cost("gpt-6-astra", chat, 10_000, 500) == pytest.approx((0.0625, 0.125))
    assert estimate_cost("gpt-6-astra", chat, 10_000, 500, at_most=True) == pytest.approx((0.075, 0.15))
    assert estimate_cost("gpt-5.4", chat, 10_000, 500, at_most=True) == estimate_cost(
        "gpt-5.4", chat, 10_000, 500
    )


PICTURES = [
    # 100 words x 5, 1,000 of a picture that is edited x 8, 7,034 drawn x 30; half of it in a batch
    ("gpt-image-2", MediaTokens(input_image=1_000, output_image=7_034), (1_100, 7_034), 0.21952),
    # What is drawn costs more than what is written: 32, not 10.
    ("gpt-image-1.5", MediaTokens(output_image=4_160), (100, 4_160), 0.13362),
    ("gpt-image-1-mini", MediaTokens(input_image=500, output_image=4_500), (600, 4_500), 0.03745),
    ("gpt-audio-mini", MediaTokens(input_audio=1_000, output_audio=500), (1_200, 600), 0.02036),
]


@pytest.mark.parametrize(("model", "media", "tokens", "standard"), PICTURES)
def test_pictures_and_sound_cost_what_their_tokens_cost(
    model: str, media: MediaTokens, tokens: tuple[int, int], standard: float
) -> None:
    found = price_answer(model, "batch", *tokens, at=NOVEMBER, media=media)
    assert found == pytest.approx((standard / 2, standard))


def test_an_estimate_of_pictures_is_of_pictures() -> None:
    found = estimate_cost("gpt-image-1.5", "/v1/images/generations", 1_000, 41_600, requests=10)
    assert found == pytest.approx(((1_000 * 2.5 + 41_600 * 16) / 1e6, (1_000 * 5 + 41_600 * 32) / 1e6))


def test_what_is_kept_in_the_cache_for_twelve_hours_costs_twice() -> None:
    """gpt-6-astra in a batch: 6,000 at 6.25, 4,000 at 12.5, 500 out at 25."""
    found = price("gpt-6-astra", "batch", (10_000, 0, 10_000, 500), written_long_tokens=4_000)
    assert found == pytest.approx((0.1, 0.2))
    too_many = price("gpt-6-astra", "batch", (10_000, 0, 1_000, 0), written_long_tokens=9_000)
    assert too_many.actual_usd == pytest.approx((9_000 * 5 + 1_000 * 12.5) / 1e6)


@pytest.mark.parametrize(
    ("share", "at_most", "standard"),
    [
        (0.0, False, 0.0032),  # 10,000 x 0.2 + 1,000 x 1.2
        (1.0, False, 0.0064),
        (0.25, False, 0.004),
        (0.0, True, 0.0037),  # 10,000 x 0.25 + 1,000 x 1.2
        (1.0, True, 0.0074),
    ],
)
def test_requests_for_priority_are_estimated_at_its_price(
    share: float, at_most: bool, standard: float
) -> None:
    found = estimate_cost(
        "gpt-5.6-luna", "/v1/chat/completions", 10_000, 1_000, at_most=at_most, dearer_share=share
    )
    assert found == pytest.approx((0.00185 if at_most else 0.0016, standard))


def test_where_the_price_of_priority_is_not_known_there_is_no_estimate() -> None:
    chat = "/v1/chat/completions"
    assert estimate_cost("gpt-4.1-nano", chat, 10, 10) is not None
    assert price_answer("gpt-3.5-turbo", "realtime", 10, 10, service_tier="priority") is None
    assert estimate_cost("gpt-3.5-turbo", chat, 10, 10, dearer_share=0.5) is None
