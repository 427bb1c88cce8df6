"""Scripts that measure this package beside its alternatives and print a table."""
