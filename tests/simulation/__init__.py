"""The whole way of a job under a virtual clock: the real driver, ledger and landing, faults of all kinds, kills."""
