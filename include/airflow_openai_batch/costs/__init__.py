"""What a job costs: estimates before, bounds while it runs, what was paid, the budget of a month.

Prices themselves are in `openai_api.prices`. What was paid stands in names of objects, so that a listing sums it up.
"""

# Modules that other folders may import from.
__all__ = [
    "budget",
    "estimate",
    "forecast",
    "monthly_book",
    "monthly_budget",
    "sample",
    "spending",
]
