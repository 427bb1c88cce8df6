"""What became of a job: its report, the check of its rows, what the page shows while it runs."""

# Modules that other folders may import from.
__all__ = [
    "failed_requests",
    "job_status",
    "markdown",
    "progress",
    "repair",
    "report",
    "row_check",
    "shard_words",
    "snapshot",
]
