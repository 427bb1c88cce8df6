"""The sensor that waits for a shard's batch in the triggerer."""

# Modules that other folders may import from.
__all__ = ["batch"]
