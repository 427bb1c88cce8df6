"""Processes of our own beside a task, with limits of time and memory."""

# Modules that other folders may import from.
__all__ = ["frames", "limited_process", "worker_process"]
