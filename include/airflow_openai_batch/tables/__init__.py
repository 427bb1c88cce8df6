"""Tables of people: rows in, rows with answers out.

``reading`` brings rows, ``prompts`` says what is asked of each, ``preparation`` writes requests, ``join`` puts answers
beside rows, ``writing`` writes the table.
"""
