"""What became of a job: the report, the check of its rows, what the page shows of it."""
