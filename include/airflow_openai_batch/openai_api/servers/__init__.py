"""Servers that speak OpenAI's Batch API, each with what differs there: one file a server, and the choice among them."""

# Modules that other folders may import from.
__all__ = ["choice", "credentials", "profile"]
