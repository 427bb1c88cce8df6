"""Airflow's operators for each step of a job, and one for a whole job.

They are doors: what is to be done next, `sending.machine` decides. What they share is in ``task/``.
"""

# Modules that other folders may import from.
__all__ = [
    "create",
    "download",
    "form_arguments",
    "join",
    "links",
    "own_tasks",
    "prepare",
    "prepare_stream",
    "report",
    "shard",
    "split",
    "whole_job",
]
