"""Room in the queue of an account: who goes next, and what refusals mean."""
