"""The split: scan the input, count, pack shards, write the plan."""
