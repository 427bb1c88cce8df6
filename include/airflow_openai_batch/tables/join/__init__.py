"""Answers beside the rows that they were asked for."""

# Modules that other folders may import from.
__all__ = ["answer_columns", "answer_reader", "answer_types", "join_table", "typed_answers"]
