"""Places in object storage, and what lies there: streams, compression, versions of objects."""

# Modules that other folders may import from.
__all__ = ["compression", "first_bytes", "location", "read_ahead", "sources", "this_machine", "uris"]
