"""How a shard gets its answers: the state machine, and what carries its steps out.

`machine` is pure: from the ledger and what was seen of OpenAI it tells the next step. `driver` asks it and `actions`
carry the steps out. Operators, the sensor and the triggers drive it to a goal.
"""

# Modules that other folders may import from.
__all__ = ["batch_search", "caller", "driver", "judging", "policy", "remote_cleanup", "shard_files", "steps"]
