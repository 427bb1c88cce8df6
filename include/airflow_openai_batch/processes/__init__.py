"""Processes of our own beside a task, with limits of time and memory."""
