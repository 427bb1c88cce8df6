"""What a job costs: estimates before, bounds while it runs, what was paid, the budget of a month."""
