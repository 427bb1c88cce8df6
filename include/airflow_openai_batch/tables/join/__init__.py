"""Answers beside the rows that they were asked for."""
