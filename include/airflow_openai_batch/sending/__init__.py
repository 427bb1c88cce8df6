"""How a shard gets its answers: the state machine, and what carries its steps out."""
