"""Room in the queue of an account: who goes next, what fits, what a refusal means."""

# Modules that other folders may import from.
__all__ = ["book", "line", "own_line", "refusals", "room"]
