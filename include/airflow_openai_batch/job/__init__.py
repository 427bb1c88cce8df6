"""The job directory: its plan, the ledger of each shard and what that adds up to, a shard's requests."""
