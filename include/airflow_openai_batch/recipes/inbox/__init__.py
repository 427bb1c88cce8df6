"""Behind ``drain_request_files``."""

# Modules that other folders may import from.
__all__ = ["draining", "inbox", "pending_files"]
