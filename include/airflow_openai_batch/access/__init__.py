"""Who may go where: who gave a value, what ``[openai_batch]`` allows, and places opened for it.

Every place and connection that a run names passes through here, whoever named it. What a form names is refused unless
a setting allows it; see docs/security.md.
"""

# Modules that other folders may import from.
__all__ = ["givers", "locations", "permissions", "settings"]
