"""Requests sent one by one, without a batch."""
