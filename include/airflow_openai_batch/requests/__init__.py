"""One line of requests: whether it is valid, how many tokens it has, which format of answer it asks for."""

# Modules that other folders may import from.
__all__ = ["answer_format", "json_schema", "plain_bodies", "request", "schema_bounds", "schema_check"]
