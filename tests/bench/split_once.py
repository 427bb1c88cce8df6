"""One split in a process of its own, for `bench_split`: ``python -m bench.split_once INPUT OUTPUT COUNTER LIMIT``."""

from __future__ import annotations

import sys
import time

from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.planning.split import Counting, split_job
from airflow_openai_batch.storage.location import resolve_plain

if __name__ == "__main__":
    source, output, counter, limit = sys.argv[1:]
    split_job(
        source,
        resolve_plain(output),
        resolve=resolve_plain,
        limits=ShardLimits(max_tokens=int(limit) or None),
        counting=Counting(counter=counter),  # type: ignore[arg-type]
        now=time.time(),
    )
