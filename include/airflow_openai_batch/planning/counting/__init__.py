"""Tokens of many lines, counted in processes of their own."""
