"""The split: scan the input, count tokens, pack shards, write ``plan.json``."""

# Modules that other folders may import from.
__all__ = ["count_chunks", "first_models", "input_check", "scan", "split"]
