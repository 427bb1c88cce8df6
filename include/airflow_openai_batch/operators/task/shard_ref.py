"""References of shards: what the split returns a list of, and all that goes through XCom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.wording import number_of

ShardRef = Mapping[str, Any]
"""``{"job": <output_uri>, "shard": 0}``"""


def read_ref(ref: Any) -> tuple[str, int]:
    """:raises ConfigError: if it is not what the split returns."""
    if isinstance(ref, Mapping) and isinstance(ref.get("job"), str) and str(ref.get("shard", "")).isdigit():
        return ref["job"], int(ref["shard"])
    if (
        isinstance(ref, Sequence)
        and not isinstance(ref, str)
        and all(isinstance(each, Mapping) for each in ref)
    ):
        raise ConfigError(
            f"shard is a list of {number_of(len(ref), 'shard')}: the split is mapped itself, so that its output is a "
            "list for each of its instances. Put a task between them that makes one list of all, @task def "
            "collect(lists): return [shard for shards in lists for shard in shards], and map over that: "
            ".expand(shard=collect(split.output)). Or give one split all inputs, or map OpenAIBatchJobOperator."
        )
    raise ConfigError(
        f"shard={type(ref).__name__}: must be an item of the split's output, "
        '{"job": <output_uri>, "shard": <number>}. Map over it: .expand(shard=split.output).'
    )
