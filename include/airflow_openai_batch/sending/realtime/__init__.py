"""Requests sent one by one, without a batch."""

# Modules that other folders may import from.
__all__ = ["send", "time_left"]
