"""Tokens of many lines, counted in processes of their own."""

# Modules that other folders may import from.
__all__ = ["count_chunks"]
